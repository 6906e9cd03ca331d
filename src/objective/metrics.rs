//! Metrics of a step: means over its pairs, under the names of `domain::metric`.

use std::collections::BTreeMap;

use super::{PairOutcome, SequenceLogps};
use crate::domain::metric;

/// Sums over pairs, read out as means.
#[derive(Debug, Clone)]
pub struct StepMetrics {
    n_pairs: u64,
    pairs: PairSums,
    references: Vec<(String, ReferenceSums)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct PairSums {
    loss: f64,
    reward_chosen: f64,
    reward_rejected: f64,
    reward_hits: f64,
    logp_chosen: f64,
    logp_rejected: f64,
    logp_hits: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct ReferenceSums {
    logp_chosen: f64,
    logp_rejected: f64,
    hits: f64,
    weight: f64,
    clips: f64,
}

impl StepMetrics {
    /// No pairs yet; one name per reference, in the references' order.
    pub fn new(reference_names: impl IntoIterator<Item = String>) -> Self {
        let references = reference_names.into_iter().map(|name| (name, ReferenceSums::default())).collect();
        Self { n_pairs: 0, pairs: PairSums::default(), references }
    }

    /// Adds one pair: the policy's and the references' log-probabilities as they went into the objective, and what it
    /// made of them.
    pub fn add(&mut self, policy: SequenceLogps, references: &[SequenceLogps], outcome: &PairOutcome) {
        debug_assert_eq!(references.len(), self.references.len(), "one name per reference");
        self.n_pairs += 1;
        let sums = &mut self.pairs;
        sums.loss += outcome.loss;
        sums.reward_chosen += outcome.reward_chosen;
        sums.reward_rejected += outcome.reward_rejected;
        sums.reward_hits += as_count(outcome.reward_chosen > outcome.reward_rejected);
        sums.logp_chosen += policy.chosen;
        sums.logp_rejected += policy.rejected;
        sums.logp_hits += as_count(policy.chosen > policy.rejected);
        for (index, (_, sums)) in self.references.iter_mut().enumerate().take(references.len()) {
            let reference = references[index];
            let clipped = outcome.clipped[index];
            sums.logp_chosen += reference.chosen;
            sums.logp_rejected += reference.rejected;
            sums.hits += as_count(reference.chosen > reference.rejected);
            sums.weight += outcome.weights[index];
            sums.clips += as_count(clipped.chosen) + as_count(clipped.rejected);
        }
    }

    /// Pairs added so far.
    pub fn n_pairs(&self) -> u64 {
        self.n_pairs
    }

    /// The means; empty while no pair was added, for there is nothing to tell.
    pub fn values(&self) -> BTreeMap<String, f64> {
        if self.n_pairs == 0 {
            return BTreeMap::new();
        }
        let n = self.n_pairs as f64;
        let sums = &self.pairs;
        let mut values: BTreeMap<String, f64> = [
            (metric::LOSS, sums.loss),
            (metric::REWARDS_CHOSEN, sums.reward_chosen),
            (metric::REWARDS_REJECTED, sums.reward_rejected),
            (metric::REWARDS_MARGINS, sums.reward_chosen - sums.reward_rejected),
            (metric::REWARDS_ACCURACIES, sums.reward_hits),
            (metric::LOGPS_CHOSEN, sums.logp_chosen),
            (metric::LOGPS_REJECTED, sums.logp_rejected),
            (metric::LOGPS_ACCURACIES, sums.logp_hits),
        ]
        .into_iter()
        .map(|(name, sum)| (name.to_owned(), sum / n))
        .collect();
        for (name, sums) in &self.references {
            let of_reference = [
                (metric::LOGPS_CHOSEN, sums.logp_chosen),
                (metric::LOGPS_REJECTED, sums.logp_rejected),
                (metric::REFERENCE_MARGIN, sums.logp_chosen - sums.logp_rejected),
                (metric::REFERENCE_ACCURACY, sums.hits),
                (metric::REFERENCE_WEIGHT_MEAN, sums.weight),
                // Two log-probabilities per pair.
                (metric::REFERENCE_CLIP_FRACTION, sums.clips / 2.0),
            ];
            values.extend(of_reference.map(|(key, sum)| (metric::of_reference(name, key), sum / n)));
        }
        values
    }
}

fn as_count(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Clip, Mix, ObjectiveSpec, PairLoss, Weighting},
        objective::evaluate,
    };

    fn logps(chosen: f64, rejected: f64) -> SequenceLogps {
        SequenceLogps { chosen, rejected }
    }

    #[test]
    fn every_metric_is_a_mean_over_the_pairs() {
        let spec = ObjectiveSpec {
            beta: 0.1,
            mix: Mix::Harmonic,
            clip: Clip::Adaptive,
            epsilon: 0.1,
            weighting: Weighting::Arwc,
            loss: PairLoss::Sigmoid,
            label_smoothing: 0.0,
        };
        let mut metrics = StepMetrics::new(["base".to_owned(), "extra".to_owned()]);
        assert!(metrics.values().is_empty());
        let policy = logps(-40.0, -45.0);
        let first = [logps(-42.0, -50.0), logps(-44.0, -41.0)];
        let second = [logps(-42.0, -50.0), logps(-43.0, -50.0)];
        let outcomes = [first, second].map(|r| (r, evaluate(&spec, policy, &r, &[]).expect("finite")));
        for (references, outcome) in &outcomes {
            metrics.add(policy, references, outcome);
        }
        let values = metrics.values();
        let close = |name: &str, expected: f64| {
            let got = values[name];
            assert!((got - expected).abs() < 1e-12, "{name}: {got}, not {expected}");
        };
        assert_eq!(metrics.n_pairs(), 2);
        close("loss", f64::midpoint(outcomes[0].1.loss, outcomes[1].1.loss));
        close("rewards/margins", values["rewards/chosen"] - values["rewards/rejected"]);
        close("rewards/accuracies", 0.0);
        close("logps/chosen", -40.0);
        close("logps/accuracies", 1.0);
        close("refs/base/margin", 8.0);
        close("refs/base/clip_fraction", 0.0);
        close("refs/extra/logps/chosen", -43.5);
        close("refs/extra/logps/rejected", -45.5);
        close("refs/extra/margin", 2.0);
        close("refs/extra/accuracy", 0.5);
        close("refs/extra/clip_fraction", 0.25);
        close("refs/extra/weight_mean", f64::midpoint(3.0 / 11.0, 7.0 / 15.0));
        assert_eq!(values.len(), 8 + 2 * 6);
    }
}
