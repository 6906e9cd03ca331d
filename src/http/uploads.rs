//! `/v1/uploads`: a large file in parts, which may arrive at once, in any order and again, and become a file all at once.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use axum::extract::{DefaultBodyLimit, Request, State};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    access::By,
    disk_room::Room,
    error::{ApiError, ErrorCode},
    extract::{Id, Json, content_length, refuse_body},
    file_request::{ExpiresAfter, FileRequest},
    files::content_path,
    form::{self, Shape, TempFile},
    join::{Joined, join},
    upload_object::{PartObject, UploadObject},
};
use crate::{
    domain::{
        DatasetFormat, FileId, FileRecord, FileStatus, Ownership, PartId, PartRecord, UploadId, UploadRecord,
        UploadStatus,
    },
    store::{Store, StoreError, unix_now},
};

/// The folder of parts below the data directory.
pub(super) const PARTS: &str = "uploads";
/// How many uploads are put together at once.
const MAX_AT_WORK: usize = 4;

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        // A part counts its bytes itself.
        .routes(routes!(add_upload_part))
        .layer(DefaultBodyLimit::disable())
        .routes(routes!(create_upload))
        .routes(routes!(complete_upload))
        .routes(routes!(cancel_upload))
}

/// A large file, announced.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UploadRequest {
    /// The name of the file.
    #[schema(example = "pairs.jsonl")]
    filename: String,
    /// As of `POST /v1/files`.
    #[schema(example = "fine-tune")]
    purpose: String,
    /// Its size; the parts must add up to it.
    #[schema(minimum = 1)]
    bytes: u64,
    /// Its media type. What a file holds is told from its bytes, so that this is not kept.
    mime_type: Option<String>,
    /// The format of preference pairs, as of `POST /v1/files`.
    #[schema(value_type = Option<DatasetFormat>)]
    format: Option<String>,
    /// When the file is deleted by itself.
    expires_after: Option<ExpiresAfter>,
}

/// The form of a part.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the form in the API document; it is read part by part")]
struct PartForm {
    /// The bytes, 64 MiB at most.
    #[schema(value_type = String, format = Binary)]
    data: Vec<u8>,
}

/// The form of a part, for its reader.
const PART: Shape = Shape {
    file: "data",
    texts: &[],
    curl: "-F data=@part",
    way_out: "send more and smaller parts, no more in all than was announced",
};

/// What an upload is made of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CompletionRequest {
    /// The parts, in the order of the file.
    part_ids: Vec<String>,
    /// MD5 of the file, in hexadecimal: it is refused if its bytes are not these.
    md5: Option<String>,
}

/// Begins an upload in parts
///
/// It has an hour; then whatever has arrived is removed. `POST …/parts` adds parts, `POST …/complete` makes a file of them.
#[utoipa::path(
    post, path = "/v1/uploads", tag = "files", request_body = UploadRequest,
    responses(
        (status = 200, description = "The upload", body = UploadObject),
        (status = 400, description = "The body is not valid"),
        (status = 409, description = "Too many uploads are under way (`too_many`), or this user has as much on disk as one may have (`disk_limit`)"),
        (status = 413, description = "The file is larger than this server allows"),
        (status = 507, description = "The server's disk would be too full"),
    )
)]
async fn create_upload(
    State(app): State<App>,
    By(caller): By,
    Json(request): Json<UploadRequest>,
) -> Result<axum::Json<UploadObject>, ApiError> {
    let max_bytes = app.settings().max_upload_bytes;
    if request.bytes > max_bytes {
        let message = format!(
            "a file has at most {max_bytes} bytes here: split it, or start the server with a larger --max-upload-bytes"
        );
        return Err(ApiError::new(ErrorCode::BodyTooLarge, message).param("bytes"));
    }
    if request.bytes == 0 {
        return Err(ApiError::invalid_at("/bytes", "out_of_range", "a file has at least one byte"));
    }
    for (field, text) in [("filename", Some(&request.filename)), ("mime_type", request.mime_type.as_ref())] {
        if text.is_some_and(|text| text.chars().count() > form::MAX_NAME_CHARS) {
            let message = format!("{field} has at most {} characters", form::MAX_NAME_CHARS);
            return Err(ApiError::invalid_at(&format!("/{field}"), "too_long", message));
        }
    }
    let filename = form::clean_name(&request.filename);
    if filename.is_empty() {
        return Err(ApiError::invalid_at("/filename", "missing_filename", "the file has no name"));
    }
    let file = FileRequest::new(&request.purpose, request.format.as_deref(), request.expires_after.as_ref())?;
    // Kept until the row is there, which then counts.
    let _room = Room::ask(&app, &caller, request.bytes).await?;
    let created_at = unix_now();
    let upload = UploadRecord {
        id: UploadId::new(),
        filename,
        purpose: file.purpose,
        format: file.format,
        size_bytes: request.bytes,
        file_kept_for_s: file.kept_for_s,
        status: UploadStatus::Pending,
        part_ids: Vec::new(),
        file: None,
        created_at,
        expires_at: created_at + UploadRecord::MAX_SECONDS,
        ownership: Ownership::of(&caller, false),
    };
    app.store().insert_upload(&upload).await?;
    Ok(axum::Json(UploadObject::new(upload, None)))
}

