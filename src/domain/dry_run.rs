//! A dry run: what a job would take, and what its references are, found out while there is no job.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Distribution, ModelId, ReferenceFitness, Retention, TrainSpec};

/// The question, complete in itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DryRunSpec {
    /// What the job's run would be told.
    pub train: TrainSpec,
    /// What it would compute on: `cpu` or `cuda`. The dry run itself always takes the processor.
    pub device: String,
    /// What of the job would be kept on the disk.
    #[serde(default)]
    pub retention: Retention,
}

impl DryRunSpec {
    /// How long the request waits for its answer. A dry run that takes longer gives up: nobody listens any more.
    pub const PATIENCE: Duration = Duration::from_mins(2);
}

/// The answer. Times, memory and disk are estimates; the rest is counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DryRun {
    /// The pairs in each model's tokens.
    pub dataset: DatasetOutlook,
    /// The references in order (number 0 is the base), then the policies of earlier rounds.
    pub references: Vec<ReferenceFitness>,
    /// Memory of the job's process.
    pub memory: MemoryEstimate,
    /// Disk of its checkpoints.
    pub disk: DiskEstimate,
    /// How long it would take.
    pub time: TimeEstimate,
    /// What speaks against the job as it stands, in words.
    pub warnings: Vec<Warning>,
}

/// A job's files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DatasetOutlook {
    /// The training file.
    pub training: FileOutlook,
    /// The validation file.
    pub validation: Option<FileOutlook>,
    /// Validation pairs that stand in the training file too, word for word.
    pub n_overlapping: u64,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FileOutlook {
    /// Pairs that the method takes.
    pub n_pairs: u64,
    /// Pairs that it leaves out (`spo`: those of other dimensions).
    pub n_left_out: u64,
    /// The first pairs of the file, which the counts below are of: all of them in all but very large files.
    pub n_measured: u64,
    /// Pairs whose prompt would lose tokens to `max_length`, counted in the base's tokens.
    pub n_prompts_cut: u64,
    /// Tokens they would lose together.
    pub n_tokens_removed: u64,
    /// Pairs that are too long and would be left out.
    pub n_dropped: u64,
    /// Pairs that are too long and would end the job (`truncation: error`).
    pub n_refused: u64,
    /// How long the pairs are, per model.
    pub lengths: Vec<TokenLengths>,
}

/// Lengths of pairs in one model's tokens, before any cut: prompt and longest completion together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenLengths {
    /// The model.
    pub model: ModelId,
    /// How long they are.
    #[serde(flatten)]
    pub tokens: Distribution,
    /// Pairs whose two completions are the same tokens: nothing can be learned from them.
    pub n_same_sides: u64,
    /// Pairs longer than the context the model was made for.
    pub n_beyond_context: u64,
}

/// What the job's process would have in memory, in bytes; estimated from the shapes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemoryEstimate {
    /// What the job would compute on: `cpu` or `cuda`.
    #[schema(example = "cpu")]
    pub device: String,
    /// One after the other: each model that has something to score, then training.
    pub phases: Vec<MemoryPhase>,
    /// The most any of them takes.
    pub peak_bytes: u64,
    /// What this machine has free now. Null for a GPU: a dry run opens none.
    pub available_bytes: Option<u64>,
    /// Whether the peak and a quarter more is below that: loading and the allocator take what no shape tells.
    pub fits: Option<bool>,
}

/// What is in memory at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemoryPhase {
    /// What is done.
    pub phase: DryRunPhase,
    /// The model whose weights are there.
    pub model: ModelId,
    /// The program, the tokenizers and the pairs, as the dry run's own process had them.
    pub program_bytes: u64,
    /// Weights.
    pub weights_bytes: u64,
    /// Values that are trained, where they stand beside the weights (LoRA).
    pub adapter_bytes: u64,
    /// The optimizer's two moments, and the gradients.
    pub optimizer_bytes: u64,
    /// Activations of the largest micro-batch.
    pub activations_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
}

/// A part of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DryRunPhase {
    /// A reference's log-probabilities.
    Scoring,
    /// Optimizer steps.
    Training,
}

/// What the job's checkpoints would take on the disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskEstimate {
    /// One checkpoint: adapter or weights, and the optimizer's moments.
    pub checkpoint_bytes: u64,
    /// How many will be written.
    pub n_checkpoints: u64,
    /// The most of them that are there at once, as the job's `retention` has it.
    pub n_at_once: u64,
    /// The most they take together: of all but the newest two only the model stays.
    pub total_bytes: u64,
    /// What is free where runs lie.
    pub free_bytes: u64,
    /// Whether the total is below that.
    pub fits: bool,
}

/// How long the job would take, told from the seconds that scoring the sample took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TimeEstimate {
    /// Pairs that would be trained on.
    pub n_pairs: u64,
    /// Optimizer steps.
    pub n_steps: u64,
    /// Tokens that training computes, over all epochs.
    pub n_tokens: u64,
    /// Scoring, per model whose scores are not all kept.
    pub scoring: Vec<ScoringTime>,
    /// Optimizer steps.
    pub training_seconds: Option<f64>,
    /// The validation set: before, during and after.
    pub evaluation_seconds: Option<f64>,
    /// All of it. Null where no model could be timed, or the job would run on a GPU.
    pub total_seconds: Option<f64>,
    /// What the estimate stands on.
    pub basis: String,
}

/// Scoring under one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScoringTime {
    /// The model.
    pub model: ModelId,
    /// Tokens to compute.
    pub n_tokens: u64,
    /// Seconds, with those that loading takes.
    pub seconds: Option<f64>,
}

/// What speaks against a job as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"code": "validation_overlaps", "model": null, "message": "3 validation pairs stand in the training \
    file too, word for word: what is measured on them says nothing of new pairs; take them out of one of the files"}))]
pub struct Warning {
    /// What it is, for programs.
    pub code: WarningCode,
    /// The model it is about.
    pub model: Option<ModelId>,
    /// The same in words, with the way out.
    pub message: String,
}

/// What can speak against a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WarningCode {
    /// The job would end before training: pairs are longer than allowed, no pair is left, or given scores do not cover them.
    WouldFail,
    /// More than a tenth of the pairs would be cut or left out.
    ManyTruncated,
    /// Completions of some pairs are the same tokens.
    SameSides,
    /// Pairs are longer than the context a model was made for.
    BeyondContext,
    /// Validation pairs are trained on.
    ValidationOverlaps,
    /// There are fewer pairs than one batch takes.
    FewerPairsThanBatch,
    /// The last batch of an epoch is smaller.
    UnevenBatches,
    /// A reference is the base itself.
    SameAsBase,
    /// A reference has no chat template where the base has one, or where pairs are conversations.
    NoTemplate,
    /// Prompts do not begin with a token that begins texts.
    NoBos,
    /// No file of the model names its licence.
    LicenceUnknown,
    /// The licence forbids commercial use.
    LicenceNonCommercial,
    /// A reference has another licence than the base.
    LicenceDiffers,
    /// A reference ranks fewer than half of the sample's pairs as the data does.
    LowAccuracy,
    /// A reference's log-probabilities are more than twice, or less than half, of the base's.
    ScaleDiffers,
    /// The trust region moves nearly all of a reference's log-probabilities.
    AlwaysClipped,
    /// A reference decides and is wrong, or pulls away from the base.
    Harmful,
    /// A reference has next to no weight.
    NoWeight,
    /// A reference decides nearly always.
    AlwaysDecides,
    /// It needs more memory than there is.
    TooLittleMemory,
    /// It needs more disk than there is.
    TooLittleDisk,
}
