//! What a frozen model says of one completion: the lines of `scores.in.jsonl` and `scores.out.jsonl`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use utoipa::ToSchema;

use super::{Dtype, Hyperparameters};

/// How exactly a reference is computed: scores of two precisions are never mixed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScorePrecision {
    /// All of it in float32.
    #[default]
    Float32,
    /// Weights stored, and factors of products rounded, as bfloat16.
    Bfloat16,
    /// Factors rounded as bfloat16, weights stored in float32: the base of a run that trains all of its weights.
    Bfloat16Products,
    /// As another server computes it.
    AsServed,
}

impl ScorePrecision {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Float32, Self::Bfloat16, Self::Bfloat16Products, Self::AsServed];

    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
            Self::Bfloat16Products => "bfloat16_products",
            Self::AsServed => "as_served",
        }
    }

    /// What a run with these settings scores its base, or another model of its own, in.
    pub(super) fn of(settings: &Hyperparameters, is_base: bool) -> Self {
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

/// Whose scores: what they are kept under. Written `DIGEST:PRECISION`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreKey {
    /// Digest of the model's files.
    pub digest: String,
    /// How exactly it was computed.
    pub precision: ScorePrecision,
}

impl fmt::Display for ScoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.digest, self.precision.as_str())
    }
}

impl FromStr for ScoreKey {
    type Err = InvalidScoreKey;

    fn from_str(text: &str) -> Result<Self, InvalidScoreKey> {
        let (digest, word) = text.rsplit_once(':').ok_or(InvalidScoreKey)?;
        let precision = ScorePrecision::ALL.into_iter().find(|precision| precision.as_str() == word);
        Ok(Self { digest: digest.to_owned(), precision: precision.ok_or(InvalidScoreKey)? })
    }
}

/// A text that is no [`ScoreKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected DIGEST:PRECISION")]
pub struct InvalidScoreKey;

/// What the references' scores have cost a run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct ScoringCount {
    /// Completions whose score earlier jobs had left, or a file of scores had: none of them was computed.
    pub n_known: u64,
    /// Scores that this run has computed, in whichever attempt; a pair that stands twice in a file is computed once.
    pub n_computed: u64,
    /// How long the attempt that told it has taken.
    pub duration_ms: f64,
}