/// Adds a part to an upload
///
/// Parts may arrive at once and in any order, and one may be sent again: only those count that the completion names.
#[utoipa::path(
    post, path = "/v1/uploads/{upload_id}/parts", tag = "files",
    params(("upload_id" = String, Path, description = "The upload")),
    request_body(content = PartForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The part", body = PartObject),
        (status = 400, description = "The form is malformed or has no part `data`"),
        (status = 404, description = "No such upload"),
        (status = 408, description = "The body stopped arriving"),
        (status = 409, description = "The upload has ended (`upload_ended`), or has no room for it (`too_many`)"),
        (status = 413, description = "The part is too large"),
        (status = 415, description = "The body is not a multipart form"),
        (status = 507, description = "The server's disk is full, or would be too full; nothing was kept"),
    )
)]
async fn add_upload_part(
    State(app): State<App>,
    Id(id): Id<UploadId>,
    req: Request,
) -> Result<axum::Json<PartObject>, ApiError> {
    let upload = app.store().upload(&id, unix_now()).await?;
    // Whose it is has had the whole upload counted since it was announced.
    let mut room = match Room::on_disk(&app, content_length(req.headers()).unwrap_or(1)) {
        Ok(room) => room,
        Err(refusal) => {
            refuse_body(req).await;
            return Err(refusal);
        }
    };
    let max_bytes = UploadRecord::MAX_PART_BYTES.min(upload.size_bytes);
    let form = form::receive(req, &PART, app.temp_file(), max_bytes, &mut room).await?;
    let part = PartRecord {
        id: PartId::new(),
        upload_id: id,
        size_bytes: form.size_bytes,
        sha256: form.sha256,
        created_at: unix_now(),
    };
    let path = part_path(&app, &part.id);
    form.content.keep(&path)?;
    // The row comes last, as that of a file; what a crash leaves in between goes at the next start.
    if let Err(e) = app.store().insert_part(&part).await {
        let _ = tokio::fs::remove_file(&path).await;
        return Err(e.into());
    }
    Ok(axum::Json(part.into()))
}

/// Makes a file of an upload's parts
///
/// All of it or nothing: until this answers there is no file. Then the file is checked like any other. Sent again with the same parts it
/// gives the same answer.
#[utoipa::path(
    post, path = "/v1/uploads/{upload_id}/complete", tag = "files", request_body = CompletionRequest,
    params(("upload_id" = String, Path, description = "The upload")),
    responses(
        (status = 200, description = "The upload with its file, whose check has begun", body = UploadObject),
        (status = 400, description = "A part is unknown, or size or digest are not those announced"),
        (status = 404, description = "No such upload"),
        (status = 409, description = "The upload has ended (`upload_ended`), or is being completed (`in_progress`)"),
        (status = 507, description = "The server's disk is full, or would be too full; nothing was kept"),
    )
)]
async fn complete_upload(
    State(app): State<App>,
    Id(id): Id<UploadId>,
    Json(request): Json<CompletionRequest>,
) -> Result<axum::Json<UploadObject>, ApiError> {
    // On its own: a client that gives up on a large file and asks again finds it done.
    let done = tokio::spawn(async move { complete(&app, &id, &request).await });
    done.await.map_err(ApiError::internal)?.map(axum::Json)
}

async fn complete(app: &App, id: &UploadId, request: &CompletionRequest) -> Result<UploadObject, ApiError> {
    let _turn = app.uploads_at_work().begin(id)?;
    let upload = app.store().upload(id, unix_now()).await?;
    if upload.status == UploadStatus::Completed && upload.part_ids.iter().map(PartId::as_str).eq(&request.part_ids) {
        return shown(app, upload).await;
    }
    if upload.status != UploadStatus::Pending {
        return Err(StoreError::UploadEnded { id: id.to_string(), status: in_a_word(upload.status).to_owned() }.into());
    }
    let parts = ordered(app.store().upload_parts(id).await?, &request.part_ids)?;
    let n_bytes: u64 = parts.iter().map(|part| part.size_bytes).sum();
    if n_bytes != upload.size_bytes {
        let announced = upload.size_bytes;
        let message = format!("the parts have {n_bytes} bytes, announced were {announced}: add what is missing");
        return Err(ApiError::invalid_at("/part_ids", "wrong_size", message));
    }
    let _room = Room::on_disk(app, n_bytes)?;
    let paths: Vec<(PathBuf, u64)> = parts.iter().map(|part| (part_path(app, &part.id), part.size_bytes)).collect();
    let (content, with_md5) = (TempFile::at(app.temp_file()), request.md5.is_some());
    let joined = tokio::task::spawn_blocking(move || join(&paths, content, with_md5)).await;
    let Joined { content, sha256, md5 } = joined.map_err(ApiError::internal)??;
    if request.md5.as_ref().is_some_and(|wanted| md5.as_ref().is_none_or(|md5| !md5.eq_ignore_ascii_case(wanted))) {
        let message = "the parts do not have this MD5: is their order that of the file? Send damaged ones again";
        return Err(ApiError::invalid_at("/md5", "wrong_digest", message));
    }
    let created_at = unix_now();
    let file = FileRecord {
        id: FileId::new(),
        filename: upload.filename,
        purpose: upload.purpose,
        size_bytes: upload.size_bytes,
        sha256,
        format: upload.format,
        status: FileStatus::Uploaded,
        report: None,
        created_at,
        expires_at: upload.file_kept_for_s.map(|seconds| created_at + seconds as i64),
        job_id: None,
        // Also where an admin completes it for its owner.
        ownership: upload.ownership,
    };
    let path = content_path(app, &file.id);
    content.keep(&path)?;
    let part_ids: Vec<PartId> = parts.into_iter().map(|part| part.id).collect();
    if let Err(e) = app.store().complete_upload(id, &part_ids, &file).await {
        let _ = tokio::fs::remove_file(&path).await;
        return Err(e.into());
    }
    app.checks().begin(&file);
    shown(app, app.store().upload(id, created_at).await?).await
}

