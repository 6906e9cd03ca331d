//! Records the stories are about, as short as they can be.

use std::{collections::BTreeMap, path::Path};

use mrpo::{
    domain::{
        CheckpointSummary, DatasetReport, EvaluationPhase, FileId, FilePurpose, FileRecord, FileStatus, JobRequest,
        JobSpec, Level, ModelId, ModelInfo, ModelLocation, Ownership, Phase, Problems, RunEvent, WeightsFormat,
    },
    store::Store,
};
use serde_json::json;

pub(crate) async fn open(dir: &Path) -> Store {
    Store::open(dir).await.expect("opens")
}

/// Uploads a file that has not been checked yet.
pub(crate) async fn uploaded_file(store: &Store) -> FileId {
    let id = FileId::new();
    let file = FileRecord {
        id: id.clone(),
        filename: "pairs.jsonl".into(),
        purpose: FilePurpose::FineTune,
        size_bytes: 12,
        sha256: "0".repeat(64),
        format: None,
        status: FileStatus::Uploaded,
        report: None,
        created_at: 1_000,
        expires_at: None,
        job_id: None,
        ownership: Ownership::default(),
    };
    store.insert_file(&file).await.expect("inserted");
    id
}

/// Uploads a file that has passed its check.
pub(crate) async fn file(store: &Store) -> FileId {
    let id = uploaded_file(store).await;
    store.set_file_report(&id, &DatasetReport { n_pairs: 2, ..Default::default() }).await.expect("reported");
    id
}

/// A report with one problem.
pub(crate) fn bad_report() -> DatasetReport {
    let mut problems = Problems::default();
    problems.at("/chosen", "missing_field", "chosen is missing");
    DatasetReport { problems, ..Default::default() }
}

/// A spec of a DPO job.
pub(crate) fn spec(model: &ModelId, file: &FileId) -> JobSpec {
    resolve(json!({"model": model, "training_file": file, "method": {"type": "dpo"}}))
}

/// The spec of a request that is known to be well formed.
pub(crate) fn resolve(body: serde_json::Value) -> JobSpec {
    let request: JobRequest = serde_json::from_value(body).expect("well formed");
    let mut problems = Problems::default();
    let spec = JobSpec::resolve(&request, None, 7, &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    spec
}

/// What is known of a model whose weights lie at `weights` with `adapters` on top.
pub(crate) fn info(weights: &str, adapters: &[&str]) -> ModelInfo {
    ModelInfo {
        location: ModelLocation {
            format: WeightsFormat::Gguf,
            weights: weights.into(),
            adapters: adapters.iter().map(Into::into).collect(),
        },
        digest: format!("sha256:{:064}", 7),
        architecture: "llama".into(),
        n_parameters: 10,
        vocab_size: 5,
        max_position_embeddings: 128,
        has_chat_template: true,
        size_bytes: 40,
        scores: None,
    }
}

/// A message of a run.
pub(crate) fn message(text: &str) -> RunEvent {
    RunEvent::Message { level: Level::Info, message: text.into(), data: None }
}

/// How far a run's training is.
pub(crate) fn progress(n_done: u64, n_total: u64) -> RunEvent {
    RunEvent::Progress { phase: Phase::Training, n_done, n_total, item: None }
}

/// The metrics of one step.
pub(crate) fn metrics(step: u64, loss: f64) -> RunEvent {
    let values = BTreeMap::from([("loss".into(), loss), ("step_duration_ms".into(), 250.0)]);
    RunEvent::Metrics { step, values }
}

/// An evaluation of the validation set.
pub(crate) fn evaluation(step: u64, phase: EvaluationPhase, loss: f64) -> RunEvent {
    RunEvent::Evaluation { step, phase, values: BTreeMap::from([("loss".into(), loss)]) }
}

/// A checkpoint that holds an adapter on `base.gguf`.
pub(crate) fn checkpoint(step: u64) -> RunEvent {
    RunEvent::Checkpoint(CheckpointSummary {
        step,
        directory: format!("step-{step:06}"),
        size_bytes: 9,
        model: info("/models/base.gguf", &[&format!("/runs/x/step-{step:06}")]),
        metrics: BTreeMap::from([("loss".into(), 0.5)]),
    })
}

/// The good end of a training run.
pub(crate) fn succeeded() -> RunEvent {
    RunEvent::Succeeded { model: Some(info("/models/base.gguf", &["/runs/x/final"])), n_trained_tokens: 1234 }
}
