//! What a frozen model says of one completion: the lines of `scores.in.jsonl` and `scores.out.jsonl`.

use serde::{Deserialize, Serialize};

use super::{Dtype, Hyperparameters};

/// How exactly a reference is computed: scores of two precisions are never mixed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScorePrecision {
    /// All of it in float32.
    #[default]
    Float32,
    /// Weights stored, and factors of products rounded, as bfloat16.
    Bfloat16,
    /// Factors rounded as bfloat16, weights stored in float32: the base of a run that trains all of its weights.
    Bfloat16Products,
}

impl ScorePrecision {
    /// What a run with these settings scores its base, or another reference, in.
    pub fn of(settings: &Hyperparameters, is_base: bool) -> Self {
        match settings.dtype {
            Dtype::Float32 => Self::Float32,
            Dtype::Bfloat16 if is_base && settings.lora.is_none() => Self::Bfloat16Products,
            Dtype::Bfloat16 => Self::Bfloat16,
        }
    }
}

/// The log-probability of one completion under one reference. `(reference, precision, row)` is its key: nothing else decides it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReferenceScore {
    /// Digest of the reference's files: weights, tokenizer, template, adapters.
    pub reference: String,
    /// How exactly it was computed. Files from before there was a choice do not say it.
    #[serde(default)]
    pub precision: ScorePrecision,
    /// Digest of the exact prompt, the completion, the cut and the tokens that count; 64 hexadecimal digits.
    pub row: String,
    /// Line of the file that a run needed it for; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// (Weighted) sum of the log-probabilities of its tokens, in nats.
    pub logp: f64,
    /// Tokens that count, in the reference's own tokenizer.
    pub n_tokens: f64,
    /// Of what a run is told: whether the row is noted as one of its training file already. What it uses beyond those it says
    /// again, so that it is noted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_of_file: bool,
}