/// An upload with the file it has become, if that is still there.
async fn shown(app: &App, upload: UploadRecord) -> Result<UploadObject, ApiError> {
    let file = match &upload.file {
        None => None,
        Some(id) => match app.store().file(id).await {
            Ok(file) => Some(file),
            Err(StoreError::NotFound { .. }) => None,
            Err(e) => return Err(e.into()),
        },
    };
    Ok(UploadObject::new(upload, file))
}

/// The parts that were named, in that order.
fn ordered(parts: Vec<PartRecord>, named: &[String]) -> Result<Vec<PartRecord>, ApiError> {
    let mut left: std::collections::HashMap<String, PartRecord> =
        parts.into_iter().map(|part| (part.id.to_string(), part)).collect();
    let take = |(i, name): (usize, &String)| {
        left.remove(name).ok_or_else(|| {
            let shown: String = name.chars().take(80).collect();
            let message = format!("this upload has no part '{shown}', or it is named twice: name each part once");
            ApiError::invalid_at(&format!("/part_ids/{i}"), "part_not_found", message)
        })
    };
    named.iter().enumerate().map(take).collect()
}

fn in_a_word(status: UploadStatus) -> &'static str {
    match status {
        UploadStatus::Pending => "pending",
        UploadStatus::Completed => "completed",
        UploadStatus::Cancelled => "cancelled",
        UploadStatus::Expired => "expired",
    }
}

/// Gives an upload up
///
/// Its parts are removed. A body is neither needed nor read.
#[utoipa::path(
    post, path = "/v1/uploads/{upload_id}/cancel", tag = "files",
    params(("upload_id" = String, Path, description = "The upload")),
    responses(
        (status = 200, description = "The upload", body = UploadObject),
        (status = 404, description = "No such upload"),
        (status = 409, description = "It is completed or expired: `upload_ended`"),
    )
)]
async fn cancel_upload(State(app): State<App>, Id(id): Id<UploadId>) -> Result<axum::Json<UploadObject>, ApiError> {
    let upload = app.store().cancel_upload(&id, unix_now()).await?;
    Ok(axum::Json(UploadObject::new(upload, None)))
}

fn part_path(app: &App, id: &PartId) -> PathBuf {
    app.data_dir().join(PARTS).join(id.as_str())
}

/// Makes the folder of parts, and removes those from it that a crash has left without a row.
pub(super) async fn clear_orphans(store: &Store, directory: &Path) -> anyhow::Result<()> {
    fs_err::create_dir_all(directory)?;
    for entry in fs_err::read_dir(directory)? {
        let entry = entry?;
        let Ok(id) = entry.file_name().to_string_lossy().parse::<PartId>() else { continue };
        if !store.has_part(&id).await? {
            fs_err::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The uploads that are being put together: each once at a time, and not too many at once.
#[derive(Debug, Default)]
pub(super) struct AtWork(std::sync::Arc<Mutex<HashSet<UploadId>>>);

/// The right to put an upload together; it ends with this.
#[derive(Debug)]
struct Turn {
    at_work: std::sync::Arc<Mutex<HashSet<UploadId>>>,
    id: UploadId,
}

impl AtWork {
    fn begin(&self, id: &UploadId) -> Result<Turn, ApiError> {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.contains(id) {
            let message = "this upload is being completed: ask again in a moment";
            return Err(ApiError::new(ErrorCode::InProgress, message));
        }
        if ids.len() >= MAX_AT_WORK {
            let message = "several uploads are being completed: ask again in a moment";
            return Err(ApiError::new(ErrorCode::Overloaded, message));
        }
        ids.insert(id.clone());
        Ok(Turn { at_work: self.0.clone(), id: id.clone() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
