//! One optimizer step, and the evaluation of held-out pairs: where model and objective meet.

use std::collections::BTreeMap;

use super::{AdamW, TrainingPair, Weigher, learning_rate, micro_batches, pairs::PolicyLogps, subset};
use crate::{
    domain::{Hyperparameters, Sides, metric},
    model::{Decoder, DropoutKey, Forward, Gradients, Parameters, Purpose, layout::Packed, ops::kernels},
    objective::{BatchError, ObjectiveError, PairInput, PairOutcome, Scored, StepMetrics, evaluate},
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
    /// Seed of dropout and of what is drawn.
    pub seed: u32,
    /// The references' names, in order.
    pub reference_names: Vec<String>,
    /// Their weights, where these do not come from the pair alone.
    pub weigher: Weigher,
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

/// One optimizer step on `batch` after `n_done` of `n_steps`. Returns its metrics; on an error the run cannot go on, and where a
/// number was not finite before the optimizer moved anything, the parameters are as before.
///
/// `validation` is looked at under `weighting: thompson` only.
pub fn training_step(
    policy: &mut Policy,
    batch: &[&TrainingPair],
    validation: &[TrainingPair],
    n_done: u64,
    n_steps: u64,
) -> Result<BTreeMap<String, f64>, StepError> {
    let arm = draw_reference(policy, validation, n_done)?;
    let mut metrics = StepMetrics::new(policy.reference_names.iter().cloned());
    let mut gradients = Gradients::new(policy.parameters.len());
    let micro_batches = micro_batches(batch, policy.settings.micro_batch_tokens);
    let key = |i: usize| Purpose::Train(DropoutKey { seed: u64::from(policy.seed), pass: n_done << 16 | i as u64 });
    // Where a pair's loss depends on its whole batch, all of it is computed before the first gradient.
    let mut ahead = if policy.settings.objective.is_of_the_batch() && micro_batches.len() > 1 {
        let mut logps = Vec::with_capacity(batch.len());
        for (i, pairs) in micro_batches.iter().enumerate() {
            logps.extend(forward(policy, pairs, key(i))?.logps);
        }
        Some(outcomes(policy, batch, &logps, &mut metrics)?.into_iter())
    } else {
        None
    };
    for (i, pairs) in micro_batches.iter().enumerate() {
        let Pass { packed, forward, logps } = forward(policy, pairs, key(i))?;
        let outcomes = match &mut ahead {
            Some(outcomes) => outcomes.by_ref().take(pairs.len()).collect(),
            None => outcomes(policy, pairs, &logps, &mut metrics)?,
        };
        let d_logps = token_gradients(pairs, &outcomes, &packed, batch.len());
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
    policy.optimizer.step(&policy.parameters, &gradients, lr, scale)?;
    policy.weigher.look_at(&policy.settings.objective, batch);
    if let Some(arm) = arm {
        let accuracy = accuracy_on_subset(policy, validation, n_done + 1)?;
        if let Some(bandit) = policy.weigher.bandit() {
            bandit.record(Some(arm), accuracy);
        }
    }
    let mut values = metrics.values();
    values.insert(metric::GRAD_NORM.to_owned(), norm);
    values.insert(metric::LEARNING_RATE.to_owned(), lr);
    Ok(values)
}

/// The metrics of pairs that are not trained on.
pub fn evaluate_pairs(policy: &Policy, pairs: &[TrainingPair]) -> Result<BTreeMap<String, f64>, StepError> {
    let mut metrics = StepMetrics::new(policy.reference_names.iter().cloned());
    let all: Vec<&TrainingPair> = pairs.iter().collect();
    let mut logps = Vec::with_capacity(pairs.len());
    for pairs in micro_batches(&all, policy.settings.micro_batch_tokens) {
        logps.extend(forward(policy, &pairs, Purpose::Score)?.logps);
    }
    // A loss that depends on the batch sees batches of the size it is trained with.
    let batch_size = policy.settings.batch_size;
    for (pairs, logps) in all.chunks(batch_size).zip(logps.chunks(batch_size)) {
        outcomes(policy, pairs, logps, &mut metrics)?;
    }
    Ok(metrics.values())
}

/// Under `weighting: thompson`, draws the reference of the step after `n_done` and gives it all weight.
fn draw_reference(policy: &mut Policy, validation: &[TrainingPair], n_done: u64) -> Result<Option<usize>, StepError> {
    let Some(bandit) = policy.weigher.bandit() else { return Ok(None) };
    if !bandit.is_begun() {
        let accuracy = accuracy_on_subset(policy, validation, n_done)?;
        if let Some(bandit) = policy.weigher.bandit() {
            bandit.record(None, accuracy);
        }
    }
    let seed = policy.seed;
    let Some(bandit) = policy.weigher.bandit() else { return Ok(None) };
    let arm = bandit.draw(seed, n_done);
    let weights = bandit.weights(arm);
    policy.weigher.take(weights);
    Ok(Some(arm))
}

/// Share of a random part of the validation set whose chosen completion the policy finds likelier per token.
fn accuracy_on_subset(policy: &Policy, validation: &[TrainingPair], n_done: u64) -> Result<f64, StepError> {
    let n = policy.settings.objective.thompson_pairs;
    let pairs: Vec<&TrainingPair> =
        subset(validation.len(), n, policy.seed, n_done).into_iter().map(|i| &validation[i]).collect();
    let mut n_right = 0;
    for pairs in micro_batches(&pairs, policy.settings.micro_batch_tokens) {
        for logps in forward(policy, &pairs, Purpose::Score)?.logps {
            let Scored { logps, n_tokens } = logps.scored;
            n_right += usize::from(logps.chosen / n_tokens.chosen > logps.rejected / n_tokens.rejected);
        }
    }
    Ok(n_right as f64 / pairs.len().max(1) as f64)
}

/// A micro-batch after the forward pass.
struct Pass {
    packed: Packed,
    forward: Forward,
    logps: Vec<PolicyLogps>,
}

fn forward(policy: &Policy, pairs: &[&TrainingPair], purpose: Purpose) -> Result<Pass, StepError> {
    let mut packed = Packed::default();
    for pair in pairs {
        packed.push(&pair.prompt, &pair.completions());
    }
    let forward = policy.decoder.forward(&packed, &policy.parameters, purpose)?;
    let weighted = forward.token_logps.iter().zip(token_weights(pairs)).map(|(logp, w)| w * f64::from(*logp));
    let mut sums = packed.sum_by_completion(weighted).into_iter();
    let mut logps = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let mut next = || sums.next().expect("a sum per completion");
        let scored = Scored { logps: Sides { chosen: next(), rejected: next() }, n_tokens: pair.n_weighted_tokens() };
        let response = pair.response.as_ref().map(|_| next());
        if ![Some(scored.logps.chosen), Some(scored.logps.rejected), response].iter().flatten().all(|x| x.is_finite()) {
            return Err(StepError::NonFinite(format!(
                "the policy's log-probability of line {} is not a finite number: lower learning_rate or max_grad_norm",
                pair.line
            )));
        }
        logps.push(PolicyLogps { scored, response });
    }
    Ok(Pass { packed, forward, logps })
}

/// Weights of all tokens of all completions of a micro-batch, in order.
fn token_weights<'a>(pairs: &'a [&TrainingPair]) -> impl Iterator<Item = f64> + 'a {
    pairs.iter().flat_map(|pair| pair.weights())
}

