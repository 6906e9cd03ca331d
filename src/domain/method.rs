//! Methods: what a job optimises. Each is a combination of the parts of an objective, some with extra fields of the rows.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ExtraField, Limit, ModelId, ObjectiveSpec, Range};

/// A method this server trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MethodKind {
    /// Direct Preference Optimization against the policy's own start (arXiv 2305.18290).
    Dpo,
    /// Multi-Reference Preference Optimization (arXiv 2405.16388): the references make up one virtual reference.
    Mrpo,
    /// The weighted sum of the losses against each reference (the baseline of arXiv 2405.16388).
    MultiDpo,
    /// Multi-Objective DPO (arXiv 2310.03708): rows bring rewards of other objectives, `margin_rewards_chosen` and
    /// `margin_rewards_rejected`. With several references or another loss than `sigmoid`: our generalisation.
    Modpo,
    /// Sequential Preference Optimization (arXiv 2405.12739): a job is one round, on the rows of one `dimension`, and keeps to
    /// the implicit rewards of earlier rounds. Our derivation from the paper's objective.
    Spo,
    /// Hybrid Preference Optimization (arXiv 2405.17956): rows bring `aux_rewards_chosen` and `aux_rewards_rejected`, which
    /// weight a likelihood term. Our derivation: the mean reward of a prompt's completions is the baseline, and the likelihood
    /// is per token.
    Hpo,
    /// Self-Exploring Language Models, one round (arXiv 2405.19332): rows bring a `reference_response` of the policy's start.
    Selm,
    /// The log-probabilities of those tokens only that `chosen_spans` and `rejected_spans`, or an `edited_response`, name (after
    /// arXiv 2406.02756). Our derivation: the paper trains a token-level reward model instead.
    TokenLevel,
}

impl MethodKind {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dpo => "dpo",
            Self::Mrpo => "mrpo",
            Self::MultiDpo => "multi_dpo",
            Self::Modpo => "modpo",
            Self::Spo => "spo",
            Self::Hpo => "hpo",
            Self::Selm => "selm",
            Self::TokenLevel => "token_level",
        }
    }
}

/// A method with its own settings, every one filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Method {
    /// See [`MethodKind::Dpo`].
    Dpo,
    /// See [`MethodKind::Mrpo`].
    Mrpo,
    /// See [`MethodKind::MultiDpo`].
    MultiDpo,
    /// See [`MethodKind::Modpo`].
    Modpo(ModpoSettings),
    /// See [`MethodKind::Spo`].
    Spo(SpoSettings),
    /// See [`MethodKind::Hpo`].
    Hpo(HpoSettings),
    /// See [`MethodKind::Selm`].
    Selm(SelmSettings),
    /// See [`MethodKind::TokenLevel`].
    TokenLevel(TokenLevelSettings),
}

/// Settings of `modpo`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModpoSettings {
    /// Weight w₀ of the preference that is trained. Default: 1 less the sum of `margin_weights`.
    pub preference_weight: f64,
    /// Weight of each margin reward.
    pub margin_weights: Vec<f64>,
}

impl ModpoSettings {
    /// What `preference_weight` may be.
    pub const PREFERENCE_WEIGHT: Range = Range::above_to(0.0, 1.0);
    /// What each of `margin_weights` may be.
    pub const MARGIN_WEIGHT: Range = Range::between(0.0, 1000.0);
}

/// Settings of `spo`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SpoSettings {
    /// The rows of this `dimension` are trained on; others are left out.
    pub dimension: String,
    /// π₀ … π_{n−2}: what the first round started from, and the model of every round but the last, which is the job's `model`.
    /// Empty in the first round.
    pub earlier: Vec<ModelId>,
    /// λ of each earlier round's reward; as many as `earlier`.
    pub lambdas: Vec<f64>,
}

impl SpoSettings {
    /// The most earlier rounds.
    pub const MAX_EARLIER: usize = 16;
    /// What each λ may be.
    pub const LAMBDA: Range = Range::between(0.0, 1000.0);
}

