//! How much each reference counts: the weights α, not negative, summing to 1.

use super::{
    ObjectiveError, Scored, SequenceLogps,
    numeric::{log_sum_exp, softplus},
};
use crate::domain::{ObjectiveSpec, Weighting};

/// How far given weights may sum away from 1: what decimal fractions lose.
const SUM_TOLERANCE: f64 = 1e-6;

/// Adaptive Reference Weighting Coefficients (arXiv 2405.16388): `α = |a| / Σ|a|` with
/// `a = log π(chosen) − log π(rejected)` of each reference.
///
/// Where no reference tells the two completions apart, all count the same.
pub(super) fn arwc(references: &[SequenceLogps]) -> Vec<f64> {
    shares(&references.iter().map(|r| r.margin().abs()).collect::<Vec<_>>())
}

/// Each number's share of the sum; where the sum is nothing, all the same.
fn shares(numbers: &[f64]) -> Vec<f64> {
    let sum: f64 = numbers.iter().sum();
    if sum > 0.0 { numbers.iter().map(|x| x / sum).collect() } else { uniform(numbers.len()) }
}

/// All weight on the reference with the largest a; of equals on the first.
pub(super) fn max_margin(references: &[SequenceLogps]) -> Vec<f64> {
    let largest = references.iter().map(|r| r.margin()).fold(f64::NEG_INFINITY, f64::max);
    one_hot(references.iter().position(|r| r.margin() == largest).unwrap_or(0), references.len())
}

/// The same weight for each of `n` references.
pub(super) fn uniform(n: usize) -> Vec<f64> {
    vec![1.0 / n as f64; n]
}

/// The weights as given, once they are weights of `n_references` references.
pub fn checked_weights(weights: &[f64], n_references: usize) -> Result<Vec<f64>, ObjectiveError> {
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

/// How well each reference tells the sides of a set of pairs apart: what the weightings of arXiv 2512.10040 stand on.
#[derive(Debug, Clone, PartialEq)]
pub struct SetStrengths {
    /// Σ|δ| per reference, δ = log π(chosen) − log π(rejected).
    strengths: Vec<f64>,
    /// Pairs with δ > 0 per reference.
    n_right: Vec<f64>,
    /// Σ log σ(β·δ) per reference.
    log_likelihoods: Vec<f64>,
}

impl SetStrengths {
    /// Of the pairs of a set, each given as it is under every reference. δ is per token where `length_normalized`, as in
    /// their code, else of the sums.
    pub fn of<'a>(n_references: usize, spec: &ObjectiveSpec, pairs: impl IntoIterator<Item = &'a [Scored]>) -> Self {
        let zeros = vec![0.0; n_references];
        let mut sums = Self { strengths: zeros.clone(), n_right: zeros.clone(), log_likelihoods: zeros };
        for references in pairs {
            for (k, reference) in references.iter().enumerate().take(n_references) {
                let logps = if spec.length_normalized { reference.per_token() } else { reference.logps };
                sums.strengths[k] += logps.margin().abs();
                sums.log_likelihoods[k] -= softplus(-spec.beta * logps.margin());
                sums.n_right[k] += if logps.margin() > 0.0 { 1.0 } else { 0.0 };
            }
        }
        sums
    }

    /// The weights of a weighting that looks at a set; `None` of one that does not.
    pub fn weights(&self, weighting: Weighting) -> Option<Vec<f64>> {
        match weighting {
            Weighting::Vdw | Weighting::Swcw => Some(shares(&self.strengths)),
            Weighting::Vaw => Some(shares(&self.n_right)),
            Weighting::Evidence => {
                let sum = log_sum_exp(self.log_likelihoods.iter().copied());
                Some(self.log_likelihoods.iter().map(|l| (l - sum).exp()).collect())
            }
            Weighting::SwcwOneHot => {
                // Of equals the first, which is the base where nothing is told apart.
                let largest = self.strengths.iter().copied().fold(0.0, f64::max);
                let k = self.strengths.iter().position(|s| *s == largest).unwrap_or(0);
                Some(one_hot(k, self.strengths.len()))
            }
            Weighting::Arwc | Weighting::Uniform | Weighting::Fixed | Weighting::Thompson | Weighting::MaxMargin => {
                None
            }
        }
    }
}

