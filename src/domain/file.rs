//! Uploaded files and what checking them found.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{FileId, Problems};

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum FilePurpose {
    /// A preference dataset to train or validate on.
    #[serde(rename = "fine-tune")]
    FineTune,
    /// Results a job wrote.
    #[serde(rename = "fine-tune-results")]
    FineTuneResults,
}

/// How far a file's check is (OpenAI's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileStatus {
    /// Stored, being checked.
    Uploaded,
    /// Every line is a preference pair.
    Processed,
    /// At least one line is not: see `report`.
    Error,
}

/// The shape of a dataset's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DatasetFormat {
    /// `{"input":{"messages":[..]},"preferred_output":[..],"non_preferred_output":[..]}` (or `.._completion`).
    OpenaiPreference,
    /// TRL standard with explicit prompt: `{"prompt","chosen","rejected"}`, three texts.
    TrlStandard,
    /// TRL standard with implicit prompt: `{"chosen","rejected"}`, two texts that share a beginning.
    TrlStandardImplicit,
    /// TRL conversational with explicit prompt: three lists of messages.
    TrlConversational,
    /// TRL conversational with implicit prompt: two lists of messages that share a beginning.
    TrlConversationalImplicit,
    /// Anthropic HH: `{"chosen","rejected"}`, texts of `\n\nHuman:` and `\n\nAssistant:` turns.
    AnthropicHh,
}

/// What checking a dataset found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct DatasetReport {
    /// The format its lines are in, told from the first line that fits one.
    pub format: Option<DatasetFormat>,
    /// Number of preference pairs.
    pub n_pairs: u64,
    /// Everything that is wrong with it, by line.
    pub problems: Problems,
    /// What is odd but allowed, by line (for instance a pair that stands twice).
    #[serde(default)]
    pub warnings: Problems,
}

/// An uploaded file as the service knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    /// Its id; its content lies under this name, never under the user's.
    pub id: FileId,
    /// The name the user gave it; shown, never used as a path.
    pub filename: String,
    /// What it is for.
    pub purpose: FilePurpose,
    /// Size in bytes.
    pub size_bytes: u64,
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
    /// How far its check is.
    pub status: FileStatus,
    /// What the check found.
    pub report: Option<DatasetReport>,
    /// Unix time in seconds.
    pub created_at: i64,
}
