//! `…/sharing`: whether the team sees and uses what somebody owns; one route for each kind of thing.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    error::ApiError,
    extract::{Id, Json},
};
use crate::{
    domain::{FileId, JobId, ModelId, ReferenceListId},
    store::Owned,
};

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(share_file))
        .routes(routes!(share_model))
        .routes(routes!(share_reference_list))
        .routes(routes!(share_job))
}

/// Who is to see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SharingRequest {
    /// Whether the team sees and may use it. Only its owner and admins change or delete it.
    shared: bool,
}

/// Who sees it now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct Sharing {
    /// The thing's id.
    id: String,
    /// `sharing`.
    #[schema(example = "sharing")]
    object: &'static str,
    /// Whether the team sees and may use it.
    shared: bool,
}

async fn share(app: &App, thing: Owned, request: SharingRequest) -> Result<axum::Json<Sharing>, ApiError> {
    app.store().share(&thing, request.shared).await?;
    app.live().recheck();
    Ok(axum::Json(Sharing { id: thing.id().to_owned(), object: "sharing", shared: request.shared }))
}

/// Shares a file with the team, or no longer
///
/// The team may see, download and train on it; only its owner and admins change or delete it.
#[utoipa::path(
    post, path = "/v1/files/{file_id}/sharing", tag = "people", request_body = SharingRequest,
    params(("file_id" = String, Path, description = "The file")),
    responses(
        (status = 200, description = "Who sees it now", body = Sharing),
        (status = 403, description = "It belongs to somebody else"),
        (status = 404, description = "No such file"),
    )
)]
async fn share_file(
    State(app): State<App>,
    Id(id): Id<FileId>,
    Json(request): Json<SharingRequest>,
) -> Result<axum::Json<Sharing>, ApiError> {
    share(&app, Owned::File(id), request).await
}

/// Shares a model with the team, or no longer
///
/// The team may see, tune and export it; only its owner and admins delete it.
#[utoipa::path(
    post, path = "/v1/models/{model}/sharing", tag = "people", request_body = SharingRequest,
    params(("model" = String, Path, description = "The model")),
    responses(
        (status = 200, description = "Who sees it now", body = Sharing),
        (status = 403, description = "It belongs to somebody else"),
        (status = 404, description = "No such model"),
    )
)]
async fn share_model(
    State(app): State<App>,
    Id(id): Id<ModelId>,
    Json(request): Json<SharingRequest>,
) -> Result<axum::Json<Sharing>, ApiError> {
    share(&app, Owned::Model(id), request).await
}

/// Shares a reference list with the team, or no longer
///
/// Its models are shared, or not, on their own.
#[utoipa::path(
    post, path = "/v1/reference_lists/{reference_list_id}/sharing", tag = "people", request_body = SharingRequest,
    params(("reference_list_id" = String, Path, description = "The list")),
    responses(
        (status = 200, description = "Who sees it now", body = Sharing),
        (status = 403, description = "It belongs to somebody else"),
        (status = 404, description = "No such list"),
    )
)]
async fn share_reference_list(
    State(app): State<App>,
    Id(id): Id<ReferenceListId>,
    Json(request): Json<SharingRequest>,
) -> Result<axum::Json<Sharing>, ApiError> {
    share(&app, Owned::ReferenceList(id), request).await
}

/// Shares a job with the team, or no longer
///
/// With its events, metrics and checkpoints. Models it has made are shared, or not, on their own.
#[utoipa::path(
    post, path = "/v1/fine_tuning/jobs/{job_id}/sharing", tag = "people", request_body = SharingRequest,
    params(("job_id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "Who sees it now", body = Sharing),
        (status = 403, description = "It belongs to somebody else"),
        (status = 404, description = "No such job"),
    )
)]
async fn share_job(
    State(app): State<App>,
    Id(id): Id<JobId>,
    Json(request): Json<SharingRequest>,
) -> Result<axum::Json<Sharing>, ApiError> {
    share(&app, Owned::Job(id), request).await
}
