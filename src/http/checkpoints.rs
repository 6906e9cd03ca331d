//! `/v1/fine_tuning/jobs/{job_id}/checkpoints`: the states a job has saved.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    error::ApiError,
    extract::{Id, Path, Query},
    files::Deleted,
    paging::{List, PageQuery},
};
use crate::{
    domain::{CheckpointId, JobId, ModelId, metric},
    store::Checkpoint,
};

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_job_checkpoints))
        .routes(routes!(delete_job_checkpoint))
        .routes(routes!(delete_run_data))
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct CheckpointObject {
    id: CheckpointId,
    /// `fine_tuning.job.checkpoint`.
    #[schema(example = "fine_tuning.job.checkpoint")]
    object: &'static str,
    /// Unix time in seconds.
    created_at: i64,
    /// The name it is served under as a model.
    fine_tuned_model_checkpoint: ModelId,
    fine_tuning_job_id: JobId,
    /// Optimizer steps done.
    step_number: u64,
    /// OpenAI's names (`step`, `train_loss`, `valid_loss`, `full_valid_loss`) and ours; the validation set's begin with `eval_`.
    metrics: BTreeMap<String, f64>,
    /// Size of its files, in bytes.
    size_bytes: u64,
}

impl From<Checkpoint> for CheckpointObject {
    fn from(checkpoint: Checkpoint) -> Self {
        let mut metrics = checkpoint.metrics;
        let loss = metrics.get(metric::LOSS).copied();
        let eval_loss = metrics.get(&format!("{}{}", metric::EVALUATED, metric::LOSS)).copied();
        let as_openai_calls_it = [
            ("step", Some(checkpoint.step as f64)),
            ("train_loss", loss),
            ("valid_loss", eval_loss),
            ("full_valid_loss", eval_loss),
        ];
        metrics.extend(as_openai_calls_it.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        Self {
            id: checkpoint.id,
            object: "fine_tuning.job.checkpoint",
            created_at: checkpoint.created_at,
            fine_tuned_model_checkpoint: checkpoint.model_id,
            fine_tuning_job_id: checkpoint.job_id,
            step_number: checkpoint.step,
            metrics,
            size_bytes: checkpoint.size_bytes,
        }
    }
}

/// Lists a job's checkpoints
///
/// Newest first, while the job runs too.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{job_id}/checkpoints", tag = "checkpoints",
    params(("job_id" = String, Path, description = "The job"), PageQuery),
    responses(
        (status = 200, description = "One page, newest first; 10 by default", body = List<CheckpointObject>),
        (status = 400, description = "A parameter is not valid, or `after` is not in the list"),
        (status = 404, description = "No such job"),
    )
)]
async fn list_job_checkpoints(
    State(app): State<App>,
    Id(id): Id<JobId>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<List<CheckpointObject>>, ApiError> {
    let page = app.store().checkpoints(&id, query.after()?.as_ref(), query.limit(10)?).await?;
    Ok(axum::Json(List::of(page, |checkpoint| checkpoint.id.to_string(), CheckpointObject::from)))
}

/// Deletes a checkpoint
///
/// It is gone at once, with the model it is served as, and its files a moment later. What its job goes on from stays, and what is still
/// used: by a job, an export, a reference list, or as the files of another model, such as the one the job made.
#[utoipa::path(
    delete, path = "/v1/fine_tuning/jobs/{job_id}/checkpoints/{checkpoint_id}", tag = "checkpoints",
    params(("job_id" = String, Path, description = "The job"), ("checkpoint_id" = String, Path, description = "The checkpoint")),
    responses(
        (status = 200, description = "Deleted", body = Deleted),
        (status = 404, description = "No such checkpoint"),
        (status = 409, description = "Something still uses it: `in_use`"),
    )
)]
async fn delete_job_checkpoint(
    State(app): State<App>,
    Path((job, id)): Path<(String, String)>,
) -> Result<axum::Json<Deleted>, ApiError> {
    let id: CheckpointId = id.parse()?;
    app.store().delete_checkpoint(&job.parse()?, &id).await?;
    Ok(Deleted::new(id, "fine_tuning.job.checkpoint"))
}

/// Deletes the files of a job's run
///
/// What an ended job has left on the disk: its checkpoints, what it has written for TensorBoard, its log. The job stays with its events and
/// metrics, and so do the model it made and every checkpoint that something uses, each until nothing does.
#[utoipa::path(
    delete, path = "/v1/fine_tuning/jobs/{job_id}/run", tag = "fine-tuning jobs",
    params(("job_id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "The files are being removed, or have been", body = Deleted),
        (status = 404, description = "No such job"),
        (status = 409, description = "The job has not ended: `in_use`"),
    )
)]
async fn delete_run_data(State(app): State<App>, Id(id): Id<JobId>) -> Result<axum::Json<Deleted>, ApiError> {
    app.store().remove_run_data(&id).await?;
    Ok(Deleted::new(id, "fine_tuning.job.run"))
}
