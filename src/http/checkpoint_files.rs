//! `.../checkpoints/{checkpoint_id}/files` and `/archive`: a checkpoint's files, one by one and all in one.
//!
//! Only what the checkpoint's manifest names is served; a name out of a request is compared with it and never made a path.

use std::{io, path::PathBuf};

use axum::{extract::State, http::HeaderMap, response::Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    archive::Archive,
    download::{Download, is_plain},
    error::{ApiError, ErrorCode},
    extract::Path,
    paging::List,
};
use crate::{
    domain::{CheckpointId, HashedFile, JobId},
    run_dir::{CheckpointManifest, Reading, RunDir, read_json},
    store::{Checkpoint, Page},
};

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_checkpoint_files))
        .routes(routes!(get_checkpoint_file))
        .routes(routes!(get_checkpoint_archive))
}

/// One file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct CheckpointFileObject {
    /// `fine_tuning.job.checkpoint.file`.
    #[schema(example = "fine_tuning.job.checkpoint.file")]
    object: &'static str,
    /// Its name, also in the address it is downloaded from.
    #[schema(example = "adapter_model.safetensors")]
    name: String,
    /// Size in bytes.
    bytes: u64,
    /// SHA-256 in hexadecimal; its `ETag` is the same.
    sha256: String,
}

/// Lists a checkpoint's files
///
/// With their sizes and digests.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{job_id}/checkpoints/{checkpoint_id}/files", tag = "checkpoints",
    params(("job_id" = String, Path, description = "The job"), ("checkpoint_id" = String, Path, description = "The checkpoint")),
    responses(
        (status = 200, description = "All of them, by name", body = List<CheckpointFileObject>),
        (status = 404, description = "No such checkpoint"),
    )
)]
async fn list_checkpoint_files(
    State(app): State<App>,
    Path((job, id)): Path<(String, String)>,
) -> Result<axum::Json<List<CheckpointFileObject>>, ApiError> {
    let Saved { manifest, .. } = saved(&app, &job.parse()?, &id.parse()?).await?;
    let page = Page { items: manifest.files, has_more: false };
    Ok(axum::Json(List::of(
        page,
        |file| file.name.clone(),
        |file| CheckpointFileObject {
            object: "fine_tuning.job.checkpoint.file",
            name: file.name,
            bytes: file.size_bytes,
            sha256: file.sha256,
        },
    )))
}

/// Downloads one file of a checkpoint
///
/// With its SHA-256 as `etag`; a download that broke off goes on with `range` and `if-range`.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{job_id}/checkpoints/{checkpoint_id}/files/{name}", tag = "checkpoints",
    params(
        ("job_id" = String, Path, description = "The job"),
        ("checkpoint_id" = String, Path, description = "The checkpoint"),
        ("name" = String, Path, description = "The file's name as it is listed"),
        ("range" = Option<String>, Header, description = "`bytes=FIRST-LAST`"),
    ),
    responses(
        (status = 200, description = "The file", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The range asked for", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "The client has it already"),
        (status = 404, description = "No such checkpoint or file"),
        (status = 416, description = "The range lies outside the file"),
    )
)]
async fn get_checkpoint_file(
    State(app): State<App>,
    Path((job, id, name)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Saved { directory, manifest, reading: _reading, .. } = saved(&app, &job.parse()?, &id.parse()?).await?;
    let Some(file) = manifest.files.into_iter().find(|file| file.name == name) else {
        let message = "the checkpoint has no such file; GET .../files lists what it has";
        return Err(ApiError::new(ErrorCode::FileNotFound, message));
    };
    let download = Download {
        path: directory.join(&file.name),
        filename: file.name,
        content_type: "application/octet-stream",
        size_bytes: file.size_bytes,
        sha256: file.sha256,
    };
    download.respond(&headers).await
}

/// Downloads a checkpoint as one tar archive
///
/// Not compressed, in a folder of its step; PEFT loads what is in it.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{job_id}/checkpoints/{checkpoint_id}/archive", tag = "checkpoints",
    params(("job_id" = String, Path, description = "The job"), ("checkpoint_id" = String, Path, description = "The checkpoint")),
    responses(
        (status = 200, description = "All files and the manifest", body = Vec<u8>, content_type = "application/x-tar"),
        (status = 404, description = "No such checkpoint"),
    )
)]
async fn get_checkpoint_archive(
    State(app): State<App>,
    Path((job, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let Saved { checkpoint, directory, manifest, reading } = saved(&app, &job.parse()?, &id.parse()?).await?;
    let manifest_bytes = tokio::fs::metadata(directory.join(RunDir::MANIFEST)).await?.len();
    let mut files: Vec<_> = manifest.files.into_iter().map(|file| (file.name, file.size_bytes)).collect();
    files.push((RunDir::MANIFEST.to_owned(), manifest_bytes));
    let name = RunDir::checkpoint_name(checkpoint.step);
    Archive { name, directory, files, grows: false, modified_at: checkpoint.created_at, reading: Some(reading) }
        .respond()
}

/// A checkpoint as it lies on the disk.
struct Saved {
    checkpoint: Checkpoint,
    directory: PathBuf,
    manifest: CheckpointManifest,
    /// Nothing of it is removed until this is dropped.
    reading: Reading,
}

async fn saved(app: &App, job: &JobId, id: &CheckpointId) -> Result<Saved, ApiError> {
    let run_id = app.store().job(job).await?.run_id;
    let checkpoint = app.store().checkpoint(job, id).await?;
    let Some(run_id) = run_id.filter(|_| is_plain(&checkpoint.directory)) else {
        return Err(ApiError::internal(format!("checkpoint {id} has no directory of its own")));
    };
    let run = RunDir::new(app.data_dir().join("runs").join(run_id.as_str()));
    let directory = run.checkpoints().join(&checkpoint.directory);
    let (home, path) = (directory.clone(), directory.join(RunDir::MANIFEST));
    let read = tokio::task::spawn_blocking(move || {
        let reading = Reading::begin(&home)?;
        read_json::<CheckpointManifest>(&path).map(|manifest| (manifest, reading))
    });
    let (manifest, reading) = match read.await.map_err(ApiError::internal)? {
        Ok(read) => read,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let message = format!("the files of checkpoint '{id}' are no longer on this server");
            return Err(ApiError::new(ErrorCode::CheckpointNotFound, message).caused_by(e));
        }
        Err(e) => return Err(e.into()),
    };
    if let Some(HashedFile { name, .. }) = manifest.files.iter().find(|file| !is_plain(&file.name)) {
        return Err(ApiError::internal(format!("the manifest of checkpoint {id} names '{name}', which is a path")));
    }
    Ok(Saved { checkpoint, directory, manifest, reading })
}
