//! Metrics of a step: means over its pairs, under the names of `domain::metric`.

use std::collections::BTreeMap;

use super::{PairInput, PairOutcome};
use crate::domain::metric;

/// Two margins this close, in nats, count as one.
const SAME_MARGIN: f64 = 0.01;

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
    agreements: f64,
    reward_margin: f64,
    reward_hits: f64,
    weight: f64,
    weight_squared: f64,
    clips_chosen: f64,
    clips_rejected: f64,
    is_virtual: f64,
}

impl StepMetrics {
    /// No pairs yet; one name per reference, in the references' order.
    pub fn new(reference_names: impl IntoIterator<Item = String>) -> Self {
        let references = reference_names.into_iter().map(|name| (name, ReferenceSums::default())).collect();
        Self { n_pairs: 0, pairs: PairSums::default(), references }
    }

    /// Adds one pair: the numbers that went into the objective, and what it made of them.
    pub fn add(&mut self, beta: f64, pair: &PairInput<'_>, outcome: &PairOutcome) {
        debug_assert_eq!(pair.references.len(), self.references.len(), "one name per reference");
        self.n_pairs += 1;
        let policy = pair.policy.logps;
        let sums = &mut self.pairs;
        sums.loss += outcome.loss;
        sums.reward_chosen += outcome.rewards.chosen;
        sums.reward_rejected += outcome.rewards.rejected;
        sums.reward_hits += as_count(outcome.rewards.margin() > 0.0);
        sums.logp_chosen += policy.chosen;
        sums.logp_rejected += policy.rejected;
        sums.logp_hits += as_count(policy.margin() > 0.0);
        let ranks: Vec<bool> = pair.references.iter().map(|r| r.logps.margin() > 0.0).collect();
        let n_right = ranks.iter().filter(|right| **right).count();
        for (k, (_, sums)) in self.references.iter_mut().enumerate().take(ranks.len()) {
            let logps = pair.references[k].logps;
            sums.logp_chosen += logps.chosen;
            sums.logp_rejected += logps.rejected;
            sums.hits += as_count(ranks[k]);
            let n_like_it = if ranks[k] { n_right } else { ranks.len() - n_right };
            // Of the others.
            sums.agreements += (n_like_it - 1) as f64 / (ranks.len() - 1).max(1) as f64;
            let gained = policy.margin() - logps.margin();
            sums.reward_margin += beta * gained;
            sums.reward_hits += as_count(gained > 0.0);
            sums.weight += outcome.weights[k];
            sums.weight_squared += outcome.weights[k].powi(2);
            sums.clips_chosen += as_count(outcome.clipped[k].chosen);
            sums.clips_rejected += as_count(outcome.clipped[k].rejected);
            let distance = outcome.virtual_reference.margin() - outcome.references[k].margin();
            sums.is_virtual += as_count(distance.abs() <= SAME_MARGIN);
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
            let of_reference = sums.means(n).into_iter();
            values.extend(of_reference.map(|(key, mean)| (metric::of_reference(name, key), mean)));
        }
        if self.references.len() > 1 {
            let sum: f64 = self.references.iter().map(|(_, sums)| sums.agreements).sum();
            values.insert(metric::REFERENCES_AGREEMENT.to_owned(), sum / n / self.references.len() as f64);
        }
        values
    }
}