/// All weight on reference `k` of `n`.
pub(super) fn one_hot(k: usize, n: usize) -> Vec<f64> {
    (0..n).map(|i| if i == k { 1.0 } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Sides;

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
    fn the_reference_that_most_prefers_the_chosen_side_takes_all() {
        let references = [logps(-42.0, -50.0), logps(-44.0, -41.0), logps(-41.0, -43.0)];
        assert_eq!(max_margin(&references), [1.0, 0.0, 0.0]);
        assert_eq!(max_margin(&[references[1], references[1]]), [1.0, 0.0]);
    }

    #[test]
    fn given_weights_are_checked() {
        assert_eq!(checked_weights(&[0.25, 0.75], 2), Ok(vec![0.25, 0.75]));
        assert_eq!(checked_weights(&[1.0], 2), Err(ObjectiveError::WeightCount { n_weights: 1, n_references: 2 }));
        assert_eq!(checked_weights(&[0.5, 0.6], 2), Err(ObjectiveError::InvalidWeights { sum: 1.1 }));
        assert_eq!(checked_weights(&[-1.0, 2.0], 2), Err(ObjectiveError::InvalidWeights { sum: 1.0 }));
        assert!(checked_weights(&[f64::NAN, 1.0], 2).is_err());
        assert!(checked_weights(&[f64::INFINITY, 0.0], 2).is_err());
    }

    #[test]
    fn a_set_gives_weights_by_strength_or_by_accuracy() {
        let scored = |chosen: f64, rejected: f64| Scored {
            logps: logps(chosen, rejected),
            n_tokens: Sides { chosen: 2.0, rejected: 4.0 },
        };
        let plain = ObjectiveSpec::default();
        let per_token = ObjectiveSpec { length_normalized: true, ..plain.clone() };
        let pairs = [[scored(-2.0, -4.0), scored(-8.0, -2.0)], [scored(-2.0, -4.0), scored(-1.0, -1.0)]];
        let sums = SetStrengths::of(2, &plain, pairs.iter().map(<[_; 2]>::as_slice));
        assert_eq!(sums.weights(Weighting::Vdw), Some(vec![0.4, 0.6]));
        assert_eq!(sums.weights(Weighting::Swcw), Some(vec![0.4, 0.6]));
        assert_eq!(sums.weights(Weighting::Vaw), Some(vec![1.0, 0.0]));
        assert_eq!(sums.weights(Weighting::SwcwOneHot), Some(vec![0.0, 1.0]));
        assert_eq!(sums.weights(Weighting::Arwc), None);
        let evidence = sums.weights(Weighting::Evidence).expect("weights");
        // log σ(0.2) twice against log σ(−0.6) and log σ(0).
        let likelihoods = [(1.0 + (-0.2f64).exp()).powi(-2), 0.5 / (1.0 + 0.6f64.exp())];
        assert!((evidence[0] - likelihoods[0] / (likelihoods[0] + likelihoods[1])).abs() < 1e-12, "{evidence:?}");
        // Per token the first reference sees no difference: −2/2 is −4/4.
        let per_token = SetStrengths::of(2, &per_token, pairs.iter().map(<[_; 2]>::as_slice));
        assert_eq!(per_token.weights(Weighting::Vdw), Some(vec![0.0, 1.0]));
        let nothing = SetStrengths::of(2, &plain, []);
        assert_eq!(nothing.weights(Weighting::Vaw), Some(vec![0.5, 0.5]));
        assert_eq!(nothing.weights(Weighting::SwcwOneHot), Some(vec![1.0, 0.0]));
    }
}
