//! The virtual reference: one log-probability in the place of many.

use super::{ObjectiveError, SequenceLogps, numeric::log_sum_exp};
use crate::domain::Mix;

/// Mixes both sides; `weights` and `references` are of the same length, and at least one weight is above zero.
pub(super) fn virtual_reference(mix: Mix, weights: &[f64], references: &[SequenceLogps]) -> SequenceLogps {
    let side = |logp: fn(&SequenceLogps) -> f64| {
        // A weight of zero takes the reference out; its logarithm would be −∞.
        let weighted = weights.iter().zip(references).filter(|(w, _)| **w > 0.0).map(|(w, r)| (*w, logp(r)));
        match mix {
            Mix::Harmonic => -log_sum_exp(weighted.map(|(w, lp)| w.ln() - lp)),
            Mix::Geometric => weighted.map(|(w, lp)| w * lp).sum(),
            Mix::Arithmetic => log_sum_exp(weighted.map(|(w, lp)| w.ln() + lp)),
        }
    };
    SequenceLogps { chosen: side(|r| r.chosen), rejected: side(|r| r.rejected) }
}

/// The weights of two references, each on the other: what the authors' code computes (github.com/thaihungle/MRPO).
pub(super) fn exchanged(weights: &[f64]) -> Result<[f64; 2], ObjectiveError> {
    match weights {
        [base, extra] => Ok([*extra, *base]),
        other => Err(ObjectiveError::ExchangeNeedsTwo(other.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCES: [SequenceLogps; 2] =
        [SequenceLogps { chosen: -42.0, rejected: -50.0 }, SequenceLogps { chosen: -44.0, rejected: -47.429_379 }];

    #[test]
    fn the_harmonic_mean_leans_to_the_most_pessimistic_reference() {
        let mixed = virtual_reference(Mix::Harmonic, &[8.0 / 11.0, 3.0 / 11.0], &REFERENCES);
        assert!((mixed.chosen - -43.008_859).abs() < 1e-6, "{mixed:?}");
        assert!((mixed.rejected - -49.709_826).abs() < 1e-6, "{mixed:?}");
    }

    #[test]
    fn a_weight_of_zero_takes_the_reference_out() {
        let far = SequenceLogps { chosen: -1e6, rejected: -1e6 };
        for mix in [Mix::Harmonic, Mix::Geometric, Mix::Arithmetic] {
            assert_eq!(virtual_reference(mix, &[1.0, 0.0], &[REFERENCES[0], far]), REFERENCES[0]);
        }
    }

    #[test]
    fn the_authors_code_exchanges_two_weights() {
        assert_eq!(exchanged(&[0.3, 0.7]), Ok([0.7, 0.3]));
        assert_eq!(exchanged(&[1.0]), Err(ObjectiveError::ExchangeNeedsTwo(1)));
        let mixed = virtual_reference(Mix::Harmonic, &[3.0 / 11.0, 8.0 / 11.0], &REFERENCES);
        assert!((mixed.chosen - -43.731_051).abs() < 1e-6 && (mixed.rejected - -48.886_340).abs() < 1e-6, "{mixed:?}");
    }

    #[test]
    fn harmonic_is_below_geometric_is_below_arithmetic() {
        let mixed = |mix| virtual_reference(mix, &[0.5, 0.5], &REFERENCES).chosen;
        assert!(mixed(Mix::Harmonic) < mixed(Mix::Geometric));
        assert!(mixed(Mix::Geometric) < mixed(Mix::Arithmetic));
    }
}
