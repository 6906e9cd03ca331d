//! The server's answers, as far as the demo reads them. What it does not know it ignores, as any client should.

use serde::Deserialize;
use serde_json::Value;

use crate::domain::{EvaluationPair, Failure, FileId, FileStatus, JobId, JobStatus, ModelId, ModelStatus};

/// Anything new that has an id.
#[derive(Debug, Deserialize)]
pub(super) struct Created {
    pub(super) id: String,
}

/// An uploaded file.
#[derive(Debug, Deserialize)]
pub(super) struct File {
    pub(super) id: FileId,
    status: FileStatus,
    pub(super) status_details: Option<String>,
}

impl File {
    /// Whether its check is over.
    pub(super) fn is_checked(&self) -> bool {
        self.status != FileStatus::Uploaded
    }

    /// Whether every line of it is a pair.
    pub(super) fn is_processed(&self) -> bool {
        self.status == FileStatus::Processed
    }
}

/// A registered model.
#[derive(Debug, Deserialize)]
pub(super) struct Model {
    pub(super) status: ModelStatus,
    pub(super) source: Option<String>,
    pub(super) error: Option<Failure>,
    pub(super) n_parameters: Option<u64>,
}

/// A fine-tuning job.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) status: JobStatus,
    pub(super) fine_tuned_model: Option<ModelId>,
    pub(super) error: Option<Failure>,
    pub(super) progress: Option<Progress>,
    #[serde(default)]
    pub(super) evaluation: EvaluationPair,
    pub(super) run_id: Option<String>,
    pub(super) started_at: Option<i64>,
    pub(super) finished_at: Option<i64>,
}

/// How far a job is, in optimizer steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Progress {
    pub(super) n_steps_done: u64,
    pub(super) n_steps: u64,
}

/// One page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct List<T> {
    pub(super) data: Vec<T>,
    #[serde(default)]
    pub(super) has_more: bool,
}

/// One line of a job's history.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) message: String,
    #[serde(default)]
    pub(super) data: Value,
}

/// A text the model wrote before or after it was tuned, as it stands in an event's `data`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Sample {
    pub(super) phase: SamplePhase,
    pub(super) prompt: String,
    pub(super) completion: String,
}

/// When a sample was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SamplePhase {
    Before,
    After,
}

impl Event {
    /// The sample it carries.
    pub(super) fn sample(&self) -> Option<Sample> {
        Sample::deserialize(self.data.get("sample")?).ok()
    }

    /// The most memory the run's process had, in bytes.
    pub(super) fn peak_memory_bytes(&self) -> Option<u64> {
        self.data.get("peak_memory_bytes")?.as_u64()
    }

    /// One metric, if it is an event with metrics.
    pub(super) fn metric(&self, name: &str) -> Option<f64> {
        self.data.get(name)?.as_f64()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sample_is_found_in_the_data_of_an_event() {
        let event: Event = serde_json::from_value(json!({
            "object": "fine_tuning.job.event", "id": "ftevent-1", "created_at": 1, "level": "info", "type": "message",
            "message": "sample", "data": {"sample": {"phase": "after", "prompt": "p", "completion": "c"}},
        }))
        .expect("an event");
        let sample = Sample { phase: SamplePhase::After, prompt: "p".into(), completion: "c".into() };
        assert_eq!(event.sample(), Some(sample));
        assert_eq!(event.peak_memory_bytes(), None);
    }
}
