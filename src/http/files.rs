//! `/v1/files`: preference data and scores made elsewhere, uploaded, checked line by line, and served back as they came.

use axum::{
    extract::{DefaultBodyLimit, Request, State},
    http::HeaderMap,
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    access::By,
    disk_room::Room,
    download::Download,
    error::ApiError,
    extract::{Id, Query, refuse_body},
    file_object::FileObject,
    file_request::{self, FileRequest},
    form::{self, Shape},
    paging::{self, List},
};
use crate::{
    domain::{DatasetFormat, FileId, FilePurpose, FileRecord, FileStatus, Ownership},
    store::{FileQuery, unix_now},
};

/// The longest page of files; also the default, as on OpenAI's wire.
pub(super) const MAX_FILES: usize = 10_000;

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        // The upload counts its bytes itself, against the configured limit.
        .routes(routes!(upload_file))
        .layer(DefaultBodyLimit::disable())
        .routes(routes!(list_files))
        .routes(routes!(get_file, delete_file))
        .routes(routes!(get_file_content))
}

/// The form of an upload.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the form in the API document; it is read part by part")]
struct UploadForm {
    /// The file. Preference pairs: JSON Lines, a JSON list, CSV or Parquet, all but the last perhaps packed with gzip or
    /// Zstandard. Scores: JSON Lines.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// `fine-tune` for preference pairs, `reference-scores` for log-probabilities made elsewhere.
    #[schema(example = "fine-tune")]
    purpose: String,
    /// The format of preference pairs; left out, it is told from the first row that fits one. The file is checked in it, and
    /// jobs read it so.
    format: Option<DatasetFormat>,
    /// `created_at`: from when `expires_after[seconds]` counts.
    #[schema(rename = "expires_after[anchor]", example = "created_at")]
    expires_after_anchor: Option<String>,
    /// After how many seconds the file is deleted, 3600 to 2592000; never, if left out. A file that a job still needs is kept until
    /// the job's end.
    #[schema(rename = "expires_after[seconds]", minimum = 3600, maximum = 2_592_000)]
    expires_after_seconds: Option<u64>,
}

/// The form of an upload, for its reader.
const UPLOAD: Shape = Shape {
    file: "file",
    texts: &["purpose", "format", file_request::ANCHOR, file_request::SECONDS],
    curl: "-F purpose=fine-tune -F file=@pairs.jsonl",
    way_out: "split it, or start the server with a larger --max-upload-bytes",
};

/// Which files.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct FilesQuery {
    /// Only those for this purpose.
    purpose: Option<FilePurpose>,
    /// The id of the last file of the page before.
    after: Option<String>,
    /// How many at most, 1 to 10000 (the default).
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<usize>,
    /// By time of upload; newest first (`desc`) by default.
    #[param(inline)]
    order: Option<Order>,
}

/// Direction of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// Oldest first.
    Asc,
    /// Newest first.
    Desc,
}

/// What was deleted.
#[expect(clippy::struct_field_names, reason = "the field's name is the wire's")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Deleted {
    /// Its id.
    pub(super) id: String,
    /// What it was.
    #[schema(example = "file")]
    pub(super) object: &'static str,
    /// `true`.
    #[schema(example = true)]
    pub(super) deleted: bool,
}

impl Deleted {
    /// The answer to a deletion.
    pub(super) fn new(id: impl Into<String>, object: &'static str) -> axum::Json<Self> {
        axum::Json(Self { id: id.into(), object, deleted: true })
    }
}

/// Uploads a file of preference pairs, or of scores made elsewhere
///
/// Streamed to disk and kept as it came; then checked in the background: poll the file until its status is `processed` or `error`.
#[utoipa::path(
    post, path = "/v1/files", tag = "files",
    request_body(content = UploadForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "Stored; its check has begun", body = FileObject),
        (status = 400, description = "The form is malformed, or a part is missing or not valid"),
        (status = 408, description = "The body stopped arriving"),
        (status = 409, description = "This user has as much on disk as one may have: `disk_limit`"),
        (status = 413, description = "The file is larger than this server allows"),
        (status = 415, description = "The body is not a multipart form"),
        (status = 507, description = "The server's disk is full, or would be too full; nothing was kept"),
    )
)]
async fn upload_file(State(app): State<App>, By(caller): By, req: Request) -> Result<axum::Json<FileObject>, ApiError> {
    let mut room = match Room::for_form(&app, &caller, req.headers()).await {
        Ok(room) => room,
        Err(refusal) => {
            refuse_body(req).await;
            return Err(refusal);
        }
    };
    let max_bytes = room.at_most(req.headers(), app.settings().max_upload_bytes);
    let form = form::receive(req, &UPLOAD, app.temp_file(), max_bytes, &mut room).await?;
    if form.filename.is_empty() {
        return Err(ApiError::invalid_at("/file", "missing_filename", "the part 'file' has no file name"));
    }
    let request = FileRequest::of_form(&form)?;
    // Kept until the row is there, which then counts.
    room.resize(&app, form.size_bytes).await?;
    let created_at = unix_now();
    let record = FileRecord {
        id: FileId::new(),
        filename: form.filename,
        purpose: request.purpose,
        size_bytes: form.size_bytes,
        sha256: form.sha256,
        format: request.format,
        status: FileStatus::Uploaded,
        report: None,
        created_at,
        expires_at: request.kept_for_s.map(|seconds| created_at + seconds as i64),
        job_id: None,
        ownership: Ownership::of(&caller, false),
    };
    let path = content_path(&app, &record.id);
    form.content.keep(&path)?;
    // The row comes last: a file without a row is invisible, a row without a file would be a lie.
    if let Err(e) = app.store().insert_file(&record).await {
        let _ = tokio::fs::remove_file(&path).await;
        return Err(e.into());
    }
    app.checks().begin(&record);
    Ok(axum::Json(record.into()))
}

