//! Low-rank adaptation: as a client writes it and as it is used.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::{Auto, Limit, Range, TargetModules};

/// LoRA (arXiv 2106.09685) with PEFT's semantics: y = Wx + (alpha/rank)·B·A·dropout(x).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Lora {
    /// Rank r of the update.
    pub rank: usize,
    /// Scale: the update is multiplied by alpha/rank.
    pub alpha: f64,
    /// Probability that an input of A is dropped while training.
    pub dropout: f64,
    /// The layers it is attached to: a list, `"all-linear"`, or `"auto"` (PEFT's choice); a choice becomes a list as soon as the base
    /// model's architecture is known.
    pub target_modules: TargetModules,
}

impl Lora {
    /// What its numbers may be.
    pub const LIMITS: [Limit; 3] = [
        ("rank", Range::between(1.0, 1024.0)),
        ("alpha", Range::above(0.0)),
        ("dropout", Range::from_to_below(0.0, 1.0)),
    ];
}

/// [`Lora`] as a client writes it: what is left out gets its default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `Lora`")]
pub struct LoraRequest {
    #[serde(default)]
    pub rank: Auto<usize>,
    #[serde(default)]
    pub alpha: Auto<f64>,
    #[serde(default)]
    pub dropout: Auto<f64>,
    #[serde(default)]
    pub target_modules: TargetModules,
}

impl LoraRequest {
    /// What is used: defaults filled in.
    pub(super) fn resolve(&self) -> Lora {
        let rank = self.rank.or(8);
        Lora {
            rank,
            alpha: self.alpha.or(2.0 * rank as f64),
            dropout: self.dropout.or(0.0),
            target_modules: self.target_modules.clone(),
        }
    }
}

/// Tells `null` (full fine-tuning) from an absent field (LoRA by default).
pub(super) fn lora_or_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<LoraRequest>>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    if value.is_null() {
        return Ok(Some(None));
    }
    let request = Auto::<LoraRequest>::deserialize(value).map_err(serde::de::Error::custom)?;
    Ok(Some(Some(request.or(LoraRequest::default()))))
}
