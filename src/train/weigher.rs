//! The weights of weightings that look beyond the pair: at the validation set, at the batch before, at what has helped so far.

use serde::{Deserialize, Serialize};

use super::TrainingPair;
use crate::{
    domain::{ObjectiveSpec, Weighting},
    objective::{Bandit, Scored, SetStrengths},
};

/// One weight per reference, and what changes it from step to step. Part of a checkpoint: a resumed run goes on with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Weigher {
    weights: Vec<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bandit: Option<Bandit>,
}

impl Weigher {
    /// Before the first step. `fixed` is read under `weighting: fixed` only; `validation` by those that need it.
    pub fn new(spec: &ObjectiveSpec, fixed: Vec<f64>, n_references: usize, validation: &[TrainingPair]) -> Self {
        let strengths = |pairs: &[TrainingPair]| {
            SetStrengths::of(n_references, spec, pairs.iter().map(|p| p.references.as_slice()))
        };
        let (weights, bandit) = match spec.weighting {
            Weighting::Fixed => (Some(fixed), None),
            Weighting::Thompson => (None, Some(Bandit::new(n_references, spec.thompson_prior))),
            Weighting::Vdw | Weighting::Vaw | Weighting::Evidence => {
                (strengths(validation).weights(spec.weighting), None)
            }
            // No batch yet: the base, or all the same.
            Weighting::SwcwOneHot => (strengths(&[]).weights(spec.weighting), None),
            Weighting::Swcw | Weighting::Arwc | Weighting::MaxMargin | Weighting::Uniform => (None, None),
        };
        Self { weights: weights.unwrap_or_else(|| vec![1.0 / n_references as f64; n_references]), bandit }
    }

    /// The weights as they are now.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// The bandit of `weighting: thompson`.
    pub(super) fn bandit(&mut self) -> Option<&mut Bandit> {
        self.bandit.as_mut()
    }

    /// All weight on one reference, for a step.
    pub(super) fn take(&mut self, weights: Vec<f64>) {
        self.weights = weights;
    }

    /// Looks at a batch that has been trained on.
    pub(super) fn look_at(&mut self, spec: &ObjectiveSpec, batch: &[&TrainingPair]) {
        if matches!(spec.weighting, Weighting::Swcw | Weighting::SwcwOneHot) {
            let references = batch.iter().map(|pair| -> &[Scored] { &pair.references });
            let strengths = SetStrengths::of(self.weights.len(), spec, references);
            if let Some(weights) = strengths.weights(spec.weighting) {
                self.weights = weights;
            }
        }
    }
}
