//! How much each reference counts: the weights α, not negative, summing to 1.

use super::{ObjectiveError, SequenceLogps};

/// How far fixed weights may sum away from 1: what decimal fractions lose.
const SUM_TOLERANCE: f64 = 1e-6;

/// Adaptive Reference Weighting Coefficients (arXiv 2405.16388): `α = |a| / Σ|a|` with
/// `a = log π(chosen) − log π(rejected)` of each reference.
///
/// Where no reference tells the two completions apart, all count the same.
pub(super) fn arwc(references: &[SequenceLogps]) -> Vec<f64> {
    let strengths: Vec<f64> = references.iter().map(|r| r.margin().abs()).collect();
    let sum: f64 = strengths.iter().sum();
    if sum > 0.0 { strengths.iter().map(|a| a / sum).collect() } else { uniform(references.len()) }
}

/// The same weight for each of `n` references.
pub(super) fn uniform(n: usize) -> Vec<f64> {
    vec![1.0 / n as f64; n]
}

/// The weights as given, once they are weights of `n_references` references.
pub(super) fn fixed(weights: &[f64], n_references: usize) -> Result<Vec<f64>, ObjectiveError> {
    if weights.len() != n_references {
        return Err(ObjectiveError::WeightCount { n_weights: weights.len(), n_references });
    }
    let sum: f64 = weights.iter().sum();
    // A NaN fails the first test, an infinite weight the second.
    if !weights.iter().all(|w| *w >= 0.0) || (sum - 1.0).abs() > SUM_TOLERANCE {
        return Err(ObjectiveError::InvalidWeights { sum });
    }
    Ok(weights.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logps(chosen: f64, rejected: f64) -> SequenceLogps {
        SequenceLogps { chosen, rejected }
    }

    #[test]
    fn a_reference_counts_by_how_strongly_it_tells_the_sides_apart() {
        assert_eq!(arwc(&[logps(-42.0, -50.0), logps(-44.0, -41.0), logps(-41.0, -42.5)]), [0.64, 0.24, 0.12]);
    }

    #[test]
    fn where_nothing_discriminates_all_count_the_same() {
        assert_eq!(arwc(&[logps(-3.0, -3.0), logps(0.0, 0.0)]), [0.5, 0.5]);
    }

    #[test]
    fn fixed_weights_are_checked() {
        assert_eq!(fixed(&[0.25, 0.75], 2), Ok(vec![0.25, 0.75]));
        assert_eq!(fixed(&[1.0], 2), Err(ObjectiveError::WeightCount { n_weights: 1, n_references: 2 }));
        assert_eq!(fixed(&[0.5, 0.6], 2), Err(ObjectiveError::InvalidWeights { sum: 1.1 }));
        assert_eq!(fixed(&[-1.0, 2.0], 2), Err(ObjectiveError::InvalidWeights { sum: 1.0 }));
        assert!(fixed(&[f64::NAN, 1.0], 2).is_err());
        assert!(fixed(&[f64::INFINITY, 0.0], 2).is_err());
    }
}
