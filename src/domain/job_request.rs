//! A job as a client asks for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{FileId, MethodRequest, ModelId, Priority, RetentionRequest};

/// `POST /v1/fine_tuning/jobs`, as a client writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// The model to start from.
    pub model: ModelId,
    /// The preference pairs to train on.
    pub training_file: FileId,
    /// Held-out pairs, evaluated before, during and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_file: Option<FileId>,
    /// Seed of everything random; made up and returned when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Part of the tuned model's name, at most 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// Up to 16 texts of the client's own; keys up to 64 characters, values up to 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// What to optimise.
    pub method: MethodRequest,
    /// How soon it is to run beside others; `normal` when absent, `high` is an admin's to give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// What of it is kept on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionRequest>,
    /// Only tell what the job would take and what its references are; none is created.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

impl JobRequest {
    /// The largest seed.
    pub const MAX_SEED: u32 = i32::MAX as u32;
    /// The longest suffix.
    pub const MAX_SUFFIX_CHARS: usize = 64;
    /// The most entries of `metadata`.
    pub const MAX_METADATA: usize = 16;
    /// The longest name of one.
    pub const MAX_METADATA_KEY_CHARS: usize = 64;
    /// The longest text of one.
    pub const MAX_METADATA_VALUE_CHARS: usize = 512;
}
