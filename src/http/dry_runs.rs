//! `dry_run` of `POST /v1/fine_tuning/jobs`: what a job would take and what its references are, with no job made.

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    App,
    error::{ApiError, ErrorCode},
    inspections,
    method_object::MethodObject,
};
use crate::{
    domain::{
        DryRun, DryRunSpec, Failure, FileId, FileStatus, Hyperparameters, JobSpec, ModelId, ModelStatus, Question,
    },
    store::Store,
};

/// What a job would take. No job was made, nothing of this is kept.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct DryRunObject {
    /// `fine_tuning.job.dry_run`.
    #[schema(example = "fine_tuning.job.dry_run")]
    object: &'static str,
    /// The model it would start from.
    model: ModelId,
    training_file: FileId,
    validation_file: Option<FileId>,
    /// Seed of everything random, of the sample too; made up where none was given.
    seed: u32,
    /// All settings, as they would be used.
    hyperparameters: Hyperparameters,
    /// The method with all its settings, as they would be used.
    method: MethodObject,
    #[serde(flatten)]
    answer: DryRun,
}

/// Finds it out for a job that has been accepted.
pub(super) async fn answer(app: &App, job: JobSpec) -> Result<DryRunObject, ApiError> {
    check_ready(app.store(), &job).await?;
    let method = MethodObject::of(&job);
    let question = Question::DryRun(Box::new(job.clone()));
    let answer = inspections::ask(app, &question, DryRunSpec::PATIENCE, refusal).await?;
    Ok(DryRunObject {
        object: "fine_tuning.job.dry_run",
        model: job.model,
        training_file: job.training_file,
        validation_file: job.validation_file,
        seed: job.seed,
        hyperparameters: job.hyperparameters,
        method,
        answer,
    })
}

/// A job waits until what it reads has been checked; a question about one does not.
async fn check_ready(store: &Store, job: &JobSpec) -> Result<(), ApiError> {
    let mut waiting = Vec::new();
    for id in [Some(&job.training_file), job.validation_file.as_ref()].into_iter().flatten() {
        if store.file(id).await?.status != FileStatus::Processed {
            waiting.push(format!("the file '{id}' is still being checked (GET /v1/files/{id})"));
        }
    }
    for id in job.models() {
        if store.model(id).await?.status != ModelStatus::Ready {
            waiting.push(format!("the model '{id}' is still being fetched (GET /v1/models/{id})"));
        }
    }
    waiting.sort();
    waiting.dedup();
    if waiting.is_empty() {
        return Ok(());
    }
    let message = format!("{}: ask again when that is done, or create the job, which waits for it", waiting.join("; "));
    Err(ApiError::new(ErrorCode::NotReady, message))
}

/// What ends the dry run would end the job.
fn refusal(failure: Failure) -> ApiError {
    ApiError::new(ErrorCode::InspectionFailed, failure.message)
}
