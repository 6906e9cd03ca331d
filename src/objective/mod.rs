//! The loss of preference pairs: a pure function of a few log-probabilities, in f64.
//!
//! ```text
//! references --weighting--> α --+
//!      |                        +--mix--> virtual reference --+
//!      +-------clip-------------+                             +--losses--+--> loss, dL/dlogp, rewards
//! policy -----------------------------------------------------+          |
//! extra fields of the row -----------------------------------------------+
//! ```
//!
//! The weights and the radii are taken from the references as they are, before the trust region moves any of them
//! (MRPO, arXiv 2405.16388). With one reference and the loss `sigmoid` this is DPO. The references are constants: no gradient
//! passes them. Every part is a small function of its own; a method is a combination of them.

mod clip;
mod diagnosis;
mod losses;
mod metrics;
mod mix;
mod numeric;
mod rewards;
mod sampling;
mod weighting;

#[cfg(test)]
mod properties;

pub use diagnosis::{Diagnosis, Finding, diagnose};
pub use metrics::StepMetrics;
pub use rewards::{advantage_weights, earlier_rewards, margin_rewards};
pub use sampling::Bandit;
pub use weighting::{SetStrengths, checked_weights};

use crate::domain::{Clip, Mix, ObjectiveSpec, Sides, WeightConvention, Weighting};

/// Summed log-probabilities of a pair's two completions under one model, in nats.
pub type SequenceLogps = Sides<f64>;

/// A pair under one model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// Log-probabilities, summed over the completions' tokens.
    pub logps: SequenceLogps,
    /// Tokens of the completions in that model's own tokenizer; a sum of weights where tokens are weighted.
    pub n_tokens: Sides<f64>,
}

impl Scored {
    /// Log-probabilities per token.
    fn per_token(self) -> SequenceLogps {
        self.logps.with(self.n_tokens, numeric::per_token)
    }
}

/// A third completion of the prompt, y′, that the policy is pushed away from (SELM, arXiv 2405.19332).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Optimism {
    /// Its summed log-probability under the policy.
    pub policy: f64,
    /// Its summed log-probability under the base.
    pub reference: f64,
}

/// What is known of one pair.
#[derive(Debug, Clone, Copy)]
pub struct PairInput<'a> {
    /// The pair under the policy.
    pub policy: Scored,
    /// The pair under each reference; number 0 is the base.
    pub references: &'a [Scored],
    /// Rewards besides the one that is trained, weighted and summed, per completion (see [`margin_rewards`] and
    /// [`earlier_rewards`]): the policy's implicit reward counts only as far as it goes beyond them.
    pub other_rewards: Sides<f64>,
    /// Weight of the per-token log-likelihood of each completion, added to the loss with a minus (see [`advantage_weights`]).
    pub likelihood: Sides<f64>,
    /// The completion of the optimism term.
    pub optimism: Option<Optimism>,
}

/// What the objective makes of one pair.
#[derive(Debug, Clone, PartialEq)]
pub struct PairOutcome {
    /// The loss.
    pub loss: f64,
    /// Its derivatives by the policy's two summed log-probabilities.
    pub grad: Sides<f64>,
    /// Its derivative by the policy's summed log-probability of the optimism term's completion.
    pub grad_optimism: f64,
    /// Implicit rewards, β(log π_θ − log π̃_ref).
    pub rewards: Sides<f64>,
    /// The weight α of every reference.
    pub weights: Vec<f64>,
    /// The references after the trust region, per token under `length_normalized`.
    pub references: Vec<SequenceLogps>,
    /// The radii of the trust region as shares of the base's log-probabilities; zero without one.
    pub epsilon: Sides<f64>,
    /// The virtual reference; under `sum_of_losses` the losses have none, and the weighted mean of the references' log-probabilities
    /// stands here, so that the rewards are the weighted means of those against each.
    pub virtual_reference: SequenceLogps,
    /// What the trust region moved, per reference; never the base.
    pub clipped: Vec<Sides<bool>>,
}

/// Why a pair has no loss.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ObjectiveError {
    /// No reference was given.
    #[error("a pair needs the log-probabilities of at least one reference: number 0 is the base")]
    NoReference,
    /// A wrong number of weights.
    #[error("this weighting needs one weight per reference: got {n_weights} weights for {n_references} references")]
    WeightCount {
        /// Weights given.
        n_weights: usize,
        /// References given.
        n_references: usize,
    },
    /// Weights that are no shares of one whole.
    #[error("weights are not negative and sum to 1; these sum to {sum}")]
    InvalidWeights {
        /// Their sum.
        sum: f64,
    },
    /// The authors' code exchanges the weights of two references.
    #[error("weight_convention 'authors_code' exchanges the weights of exactly two references, here are {0}")]
    ExchangeNeedsTwo(usize),
    /// The spec has an optimism term and the pair nothing for it.
    #[error("the optimism term needs the log-probabilities of a reference response")]
    NoOptimism,
    /// A number that is not finite.
    #[error("{what} is not a finite number")]
    NonFinite {
        /// Which number.
        what: String,
    },
}

/// A pair of a batch has no loss.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("pair {index}: {source}")]
pub struct BatchError {
    /// Its place in the batch.
    pub index: usize,
    /// Why.
    pub source: ObjectiveError,
}

