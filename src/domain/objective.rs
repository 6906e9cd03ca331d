//! Which objective a job trains, as a record; the mathematics is in `crate::objective`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How the references are mixed into the virtual reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mix {
    /// The weighted harmonic mean of the probabilities: MRPO's lower bound (arXiv 2405.16388).
    #[default]
    Harmonic,
    /// The weighted geometric mean: exact for the reverse KL divergence (arXiv 2502.01203).
    Geometric,
    /// The weighted arithmetic mean: exact for the forward KL divergence (arXiv 2502.01203).
    Arithmetic,
}

/// The trust region around the base reference: Clipped Trust-Region Optimization (CTRO, arXiv 2405.16388).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Clip {
    /// Radius per side: the less likely response of the pair gets the wider band; both sum to ε.
    #[default]
    Adaptive,
    /// Radius ε on both sides.
    Fixed,
    /// No trust region.
    None,
}

/// How the references are weighted against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// Adaptive Reference Weighting Coefficients: by how strongly each tells the two responses apart (arXiv 2405.16388).
    #[default]
    Arwc,
    /// All the same.
    Uniform,
    /// As given with the references.
    Fixed,
}

/// The loss of one pair as a function of its margin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PairLoss {
    /// −log σ(margin): DPO (arXiv 2305.18290).
    #[default]
    Sigmoid,
}

/// Everything an objective needs to know besides the log-probabilities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ObjectiveSpec {
    /// Strength of the tie to the references, β > 0.
    pub beta: f64,
    /// How the references are mixed.
    pub mix: Mix,
    /// The trust region around the base reference.
    pub clip: Clip,
    /// Its radius ε, 0 ≤ ε < 1 (for `adaptive`, the sum of both sides' radii).
    pub epsilon: f64,
    /// How the references are weighted.
    pub weighting: Weighting,
    /// The loss of a pair.
    pub loss: PairLoss,
    /// Assumed share of pairs whose two sides are the wrong way round, 0 ≤ s < 0.5 (conservative DPO).
    #[serde(default)]
    pub label_smoothing: f64,
}
