//! A job as the service knows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Failure, FileId, JobId, JobSpec, JobStatus, ModelId, Ownership, Priority, RunId, ScoringCount};

/// Metrics of the validation set at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Evaluation {
    /// Steps done.
    pub step: u64,
    /// Name to value.
    pub metrics: BTreeMap<String, f64>,
}

/// The validation set before the first step and after the last.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct EvaluationPair {
    /// Before the first step.
    pub before: Option<Evaluation>,
    /// After the last step.
    pub after: Option<Evaluation>,
}

/// A job as the service knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What was asked for, everything filled in.
    pub spec: JobSpec,
    /// Where it stands.
    pub status: JobStatus,
    /// The directory its processes work in, once there was one.
    pub run_id: Option<RunId>,
    /// How often a process was started for it.
    pub n_attempts: u32,
    /// The model it made.
    pub fine_tuned_model: Option<ModelId>,
    /// The files with its results, once it has ended well; those that have been deleted are left out.
    pub result_files: Vec<FileId>,
    /// Why it failed.
    pub error: Option<Failure>,
    /// Tokens trained on.
    pub n_trained_tokens: Option<u64>,
    /// What its references' scores have cost, once they are all there.
    pub reference_scores: Option<ScoringCount>,
    /// The validation set before and after.
    pub evaluation: EvaluationPair,
    /// Optimizer steps done and in all, once known.
    pub progress: Option<(u64, u64)>,
    /// When it will be done, as far as one can tell: Unix time in seconds.
    pub estimated_finish: Option<i64>,
    /// Unix time in seconds.
    pub created_at: i64,
    /// When a process was first started for it.
    pub started_at: Option<i64>,
    /// When it got its final status.
    pub finished_at: Option<i64>,
    /// Whose it is.
    pub ownership: Ownership,
    /// How soon it is to run beside others.
    pub priority: Priority,
    /// Where it stands while it waits.
    pub standing: Standing,
}

/// Where a job stands among those that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its number in order of creation.
    pub seq: i64,
    /// Its priority, or a higher one that waiting has given it.
    pub class: Priority,
    /// The bytes of memory it waits for, being next.
    pub waits_for_bytes: Option<u64>,
    /// The bytes of disk it waits for, being next.
    pub waits_for_disk_bytes: Option<u64>,
}
