//! The loss of one preference pair: a pure function of a few log-probabilities, in f64.
//!
//! ```text
//! references --weighting--> α --+
//!      |                        +--mix--> virtual reference --+
//!      +-------clip-------------+                             +--pair loss--> loss, dL/dlogp, rewards
//! policy -----------------------------------------------------+
//! ```
//!
//! The weights and the radii are taken from the references as they are, before the trust region moves any of them
//! (MRPO, arXiv 2405.16388). With one reference this is DPO. The references are constants: no gradient passes them.

mod clip;
mod metrics;
mod mix;
mod pair_loss;
mod weighting;

#[cfg(test)]
mod properties;

pub use metrics::StepMetrics;

use crate::domain::{Clip, ObjectiveSpec, Weighting};

/// Summed log-probabilities of a pair's two completions under one model, in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SequenceLogps {
    /// Of the chosen completion.
    pub chosen: f64,
    /// Of the rejected completion.
    pub rejected: f64,
}

impl SequenceLogps {
    /// By how much the model prefers the chosen completion, in nats.
    pub fn margin(self) -> f64 {
        self.chosen - self.rejected
    }
}

/// Radius of the trust region on each side of a pair, as a share of the base reference's log-probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Radii {
    /// On the chosen side.
    pub chosen: f64,
    /// On the rejected side.
    pub rejected: f64,
}

/// Which of a reference's two log-probabilities the trust region moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clipped {
    /// The chosen completion's.
    pub chosen: bool,
    /// The rejected completion's.
    pub rejected: bool,
}

/// What the objective makes of one pair.
#[derive(Debug, Clone, PartialEq)]
pub struct PairOutcome {
    /// The loss.
    pub loss: f64,
    /// Its derivative by the policy's log-probability of the chosen completion.
    pub grad_chosen: f64,
    /// Its derivative by the policy's log-probability of the rejected completion.
    pub grad_rejected: f64,
    /// Implicit reward of the chosen completion, β(log π_θ − log π̃_ref).
    pub reward_chosen: f64,
    /// Implicit reward of the rejected completion.
    pub reward_rejected: f64,
    /// The weight α of every reference.
    pub weights: Vec<f64>,
    /// The references after the trust region.
    pub references: Vec<SequenceLogps>,
    /// The radii of the trust region; zero without one.
    pub epsilon: Radii,
    /// The virtual reference.
    pub virtual_reference: SequenceLogps,
    /// What the trust region moved, per reference; never the base.
    pub clipped: Vec<Clipped>,
}

/// Why a pair has no loss.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ObjectiveError {
    /// No reference was given.
    #[error("a pair needs the log-probabilities of at least one reference: number 0 is the base")]
    NoReference,
    /// `weighting: fixed` with a wrong number of weights.
    #[error("weighting 'fixed' needs one weight per reference: got {n_weights} weights for {n_references} references")]
    WeightCount {
        /// Weights given.
        n_weights: usize,
        /// References given.
        n_references: usize,
    },
    /// `weighting: fixed` with weights that are no shares of one whole.
    #[error("fixed weights are not negative and sum to 1; these sum to {sum}")]
    InvalidWeights {
        /// Their sum.
        sum: f64,
    },
    /// A log-probability that is no finite number.
    #[error("the log-probability of the {side} completion under {model} is not a finite number")]
    NonFinite {
        /// Whose it is.
        model: Scorer,
        /// `chosen` or `rejected`.
        side: &'static str,
    },
}

/// Who gave a log-probability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scorer {
    /// The model in training.
    Policy,
    /// A reference, by its number.
    Reference(usize),
}

impl std::fmt::Display for Scorer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Policy => f.write_str("the policy"),
            Self::Reference(index) => write!(f, "reference {index}"),
        }
    }
}

/// Loss, gradients and everything on the way for one pair.
///
/// `references[0]` is the base. `fixed_weights` holds one weight per reference and is read under `weighting: fixed` only.
pub fn evaluate(
    spec: &ObjectiveSpec,
    policy: SequenceLogps,
    references: &[SequenceLogps],
    fixed_weights: &[f64],
) -> Result<PairOutcome, ObjectiveError> {
    check_inputs(policy, references)?;
    let weights = match spec.weighting {
        Weighting::Arwc => weighting::arwc(references),
        Weighting::Uniform => weighting::uniform(references.len()),
        Weighting::Fixed => weighting::fixed(fixed_weights, references.len())?,
    };
    let epsilon = match spec.clip {
        Clip::Adaptive => clip::adaptive_radii(spec.epsilon, references),
        Clip::Fixed => Radii { chosen: spec.epsilon, rejected: spec.epsilon },
        Clip::None => Radii { chosen: 0.0, rejected: 0.0 },
    };
    let (moved, clipped) = match spec.clip {
        Clip::None => (references.to_vec(), vec![Clipped::default(); references.len()]),
        Clip::Adaptive | Clip::Fixed => clip::into_region(references, epsilon),
    };
    let virtual_reference = mix::virtual_reference(spec.mix, &weights, &moved);
    let value = pair_loss::evaluate(spec, policy, virtual_reference);
    Ok(PairOutcome {
        loss: value.loss,
        grad_chosen: value.grad_chosen,
        grad_rejected: value.grad_rejected,
        reward_chosen: spec.beta * (policy.chosen - virtual_reference.chosen),
        reward_rejected: spec.beta * (policy.rejected - virtual_reference.rejected),
        weights,
        references: moved,
        epsilon,
        virtual_reference,
        clipped,
    })
}

fn check_inputs(policy: SequenceLogps, references: &[SequenceLogps]) -> Result<(), ObjectiveError> {
    if references.is_empty() {
        return Err(ObjectiveError::NoReference);
    }
    let scored = references.iter().enumerate().map(|(i, logps)| (Scorer::Reference(i), *logps));
    for (model, logps) in std::iter::once((Scorer::Policy, policy)).chain(scored) {
        for (side, logp) in [("chosen", logps.chosen), ("rejected", logps.rejected)] {
            if !logp.is_finite() {
                return Err(ObjectiveError::NonFinite { model, side });
            }
        }
    }
    Ok(())
}