/// Where a file's content lies.
pub(super) fn content_path(app: &App, id: &FileId) -> std::path::PathBuf {
    app.data_dir().join("files").join(id.as_str())
}

/// Lists the files
///
/// One's own, those that are shared and the team's.
#[utoipa::path(
    get, path = "/v1/files", tag = "files", params(FilesQuery),
    responses(
        (status = 200, description = "One page", body = List<FileObject>),
        (status = 400, description = "A parameter is not valid, or `after` is not in the list"),
    )
)]
async fn list_files(
    State(app): State<App>,
    By(caller): By,
    Query(query): Query<FilesQuery>,
) -> Result<axum::Json<List<FileObject>>, ApiError> {
    let after = query.after.as_deref();
    let page = app
        .store()
        .files(&FileQuery {
            viewer: caller.viewer(),
            purpose: query.purpose,
            after: after.map(|text| text.parse().map_err(|_| paging::unknown_cursor(text))).transpose()?,
            limit: paging::limit(query.limit, MAX_FILES, MAX_FILES)?,
            ascending: query.order == Some(Order::Asc),
        })
        .await?;
    Ok(axum::Json(List::of(page, |file| file.id.to_string(), FileObject::in_a_list)))
}

/// Shows a file and what its check found
///
/// Poll it until its status is `processed` or `error`; `report` lists what is wrong, by line.
#[utoipa::path(
    get, path = "/v1/files/{file_id}", tag = "files", params(("file_id" = String, Path, description = "The file")),
    responses((status = 200, description = "The file", body = FileObject), (status = 404, description = "No such file"))
)]
async fn get_file(State(app): State<App>, Id(id): Id<FileId>) -> Result<axum::Json<FileObject>, ApiError> {
    Ok(axum::Json(app.store().file(&id).await?.into()))
}

/// Deletes a file
///
/// It is gone at once. Jobs that have ended keep what they made of it.
#[utoipa::path(
    delete, path = "/v1/files/{file_id}", tag = "files", params(("file_id" = String, Path, description = "The file")),
    responses(
        (status = 200, description = "Deleted", body = Deleted),
        (status = 404, description = "No such file"),
        (status = 409, description = "A job that has not ended reads it: `in_use`"),
    )
)]
async fn delete_file(State(app): State<App>, Id(id): Id<FileId>) -> Result<axum::Json<Deleted>, ApiError> {
    app.store().delete_file(&id).await?;
    if let Err(e) = tokio::fs::remove_file(content_path(&app, &id)).await {
        tracing::warn!(%id, cause = %e, "the content of a deleted file stays behind");
    }
    Ok(Deleted::new(id, "file"))
}

/// Downloads a file as it was uploaded
///
/// With its SHA-256 as `etag`; a download that broke off goes on with `range` and `if-range`.
#[utoipa::path(
    get, path = "/v1/files/{file_id}/content", tag = "files",
    params(("file_id" = String, Path, description = "The file"), ("range" = Option<String>, Header, description = "`bytes=FIRST-LAST`")),
    responses(
        (status = 200, description = "The content", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The range asked for", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "The client has it already"),
        (status = 404, description = "No such file"),
        (status = 416, description = "The range lies outside the file"),
    )
)]
async fn get_file_content(
    State(app): State<App>,
    Id(id): Id<FileId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let file = app.store().file(&id).await?;
    let download = Download {
        path: content_path(&app, &file.id),
        filename: file.filename,
        content_type: "application/octet-stream",
        size_bytes: file.size_bytes,
        sha256: file.sha256,
    };
    download.respond(&headers).await
}