impl ReferenceSums {
    fn means(&self, n: f64) -> [(&'static str, f64); 13] {
        let weight = self.weight / n;
        let variance = (self.weight_squared / n - weight * weight).max(0.0);
        [
            (metric::LOGPS_CHOSEN, self.logp_chosen / n),
            (metric::LOGPS_REJECTED, self.logp_rejected / n),
            (metric::REFERENCE_MARGIN, (self.logp_chosen - self.logp_rejected) / n),
            (metric::REFERENCE_ACCURACY, self.hits / n),
            (metric::REFERENCE_AGREEMENT, self.agreements / n),
            (metric::REFERENCE_REWARDS_MARGINS, self.reward_margin / n),
            (metric::REFERENCE_REWARDS_ACCURACIES, self.reward_hits / n),
            (metric::REFERENCE_WEIGHT_MEAN, weight),
            (metric::REFERENCE_WEIGHT_STD, variance.sqrt()),
            (metric::REFERENCE_CLIP_FRACTION, (self.clips_chosen + self.clips_rejected) / (2.0 * n)),
            (metric::REFERENCE_CLIP_FRACTION_CHOSEN, self.clips_chosen / n),
            (metric::REFERENCE_CLIP_FRACTION_REJECTED, self.clips_rejected / n),
            (metric::REFERENCE_VIRTUAL_SHARE, self.is_virtual / n),
        ]
    }
}

fn as_count(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{ObjectiveSpec, Sides},
        objective::{Scored, evaluate, properties::input},
    };

    fn scored(chosen: f64, rejected: f64) -> Scored {
        Scored { logps: Sides { chosen, rejected }, n_tokens: Sides { chosen: 10.0, rejected: 10.0 } }
    }

    #[test]
    fn every_metric_is_a_mean_over_the_pairs() {
        let mut metrics = StepMetrics::new(["base".to_owned(), "extra".to_owned()]);
        assert!(metrics.values().is_empty());
        let policy = scored(-40.0, -45.0);
        let first = [scored(-42.0, -50.0), scored(-44.0, -41.0)];
        let second = [scored(-42.0, -50.0), scored(-43.0, -50.0)];
        let pairs = [input(policy, &first), input(policy, &second)];
        let outcomes = evaluate(&ObjectiveSpec::default(), &pairs, &[]).expect("finite");
        for (pair, outcome) in pairs.iter().zip(&outcomes) {
            metrics.add(0.1, pair, outcome);
        }
        let values = metrics.values();
        let close = |name: &str, expected: f64| {
            let got = values[name];
            assert!((got - expected).abs() < 1e-12, "{name}: {got}, not {expected}");
        };
        assert_eq!(metrics.n_pairs(), 2);
        close("loss", f64::midpoint(outcomes[0].loss, outcomes[1].loss));
        close("rewards/margins", values["rewards/chosen"] - values["rewards/rejected"]);
        close("rewards/accuracies", 0.0);
        close("logps/chosen", -40.0);
        close("logps/accuracies", 1.0);
        close("refs/base/margin", 8.0);
        close("refs/base/clip_fraction", 0.0);
        close("refs/base/rewards/margins", -0.3);
        close("refs/base/rewards/accuracies", 0.0);
        close("refs/extra/rewards/margins", 0.1 * f64::midpoint(8.0, -2.0));
        close("refs/extra/rewards/accuracies", 0.5);
        close("refs/base/agreement", 0.5);
        close("refs/agreement", 0.5);
        close("refs/extra/logps/chosen", -43.5);
        close("refs/extra/logps/rejected", -45.5);
        close("refs/extra/margin", 2.0);
        close("refs/extra/accuracy", 0.5);
        close("refs/extra/clip_fraction", 0.25);
        close("refs/extra/clip_fraction/chosen", 0.0);
        close("refs/extra/clip_fraction/rejected", 0.5);
        let weights = [3.0 / 11.0, 7.0 / 15.0];
        close("refs/extra/weight_mean", f64::midpoint(weights[0], weights[1]));
        close("refs/extra/weight_std", f64::midpoint(weights[1], -weights[0]));
        assert_eq!(values.len(), 8 + 2 * 13 + 1);
    }

    #[test]
    fn an_only_reference_is_the_virtual_one() {
        let mut metrics = StepMetrics::new(["base".to_owned()]);
        let references = [scored(-42.0, -50.0)];
        let pair = input(scored(-40.0, -45.0), &references);
        let outcome = evaluate(&ObjectiveSpec::default(), &[pair], &[]).expect("finite").remove(0);
        metrics.add(0.1, &pair, &outcome);
        let values = metrics.values();
        assert_eq!((values["refs/base/virtual_share"], values["refs/base/weight_std"]), (1.0, 0.0));
        assert!(!values.contains_key("refs/agreement"));
    }
}