/// Loss, gradients and everything on the way for the pairs of one batch; the batch's loss is their mean.
///
/// `set_weights` holds one weight per reference and is read by the weightings that do not come from the pair alone
/// (`fixed`, and those that [`SetStrengths`] and [`Bandit`] give).
pub fn evaluate(
    spec: &ObjectiveSpec,
    pairs: &[PairInput<'_>],
    set_weights: &[f64],
) -> Result<Vec<PairOutcome>, BatchError> {
    let mut outcomes = Vec::with_capacity(pairs.len());
    for (index, pair) in pairs.iter().enumerate() {
        let outcome = check(pair).and_then(|()| against_references(spec, pair, set_weights));
        outcomes.push(outcome.map_err(|source| BatchError { index, source })?);
    }
    losses::add(spec, pairs, &mut outcomes);
    for (index, (pair, outcome)) in pairs.iter().zip(&mut outcomes).enumerate() {
        add_terms(spec, pair, outcome).map_err(|source| BatchError { index, source })?;
    }
    Ok(outcomes)
}

/// The reference side of a pair; loss and gradients are still zero.
fn against_references(
    spec: &ObjectiveSpec,
    pair: &PairInput<'_>,
    set_weights: &[f64],
) -> Result<PairOutcome, ObjectiveError> {
    let logps = |scored: &Scored| if spec.length_normalized { scored.per_token() } else { scored.logps };
    let policy = logps(&pair.policy);
    let references: Vec<SequenceLogps> = pair.references.iter().map(logps).collect();
    let weights = match spec.weighting {
        Weighting::Arwc => weighting::arwc(&references),
        Weighting::MaxMargin => weighting::max_margin(&references),
        Weighting::Uniform => weighting::uniform(references.len()),
        _ => weighting::checked_weights(set_weights, references.len())?,
    };
    let epsilon = match spec.clip {
        Clip::Adaptive => clip::adaptive_radii(spec.epsilon, &references),
        Clip::Fixed => Sides { chosen: spec.epsilon, rejected: spec.epsilon },
        Clip::None => Sides::default(),
    };
    let (references, clipped) = match spec.clip {
        Clip::None => (references.clone(), vec![Sides::default(); references.len()]),
        Clip::Adaptive | Clip::Fixed => clip::into_region(&references, epsilon),
    };
    let virtual_reference = if spec.sum_of_losses {
        // Rewards are then the weighted means of those against each reference.
        mix::virtual_reference(Mix::Geometric, &weights, &references)
    } else if spec.weight_convention == WeightConvention::AuthorsCode {
        mix::virtual_reference(spec.mix, &mix::exchanged(&weights)?, &references)
    } else {
        mix::virtual_reference(spec.mix, &weights, &references)
    };
    Ok(PairOutcome {
        loss: 0.0,
        grad: Sides::default(),
        grad_optimism: 0.0,
        rewards: policy.with(virtual_reference, |policy, reference| spec.beta * (policy - reference)),
        weights,
        references,
        epsilon,
        virtual_reference,
        clipped,
    })
}

/// The terms that know no reference, or only the base.
fn add_terms(spec: &ObjectiveSpec, pair: &PairInput<'_>, outcome: &mut PairOutcome) -> Result<(), ObjectiveError> {
    let mut likelihood = pair.likelihood;
    likelihood.chosen += spec.sft_weight;
    let per_token = pair.policy.per_token();
    outcome.loss -= likelihood.chosen * per_token.chosen + likelihood.rejected * per_token.rejected;
    let slope = likelihood.with(pair.policy.n_tokens, numeric::per_token);
    outcome.grad = outcome.grad.with(slope, |grad, slope| grad - slope);
    if spec.optimism != 0.0 {
        let Optimism { policy, reference } = pair.optimism.ok_or(ObjectiveError::NoOptimism)?;
        outcome.grad_optimism = spec.optimism * spec.beta;
        outcome.loss += outcome.grad_optimism * (policy - reference);
    }
    Ok(())
}

fn check(pair: &PairInput<'_>) -> Result<(), ObjectiveError> {
    if pair.references.is_empty() {
        return Err(ObjectiveError::NoReference);
    }
    let finite = |sides: Sides<f64>, what: &dyn Fn(&str) -> String| {
        let wrong = [("chosen", sides.chosen), ("rejected", sides.rejected)].into_iter().find(|(_, x)| !x.is_finite());
        wrong.map_or(Ok(()), |(side, _)| Err(ObjectiveError::NonFinite { what: what(side) }))
    };
    finite(pair.policy.logps, &|side| format!("the log-probability of the {side} completion under the policy"))?;
    for (index, reference) in pair.references.iter().enumerate() {
        finite(reference.logps, &|side| {
            format!("the log-probability of the {side} completion under reference {index}")
        })?;
    }
    finite(pair.other_rewards, &|side| format!("the other reward of the {side} completion"))?;
    finite(pair.likelihood, &|side| format!("the likelihood weight of the {side} completion"))?;
    match pair.optimism {
        Some(o) if !(o.policy.is_finite() && o.reference.is_finite()) => {
            Err(ObjectiveError::NonFinite { what: "the log-probability of the reference response".to_owned() })
        }
        _ => Ok(()),
    }
}
