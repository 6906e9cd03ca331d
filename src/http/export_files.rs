//! `/v1/exports/{export_id}/content` and `/files/{name}`: an export as a download, whole and file by file.
//!
//! Only what its run has told of is served; a name out of a request is compared with that and never made a path.

use axum::{extract::State, http::HeaderMap, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    archive::Archive,
    download::{Download, is_plain},
    error::{ApiError, ErrorCode},
    extract::{Id, Path},
};
use crate::{
    domain::{ExportFormat, ExportId, ExportRecord, ExportStatus, HashedFile},
    run_dir::RunDir,
};

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_export_content)).routes(routes!(get_export_file))
}

/// Downloads an export
///
/// A GGUF file as it is, ranges included. A directory as one tar archive, not compressed; parts of it are had file by file.
#[utoipa::path(
    get, path = "/v1/exports/{export_id}/content", tag = "exports",
    params(
        ("export_id" = String, Path, description = "The export"),
        ("range" = Option<String>, Header, description = "`bytes=FIRST-LAST`, of a GGUF file"),
    ),
    responses(
        (status = 200, description = "The GGUF file, or a tar archive of the directory", content(
            (Vec<u8> = "application/octet-stream"), (Vec<u8> = "application/x-tar"),
        )),
        (status = 206, description = "The range asked for", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "The client has it already"),
        (status = 404, description = "No such export"),
        (status = 409, description = "It is not ready: `not_ready`"),
        (status = 416, description = "The range lies outside the file"),
    )
)]
async fn get_export_content(
    State(app): State<App>,
    Id(id): Id<ExportId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Made { export, directory, mut files } = made(&app, &id).await?;
    match (export.format, files.pop()) {
        (ExportFormat::Gguf, Some(file)) => {
            let filename = format!("{}.gguf", export.name());
            download(directory, file, filename).respond(&headers).await
        }
        (_, last) => {
            let files = files.into_iter().chain(last).map(|file| (file.name, file.size_bytes)).collect();
            let modified_at = export.finished_at.unwrap_or(export.created_at);
            Archive { name: export.name(), directory, files, grows: false, modified_at, reading: None }.respond()
        }
    }
}

/// Downloads a file of an export
///
/// With its SHA-256 as `etag`; a download that broke off goes on with `range` and `if-range`.
#[utoipa::path(
    get, path = "/v1/exports/{export_id}/files/{name}", tag = "exports",
    params(
        ("export_id" = String, Path, description = "The export"),
        ("name" = String, Path, description = "The file's name as the export lists it"),
        ("range" = Option<String>, Header, description = "`bytes=FIRST-LAST`"),
    ),
    responses(
        (status = 200, description = "The file", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The range asked for", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "The client has it already"),
        (status = 404, description = "No such export or file"),
        (status = 409, description = "It is not ready: `not_ready`"),
        (status = 416, description = "The range lies outside the file"),
    )
)]
async fn get_export_file(
    State(app): State<App>,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Made { directory, files, .. } = made(&app, &id.parse()?).await?;
    let Some(file) = files.into_iter().find(|file| file.name == name) else {
        let message = format!("the export has no such file; GET /v1/exports/{id} lists what it has");
        return Err(ApiError::new(ErrorCode::FileNotFound, message));
    };
    let filename = file.name.clone();
    download(directory, file, filename).respond(&headers).await
}

/// An export as it lies on the disk.
struct Made {
    export: ExportRecord,
    directory: std::path::PathBuf,
    files: Vec<HashedFile>,
}

async fn made(app: &App, id: &ExportId) -> Result<Made, ApiError> {
    let mut export = app.store().export(id).await?;
    let (run, files) = match (export.status, &export.run_id, export.result.take()) {
        (ExportStatus::Ready, Some(run), Some(result)) => (run, result.files),
        (ExportStatus::Ready, ..) => return Err(ApiError::internal(format!("export {id} has no files of its own"))),
        (ExportStatus::Pending, ..) => {
            let message =
                format!("the export is still being written: GET /v1/exports/{id} until its status is 'ready'");
            return Err(ApiError::new(ErrorCode::NotReady, message));
        }
        (ExportStatus::Error, ..) => {
            let message = format!("the export could not be made: GET /v1/exports/{id} says why; then ask for it again");
            return Err(ApiError::new(ErrorCode::NotReady, message));
        }
    };
    if let Some(file) = files.iter().find(|file| !is_plain(&file.name)) {
        return Err(ApiError::internal(format!("export {id} has a file '{}', which is a path", file.name)));
    }
    let run = RunDir::new(app.data_dir().join("runs").join(run.as_str()));
    Ok(Made { directory: run.export_files(), files, export })
}

fn download(directory: std::path::PathBuf, file: HashedFile, filename: String) -> Download {
    Download {
        path: directory.join(&file.name),
        filename,
        content_type: "application/octet-stream",
        size_bytes: file.size_bytes,
        sha256: file.sha256,
    }
}
