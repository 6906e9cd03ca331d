//! Records the stories are about, as short as they can be.

use std::path::Path;

use mrpo::{
    domain::{DatasetReport, FileId, FilePurpose, FileRecord, FileStatus, JobRequest, JobSpec, ModelId, Problems},
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
        status: FileStatus::Uploaded,
        report: None,
        created_at: 1_000,
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
