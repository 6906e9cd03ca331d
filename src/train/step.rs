//! One optimizer step, and the evaluation of held-out pairs: where model and objective meet.

use std::collections::BTreeMap;

use super::{AdamW, TrainingPair, learning_rate, micro_batches};
use crate::{
    domain::{Hyperparameters, metric},
    model::{Decoder, DropoutKey, Gradients, Parameters, Purpose, layout::Packed},
    objective::{ObjectiveError, PairOutcome, SequenceLogps, StepMetrics, evaluate},
};

/// What is being trained.
#[derive(Debug)]
pub struct Policy {
    /// The model.
    pub decoder: Decoder,
    /// What of it is trained.
    pub parameters: Parameters,
    /// The optimizer and its state.
    pub optimizer: AdamW,
    /// All settings.
    pub settings: Hyperparameters,
    /// Seed of dropout.
    pub seed: u32,
    /// The references' names, in order.
    pub reference_names: Vec<String>,
    /// Their weights under `weighting: fixed`, else empty.
    pub fixed_weights: Vec<f64>,
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The loss or a gradient was not a finite number; the parameters are as before.
    #[error("{0}")]
    NonFinite(String),
    /// The objective refused a pair.
    #[error("line {line}: {source}")]
    Objective {
        /// The pair's line.
        line: u64,
        /// Why.
        source: ObjectiveError,
    },
    /// A computation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// One optimizer step on `batch` after `n_done` of `n_steps`. Returns its metrics; on an error nothing has changed.
pub fn training_step(
    policy: &mut Policy,
    batch: &[&TrainingPair],
    n_done: u64,
    n_steps: u64,
) -> Result<BTreeMap<String, f64>, StepError> {
    let mut metrics = StepMetrics::new(policy.reference_names.iter().cloned());
    let mut gradients = Gradients::new(policy.parameters.len());
    for (i, pairs) in micro_batches(batch, policy.settings.micro_batch_tokens).into_iter().enumerate() {
        let packed = pack(&pairs);
        let key = DropoutKey { seed: u64::from(policy.seed), pass: n_done << 16 | i as u64 };
        let forward = policy.decoder.forward(&packed, &policy.parameters, Purpose::Train(key))?;
        let outcomes = outcomes(policy, &pairs, &packed, &forward.token_logps, &mut metrics)?;
        // The loss is the mean over the batch; every token of a completion carries dL/dlogp of its sum.
        let share = 1.0 / batch.len() as f64;
        let per_completion: Vec<f64> =
            outcomes.iter().flat_map(|o| [o.grad_chosen * share, o.grad_rejected * share]).collect();
        let d_logps: Vec<f32> = packed.scored.iter().map(|s| per_completion[s.completion as usize] as f32).collect();
        policy.decoder.backward(&packed, forward, &d_logps, &policy.parameters, &mut gradients)?;
    }
    let norm = gradient_norm(&policy.parameters, &gradients)?;
    if !norm.is_finite() {
        return Err(StepError::NonFinite(format!(
            "the gradient of step {} is not a finite number: lower learning_rate, or look at the lines of this step",
            n_done + 1
        )));
    }
    let lr = learning_rate(&policy.settings, n_done, n_steps);
    // PyTorch's clip_grad_norm_.
    let scale = (policy.settings.max_grad_norm / (norm + 1e-6)).min(1.0);
    policy.optimizer.step(&mut policy.parameters, &gradients, lr, scale)?;
    let mut values = metrics.values();
    values.insert(metric::GRAD_NORM.to_owned(), norm);
    values.insert(metric::LEARNING_RATE.to_owned(), lr);
    Ok(values)
}

/// The metrics of pairs that are not trained on.
pub fn evaluate_pairs(policy: &Policy, pairs: &[TrainingPair]) -> Result<BTreeMap<String, f64>, StepError> {
    let mut metrics = StepMetrics::new(policy.reference_names.iter().cloned());
    let all: Vec<&TrainingPair> = pairs.iter().collect();
    for pairs in micro_batches(&all, policy.settings.micro_batch_tokens) {
        let packed = pack(&pairs);
        let forward = policy.decoder.forward(&packed, &policy.parameters, Purpose::Score)?;
        outcomes(policy, &pairs, &packed, &forward.token_logps, &mut metrics)?;
    }
    Ok(metrics.values())
}

/// Lays pairs out as one batch: completion 2i is pair i's chosen, 2i+1 its rejected.
fn pack(pairs: &[&TrainingPair]) -> Packed {
    let mut packed = Packed::default();
    for pair in pairs {
        packed.push(&pair.prompt, &[&pair.chosen, &pair.rejected]);
    }
    packed
}

fn outcomes(
    policy: &Policy,
    pairs: &[&TrainingPair],
    packed: &Packed,
    token_logps: &[f32],
    metrics: &mut StepMetrics,
) -> Result<Vec<PairOutcome>, StepError> {
    let sums = packed.sum_by_completion(token_logps);
    let mut outcomes = Vec::with_capacity(pairs.len());
    for (pair, logps) in pairs.iter().zip(sums.chunks(2)) {
        let logps = SequenceLogps { chosen: logps[0], rejected: logps[1] };
        if !(logps.chosen.is_finite() && logps.rejected.is_finite()) {
            return Err(StepError::NonFinite(format!(
                "the policy's log-probability of line {} is not a finite number: lower learning_rate or max_grad_norm",
                pair.line
            )));
        }
        let outcome = evaluate(&policy.settings.objective, logps, &pair.references, &policy.fixed_weights)
            .map_err(|source| StepError::Objective { line: pair.line, source })?;
        metrics.add(logps, &pair.references, &outcome);
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// The global L2 norm of all gradients.
fn gradient_norm(parameters: &Parameters, gradients: &Gradients) -> Result<f64, StepError> {
    let mut sum = 0f64;
    for (id, _, _) in parameters.iter() {
        if let Some(gradient) = gradients.get(id) {
            sum += gradient.flatten_all()?.to_vec1::<f32>()?.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
        }
    }
    Ok(sum.sqrt())
}
