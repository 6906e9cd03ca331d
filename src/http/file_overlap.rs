//! `/v1/files/{file_id}/overlap`: which pairs of one file stand in another one.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    access::{By, see},
    error::{ApiError, ErrorCode},
    extract::{Id, Query},
    files::content_path,
};
use crate::{
    dataset::{self, PairReader},
    domain::{FileId, FilePurpose, FileStatus, Overlap},
    store::Owned,
};

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_overlap))
}

/// Which other file.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct OverlapQuery {
    /// The file whose pairs are looked for, such as the one to validate on.
    #[serde(rename = "with")]
    #[param(rename = "with")]
    asked: FileId,
}

/// The pairs of one file that stand in another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct OverlapObject {
    /// `file.overlap`.
    #[schema(example = "file.overlap")]
    object: &'static str,
    /// The file that was looked in.
    file: FileId,
    /// The file whose pairs were looked for.
    with: FileId,
    #[serde(flatten)]
    overlap: Overlap,
}

/// Looks for the pairs of one file in another one
///
/// Held-out pairs that are also trained on say nothing. Both files are read, each once, so this takes as long as checking them;
/// it is refused while the server is busy with checks. A prompt that is a text is the same as a conversation of that one message.
#[utoipa::path(
    get, path = "/v1/files/{file_id}/overlap", tag = "files",
    params(("file_id" = String, Path, description = "The file to look in, such as the one to train on"), OverlapQuery),
    responses(
        (status = 200, description = "What they share", body = OverlapObject),
        (status = 400, description = "A parameter is not valid, or a file has no preference pairs: `invalid_request`"),
        (status = 404, description = "No such file"),
        (status = 409, description = "A file has not been checked, or not well: `not_ready`"),
        (status = 503, description = "The server is busy with checks: `overloaded`"),
    )
)]
async fn get_overlap(
    State(app): State<App>,
    By(caller): By,
    Id(id): Id<FileId>,
    Query(query): Query<OverlapQuery>,
) -> Result<axum::Json<OverlapObject>, ApiError> {
    let within = open(&app, &id).await?;
    see(&app, &caller, &Owned::File(query.asked.clone())).await?;
    let asked = open(&app, &query.asked).await?;
    let Some(turn) = app.checks().turn() else {
        let message = "the server is busy with checking files: ask again in some seconds";
        return Err(ApiError::new(ErrorCode::Overloaded, message));
    };
    let read = move || {
        // Held until both files are read, also where nobody waits for the answer any more.
        let _turn = turn;
        dataset::overlap(within()?, asked()?)
    };
    let failed =
        |cause: std::io::Error| ApiError::new(ErrorCode::Internal, "a file could not be read").caused_by(cause);
    let overlap = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other).flatten().map_err(failed)?;
    Ok(axum::Json(OverlapObject { object: "file.overlap", file: id, with: query.asked, overlap }))
}

/// What opens a checked file of pairs.
async fn open(
    app: &App,
    id: &FileId,
) -> Result<impl FnOnce() -> std::io::Result<PairReader<Box<dyn std::io::BufRead + Send>>> + Send + 'static, ApiError> {
    let file = app.store().file(id).await?;
    if file.purpose != FilePurpose::FineTune {
        let message = format!("the file '{id}' holds no preference pairs: its purpose is not 'fine-tune'");
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    let format = file.report.filter(|_| file.status == FileStatus::Processed).and_then(|report| report.format);
    let Some(format) = format else {
        let message = format!("the file '{id}' has not been checked, or not well: look at GET /v1/files/{id}");
        return Err(ApiError::new(ErrorCode::NotReady, message));
    };
    let path = content_path(app, id);
    Ok(move || PairReader::open(fs_err::File::open(path)?, Some(format)))
}