/// Settings of `hpo`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HpoSettings {
    /// Weight γ of the likelihood term. Default 0.1.
    pub gamma: f64,
    /// λ in exp(A/λ). Default 1.
    pub temperature: f64,
    /// A/λ is kept within ± this. Default 3.
    pub advantage_clip: f64,
    /// Weight of each auxiliary reward; empty: all count alike.
    pub reward_weights: Vec<f64>,
}

impl HpoSettings {
    /// What its numbers may be.
    pub const LIMITS: [Limit; 3] = [
        ("gamma", Range::between(0.0, 1000.0)),
        ("temperature", Range::between(1e-6, 1e6)),
        ("advantage_clip", Range::between(0.0, 20.0)),
    ];
    /// What each of `reward_weights` may be.
    pub const REWARD_WEIGHT: Range = Range::between(-1000.0, 1000.0);

    /// The one reward that a completion's auxiliary rewards make.
    pub fn reward(&self, rewards: &[f64]) -> f64 {
        if self.reward_weights.is_empty() {
            rewards.iter().sum::<f64>() / rewards.len().max(1) as f64
        } else {
            rewards.iter().zip(&self.reward_weights).map(|(r, w)| r * w).sum()
        }
    }
}

/// Settings of `selm`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SelmSettings {
    /// α of the optimism term. Default 0.001.
    pub alpha: f64,
}

impl SelmSettings {
    /// What α may be.
    pub const ALPHA: Range = Range::between(0.0, 1.0);
}

/// Settings of `token_level`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenLevelSettings {
    /// Weight of the tokens outside the spans; those inside weigh 1. Default 0.
    pub outside_weight: f64,
}

impl TokenLevelSettings {
    /// What `outside_weight` may be.
    pub const OUTSIDE_WEIGHT: Range = Range::between(0.0, 1.0);
}

impl Method {
    /// Which method it is.
    pub fn kind(&self) -> MethodKind {
        match self {
            Self::Dpo => MethodKind::Dpo,
            Self::Mrpo => MethodKind::Mrpo,
            Self::MultiDpo => MethodKind::MultiDpo,
            Self::Modpo(_) => MethodKind::Modpo,
            Self::Spo(_) => MethodKind::Spo,
            Self::Hpo(_) => MethodKind::Hpo,
            Self::Selm(_) => MethodKind::Selm,
            Self::TokenLevel(_) => MethodKind::TokenLevel,
        }
    }

    /// What every row of the files needs beyond its pair.
    pub fn row_field(&self) -> Option<ExtraField> {
        match self {
            Self::Dpo | Self::Mrpo | Self::MultiDpo => None,
            Self::Modpo(_) => Some(ExtraField::MarginRewards),
            Self::Spo(_) => Some(ExtraField::Dimension),
            Self::Hpo(_) => Some(ExtraField::AuxRewards),
            Self::Selm(_) => Some(ExtraField::ReferenceResponse),
            Self::TokenLevel(_) => Some(ExtraField::TokenSpans),
        }
    }

    /// How many values the row's field must have, where that is given.
    pub fn n_row_values(&self) -> Option<usize> {
        let weights = match self {
            Self::Modpo(settings) => &settings.margin_weights,
            Self::Hpo(settings) => &settings.reward_weights,
            _ => return None,
        };
        Some(weights.len()).filter(|n| *n > 0)
    }

    /// Sets the parts of the objective that the method decides.
    pub fn apply_to(&self, objective: &mut ObjectiveSpec) {
        match self {
            Self::MultiDpo => objective.sum_of_losses = true,
            Self::Modpo(settings) => objective.preference_weight = settings.preference_weight,
            Self::Selm(settings) => objective.optimism = settings.alpha,
            Self::Dpo | Self::Mrpo | Self::Spo(_) | Self::Hpo(_) | Self::TokenLevel(_) => {}
        }
    }
}
