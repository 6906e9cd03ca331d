//! The numbers of a request to evaluate an objective, as the objective takes them.

use std::collections::BTreeMap;

use super::objectives::{ObjectivePair, ObjectiveRequest, WeightingPair};
use crate::{
    domain::{Method, ObjectiveSpec, Problems, Sides, Weighting},
    objective::{
        Optimism, PairInput, PairOutcome, Scored, SequenceLogps, SetStrengths, StepMetrics, advantage_weights,
        earlier_rewards, evaluate, margin_rewards,
    },
};

/// Pairs and objective, ready to be evaluated.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Batch {
    spec: ObjectiveSpec,
    weights: Vec<f64>,
    pairs: Vec<BatchPair>,
}

/// What a [`PairInput`] borrows.
#[derive(Debug, Clone, PartialEq)]
struct BatchPair {
    policy: Scored,
    references: Vec<Scored>,
    other_rewards: Sides<f64>,
    likelihood: Sides<f64>,
    optimism: Option<Optimism>,
}

impl Batch {
    /// Of a request without problems.
    pub(super) fn of(request: &ObjectiveRequest, method: &Method, spec: ObjectiveSpec) -> Self {
        let n_references = request.n_references();
        let weights = match (&request.weights, spec.weighting) {
            (Some(weights), _) => weights.clone(),
            (None, Weighting::Fixed) => vec![1.0],
            (None, weighting) => {
                let pairs = request.weighting_pairs.as_deref().unwrap_or_default();
                let pairs: Vec<Vec<Scored>> = pairs.iter().map(WeightingPair::scored).collect();
                let strengths = SetStrengths::of(n_references, &spec, pairs.iter().map(Vec::as_slice));
                strengths.weights(weighting).unwrap_or_default()
            }
        };
        let pairs = request.pairs.iter().map(|pair| pair.of_batch(method, spec.beta)).collect();
        Self { spec, weights, pairs }
    }

    /// The objective.
    pub(super) fn spec(&self) -> &ObjectiveSpec {
        &self.spec
    }

    /// What the objective makes of each pair, and the metrics of them all.
    ///
    /// # Errors
    /// Numbers that are beyond what a double holds.
    pub(super) fn evaluate(&self) -> Result<(Vec<PairOutcome>, BTreeMap<String, f64>), Problems> {
        let mut problems = Problems::default();
        let inputs: Vec<PairInput<'_>> = self.pairs.iter().map(BatchPair::input).collect();
        let outcomes = evaluate(&self.spec, &inputs, &self.weights).map_err(|e| {
            problems.at(format!("/pairs/{}", e.index), "invalid_value", e.source.to_string());
            problems.clone()
        })?;
        let n_references = self.pairs.first().map_or(0, |pair| pair.references.len());
        let mut metrics = StepMetrics::new((0..n_references).map(|k| format!("reference-{k}")));
        for (i, (input, outcome)) in inputs.iter().zip(&outcomes).enumerate() {
            metrics.add(self.spec.beta, input, outcome);
            let numbers = [outcome.loss, outcome.grad.chosen, outcome.grad.rejected, outcome.grad_optimism];
            if !numbers.iter().all(|x| x.is_finite()) {
                let message =
                    "its loss or gradient is beyond the largest double: use smaller numbers, or a larger beta";
                problems.at(format!("/pairs/{i}"), "out_of_range", message);
            }
        }
        let metrics = metrics.values();
        if problems.is_empty() && !metrics.values().all(|x| x.is_finite()) {
            problems.at("/pairs", "out_of_range", "their sums are beyond the largest double: use smaller numbers");
        }
        if problems.is_empty() { Ok((outcomes, metrics)) } else { Err(problems) }
    }
}

impl BatchPair {
    fn input(&self) -> PairInput<'_> {
        PairInput {
            policy: self.policy,
            references: &self.references,
            other_rewards: self.other_rewards,
            likelihood: self.likelihood,
            optimism: self.optimism,
        }
    }
}

/// Tokens where none are given and none are needed.
const NO_TOKENS: Sides<f64> = Sides { chosen: 1.0, rejected: 1.0 };

impl WeightingPair {
    fn scored(&self) -> Vec<Scored> {
        scored(&self.chosen, &self.rejected, self.tokens.as_ref(), NO_TOKENS)
    }
}

fn scored(chosen: &[f64], rejected: &[f64], tokens: Option<&Sides<Vec<f64>>>, default: Sides<f64>) -> Vec<Scored> {
    let sides = chosen.iter().zip(rejected).enumerate();
    let of = sides.map(|(k, (chosen, rejected))| Scored {
        logps: Sides { chosen: *chosen, rejected: *rejected },
        n_tokens: tokens.map_or(default, |t| Sides { chosen: t.chosen[k], rejected: t.rejected[k] }),
    });
    of.collect()
}

impl ObjectivePair {
    fn of_batch(&self, method: &Method, beta: f64) -> BatchPair {
        let n_tokens = self.tokens.unwrap_or(NO_TOKENS);
        let Sides { chosen, rejected } = &self.references;
        let references = scored(chosen, rejected, self.reference_tokens.as_ref(), n_tokens);
        let rewards = |chosen: &Option<Vec<f64>>, rejected: &Option<Vec<f64>>| Sides {
            chosen: chosen.clone().unwrap_or_default(),
            rejected: rejected.clone().unwrap_or_default(),
        };
        let other_rewards = match method {
            Method::Modpo(settings) => {
                let rewards = rewards(&self.margin_rewards_chosen, &self.margin_rewards_rejected);
                margin_rewards(&settings.margin_weights, &rewards)
            }
            Method::Spo(settings) => {
                let earlier = self.earlier.as_ref().map(|e| scored(&e.chosen, &e.rejected, None, NO_TOKENS));
                let mut policies: Vec<SequenceLogps> = earlier.unwrap_or_default().iter().map(|s| s.logps).collect();
                // The last round's policy is what this one starts from.
                policies.push(references[0].logps);
                earlier_rewards(beta, &settings.lambdas, &policies)
            }
            _ => Sides::default(),
        };
        let likelihood = match method {
            Method::Hpo(settings) => {
                let rewards = rewards(&self.aux_rewards_chosen, &self.aux_rewards_rejected);
                let rewards =
                    Sides { chosen: settings.reward(&rewards.chosen), rejected: settings.reward(&rewards.rejected) };
                let baseline = self.baseline.unwrap_or(f64::midpoint(rewards.chosen, rewards.rejected));
                advantage_weights(settings, rewards, baseline)
            }
            _ => Sides::default(),
        };
        BatchPair {
            policy: Scored { logps: self.policy, n_tokens },
            references,
            other_rewards,
            likelihood,
            optimism: self.optimism.map(|o| Optimism { policy: o.policy, reference: o.reference }),
        }
    }
}
