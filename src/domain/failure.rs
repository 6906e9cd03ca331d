//! Why a run ended badly, in the same shape as an API error.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The cause of a failed run, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The dataset holds nothing that can be trained on, or a pair the chosen truncation policy refuses.
    InvalidDataset,
    /// A model's files are missing, cut off, or changed since they were registered.
    InvalidModel,
    /// The model's architecture, tokenizer or tensor type is not supported.
    UnsupportedModel,
    /// The model's source could not be fetched.
    SourceUnavailable,
    /// A reference on another server does not answer.
    RemoteUnavailable,
    /// The loss or a gradient was not a finite number.
    NonFiniteLoss,
    /// A reference log-probability is missing or not a finite number.
    InvalidReferenceScore,
    /// The policy and the references disagree at step 0 where they must agree.
    StepZeroMismatch,
    /// A checkpoint does not belong to this run, or its references changed.
    InvalidCheckpoint,
    /// A write failed because the disk or the quota is full.
    DiskFull,
    /// The device or the machine ran out of memory.
    OutOfMemory,
    /// The process ended without saying why (killed, crashed) more often than it may be restarted.
    RunDied,
    /// The specification could not be read.
    InvalidSpec,
    /// Anything else: a defect of ours.
    Internal,
}

/// Why a run ended badly; its last event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The cause, for programs.
    pub code: FailureCode,
    /// The cause and the way out, for people.
    pub message: String,
}

impl Failure {
    /// A failure with a message for people.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
