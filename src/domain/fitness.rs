//! The fitness of a reference: what its files say, and what it says of a sample of the pairs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ModelId, ScorePrecision};

/// What a job has a model for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceRole {
    /// The policy's own start, reference 0.
    Base,
    /// Another reference.
    Reference,
    /// The policy of an earlier round (`spo`).
    Earlier,
}

/// One model that a job scores its pairs under. Of one without weights here, what only weights tell is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReferenceFitness {
    /// Its place in the list, counted from 0.
    pub number: u64,
    /// What the job has it for.
    pub role: ReferenceRole,
    /// The model.
    pub model: ModelId,
    /// The architecture's name in `config.json`.
    pub architecture: Option<String>,
    /// Number of weights.
    pub n_parameters: Option<u64>,
    /// Size of its files, in bytes.
    pub size_bytes: u64,
    /// What it takes in memory while it scores, in bytes; an estimate.
    pub scoring_bytes: Option<u64>,
    /// What its log-probabilities are computed in.
    pub precision: ScorePrecision,
    /// Longest context it was made for, in tokens.
    pub max_position_embeddings: Option<u64>,
    /// How it reads text.
    pub text: Option<TextFitness>,
    /// The licence that its GGUF metadata, its model card or its `config.json` names.
    #[schema(example = "apache-2.0")]
    pub licence: Option<String>,
    /// How many of the scores that the job needs are kept already.
    pub kept_scores: KeptCount,
    /// What it says of a sample of the training pairs.
    pub sample: Option<SampleFitness>,
    /// Why there is no sample.
    pub no_sample: Option<String>,
}

/// How a model reads text, beside the base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TextFitness {
    /// The kind of its tokenizer.
    #[schema(example = "byte-level BPE")]
    pub tokenizer: String,
    /// Number of tokens it knows.
    pub vocab_size: u64,
    /// Whether its tokenizer is the base's, entry by entry.
    pub has_same_tokenizer: bool,
    /// In words, what differs from the base's.
    pub difference: Option<String>,
    /// Share of the measured training pairs whose completions have other numbers of tokens than under the base.
    pub other_count_share: f64,
    /// Whether it has a chat template; without one prompts are in a plain format.
    pub has_chat_template: bool,
    /// Whether that is the base's; null where one of the two has none.
    pub has_same_template: Option<bool>,
    /// The token that begins a text.
    pub bos: Option<String>,
    /// The token that ends one.
    pub eos: Option<String>,
    /// The token that ends a completion.
    pub end_of_turn: String,
}

/// Scores that a job needs, of the measured pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct KeptCount {
    /// Completions.
    pub n_needed: u64,
    /// Those whose score is kept, or given.
    pub n_kept: u64,
}

/// What a model says of the sample. The pairs are the same for all models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SampleFitness {
    /// Pairs of the sample: the first that training would visit, 16, 8 or 4.
    pub n_pairs: u64,
    /// Share of them that it ranks as the data does.
    pub accuracy: f64,
    /// Mean of chosen less rejected, in nats.
    pub margin: f64,
    /// Mean size of a completion's log-probability, in nats.
    pub nats_per_completion: f64,
    /// The same per token of its own.
    pub nats_per_token: Option<f64>,
    /// Its nats per completion over the base's: what the trust region compares.
    pub scale: Option<f64>,
    /// How its margins go with the base's: Pearson's correlation, between -1 and 1.
    pub margin_correlation: Option<f64>,
    /// Mean of its weight, as the first step would have it.
    pub weight_mean: Option<f64>,
    /// Share of its log-probabilities that the trust region would move.
    pub clip_fraction: Option<f64>,
    /// Tokens that were computed.
    pub n_tokens: u64,
    /// How long that took; null where nothing was computed.
    pub duration_ms: Option<f64>,
}