/// dL/dlogp per scored token: the loss is the mean over the batch, and every token of a completion carries the derivative by
/// the completion's sum, times its weight.
fn token_gradients(pairs: &[&TrainingPair], outcomes: &[PairOutcome], packed: &Packed, n_pairs: usize) -> Vec<f32> {
    let share = 1.0 / n_pairs as f64;
    let mut per_completion = Vec::with_capacity(packed.n_completions);
    for (pair, outcome) in pairs.iter().zip(outcomes) {
        per_completion.extend([outcome.grad.chosen, outcome.grad.rejected]);
        per_completion.extend(pair.response.as_ref().map(|_| outcome.grad_optimism));
    }
    let scored = packed.scored.iter().zip(token_weights(pairs));
    scored.map(|(s, weight)| (per_completion[s.completion as usize] * share * weight) as f32).collect()
}

fn outcomes(
    policy: &Policy,
    pairs: &[&TrainingPair],
    logps: &[PolicyLogps],
    metrics: &mut StepMetrics,
) -> Result<Vec<PairOutcome>, StepError> {
    let inputs: Vec<PairInput<'_>> = pairs.iter().zip(logps).map(|(pair, logps)| pair.input(*logps)).collect();
    let outcomes = evaluate(&policy.settings.objective, &inputs, policy.weigher.weights())
        .map_err(|BatchError { index, source }| StepError::Objective { line: pairs[index].line, source })?;
    for (input, outcome) in inputs.iter().zip(&outcomes) {
        metrics.add(policy.settings.objective.beta, input, outcome);
    }
    Ok(outcomes)
}

/// The global L2 norm of all gradients.
fn gradient_norm(parameters: &Parameters, gradients: &Gradients) -> Result<f64, StepError> {
    let mut sum = 0f64;
    for (id, _, _) in parameters.iter() {
        if let Some(gradient) = gradients.get(id) {
            sum += kernels(gradient.device())?.squared_norm(gradient)?;
        }
    }
    Ok(sum.sqrt())
}
