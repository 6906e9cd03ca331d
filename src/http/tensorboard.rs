//! `/v1/fine_tuning/jobs/{job_id}/tensorboard`: a job's metrics as the event files that TensorBoard reads.

use axum::{extract::State, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    archive::Archive,
    error::{ApiError, ErrorCode},
    extract::Id,
};
use crate::{domain::JobId, run_dir::RunDir, store::unix_now};

/// The route.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_tensorboard_files))
}

/// Downloads a job's metrics for TensorBoard
///
/// A tar of event files, one for each attempt that had metrics, as far as they are now: while the job runs too. They hold what the job's
/// metrics are, in single precision, as `train/{name}` and `eval/{name}`.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{job_id}/tensorboard", tag = "fine-tuning jobs",
    params(("job_id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "The files, in a folder of the job's name", body = Vec<u8>, content_type = "application/x-tar"),
        (status = 404, description = "No such job"),
        (status = 409, description = "It has no metrics yet, or its run's files have been removed: `not_ready`"),
    )
)]
async fn get_tensorboard_files(State(app): State<App>, Id(id): Id<JobId>) -> Result<Response, ApiError> {
    let job = app.store().job(&id).await?;
    let run = job.run_id.map(|run| RunDir::new(app.data_dir().join("runs").join(run.as_str())));
    let (directory, files) = match run {
        Some(run) => {
            let directory = run.tensorboard();
            let files = tokio::task::spawn_blocking(move || run.tensorboard_files()).await;
            (directory, files.map_err(ApiError::internal)??)
        }
        None => (app.data_dir().to_owned(), Vec::new()),
    };
    if files.is_empty() {
        let message = "the job has no such files: its first step, or the evaluation before it, writes the first, and they go with its run's files";
        return Err(ApiError::new(ErrorCode::NotReady, message));
    }
    Archive { name: id.to_string(), directory, files, grows: true, modified_at: unix_now(), reading: None }.respond()
}
