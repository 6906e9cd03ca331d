//! A question that takes a model's tokenizer or its weights: asked and answered within one request.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DryRunSpec, Failure, JobSpec, ModelId, ModelLocation, Truncation};

/// The question as it was asked: of a job, by the names of its files and models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "question", rename_all = "snake_case")]
pub enum Question {
    /// What does the model make of this pair?
    Preview(PreviewSpec),
    /// What would this job take, and what are its references?
    DryRun(Box<JobSpec>),
}

/// The question as a run gets it, complete in itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "question", rename_all = "snake_case")]
pub enum InspectSpec {
    /// What does the model make of this pair?
    Preview(PreviewSpec),
    /// What would this job take, and what are its references?
    DryRun(Box<DryRunSpec>),
}

/// A pair to be shown in a model's tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreviewSpec {
    /// The model.
    pub model: ModelId,
    /// Where its files lie.
    pub location: ModelLocation,
    /// The pair: a line of a dataset in any of its formats.
    pub pair: String,
    /// Longest prompt and completion together, in tokens.
    pub max_length: usize,
    /// What happens to a longer pair.
    pub truncation: Truncation,
}

/// How far the answer is.
#[derive(Debug, Clone, PartialEq)]
pub enum Inspection {
    /// Not there yet.
    Pending,
    /// The answer, a record of the question's kind as JSON.
    Done(String),
    /// There is none.
    Failed(Failure),
}

/// A preference pair as a model is trained on it, or scores it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Preview {
    /// Whether the model has a chat template; without one the plain format is used.
    pub has_chat_template: bool,
    /// The prompt as the model reads it, before any cut.
    pub rendered_prompt: String,
    /// The prompt's tokens; none of them is scored.
    pub prompt: Vec<PreviewToken>,
    /// The tokens of the preferred completion, the one that ends the turn included.
    pub chosen: Vec<PreviewToken>,
    /// The tokens of the other completion.
    pub rejected: Vec<PreviewToken>,
    /// Tokens of the prompt and the longest completion.
    pub n_tokens: usize,
    /// Tokens that the cut took from the prompt's left.
    pub n_tokens_removed: usize,
    /// Why the pair would be left out, or refused, for its length.
    pub too_long: Option<String>,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PreviewToken {
    /// Its id.
    pub id: u32,
    /// Its entry in the vocabulary, as the tokenizer's file has it.
    pub piece: String,
    /// The text it stands for on its own; a part of a character shows as `�`.
    pub text: String,
    /// Whether its log-probability counts.
    pub is_scored: bool,
    /// Whether one of the row's spans touches it; absent where the row has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_in_span: Option<bool>,
}
