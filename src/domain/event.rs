//! What a run says while it goes on: the lines of `events.jsonl`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ExportedFiles, Failure, ModelId, ModelInfo, ScoreKey, ScoringCount};

/// How important a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the usual three")]
pub enum Level {
    Info,
    Warn,
    Error,
}

/// What a run is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Fetching and checking a model (a registration).
    Fetching,
    /// Reading the data and laying out the tokens.
    Preparing,
    /// Computing the references' log-probabilities; counted in completions.
    ScoringReferences,
    /// Optimizer steps; counted in steps.
    Training,
    /// Writing a model for other programs; counted in weights.
    Exporting,
}

/// When an evaluation was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EvaluationPhase {
    /// Before the first step.
    Before,
    /// Between two steps.
    During,
    /// After the last step.
    After,
}

/// A checkpoint as its event describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointSummary {
    /// Optimizer steps done.
    pub step: u64,
    /// Name of its directory below `checkpoints/`.
    pub directory: String,
    /// Size of its files, in bytes.
    pub size_bytes: u64,
    /// The model it holds, usable as base and as reference.
    pub model: ModelInfo,
    /// The newest training and evaluation metrics at that step, under their own names (evaluation: `eval_` before it).
    pub metrics: BTreeMap<String, f64>,
}

/// One thing a run says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RunEvent {
    /// A line for people.
    Message {
        /// How important it is.
        level: Level,
        /// The text.
        message: String,
        /// The same for programs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<serde_json::Value>,
    },
    /// How far a phase is. Only the newest matters.
    Progress {
        /// What the run is busy with.
        phase: Phase,
        /// Units done.
        n_done: u64,
        /// Units in all.
        n_total: u64,
        /// What is being worked on: for `scoring_references`, the reference's name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<String>,
    },
    /// The references' scores are there. A resumed run says it again, its first word counts.
    ReferenceScores {
        /// Whose; absent: of all of them together.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<ModelId>,
        /// What they are kept under; absent where they are not kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<ScoreKey>,
        /// What they have cost.
        #[serde(flatten)]
        count: ScoringCount,
    },
    /// Metrics of one optimizer step, under the names of `metric`.
    Metrics {
        /// The step, counted from 1.
        step: u64,
        /// Name to value.
        values: BTreeMap<String, f64>,
    },
    /// Metrics of the validation set.
    Evaluation {
        /// Steps done.
        step: u64,
        /// When it was made.
        phase: EvaluationPhase,
        /// Name to value.
        values: BTreeMap<String, f64>,
    },
    /// A checkpoint stands under its final name.
    Checkpoint(CheckpointSummary),
    /// A registration found out what the model is.
    Registered {
        /// What it found.
        model: ModelInfo,
    },
    /// An inspection found the answer.
    Inspected {
        /// A record of the question's kind, as JSON.
        result: String,
    },
    /// An export stands whole.
    Exported(ExportedFiles),
    /// The run did what it was for. A last event.
    Succeeded {
        /// The model a training run made; absent for every other run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<ModelInfo>,
        /// Tokens trained on.
        n_trained_tokens: u64,
    },
    /// The run was asked to stop and can go on from its newest checkpoint. A last event, until it is started again.
    Stopped {
        /// Steps done and saved.
        step: u64,
    },
    /// The run ended badly. A last event.
    Failed {
        /// Why.
        failure: Failure,
    },
}

impl RunEvent {
    /// Whether the process that wrote it says nothing after it.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Stopped { .. } | Self::Failed { .. })
    }

    /// The step of an event that a resumed run would write again; such a run leaves out what already stands.
    pub fn repeatable_step(&self) -> Option<(u8, u64)> {
        match self {
            Self::Metrics { step, .. } => Some((0, *step)),
            Self::Evaluation { step, .. } => Some((1, *step)),
            Self::Checkpoint(summary) => Some((2, summary.step)),
            _ => None,
        }
    }
}

/// One line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// When it was written: Unix time in milliseconds.
    pub at_ms: i64,
    /// What was said.
    #[serde(flatten)]
    pub event: RunEvent,
}
