//! `/v1/models/{model}/exports` and `/v1/exports`: models written for other programs.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    access::By,
    disk_room::{check_free, check_share},
    error::{ApiError, ErrorCode},
    extract::{Id, Json, Query},
    files::Deleted,
    paging::{List, PageQuery},
};
use crate::domain::{
    ExportDtype, ExportFormat, ExportId, ExportRecord, ExportStatus, Failure, HashedFile, ModelId, ModelStatus,
    WeightsFormat,
};

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_export, list_exports)).routes(routes!(get_export, delete_export))
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ExportRequest {
    /// `huggingface`: a directory of config.json, safetensors and the tokenizer. `gguf`: one file, for llama.cpp.
    format: ExportFormat,
    /// What matrices are stored as; if not given, float32 in a directory and float16 in a GGUF file. `q8_0` is a type of GGUF alone.
    #[serde(default)]
    dtype: Option<ExportDtype>,
}

/// A model, its adapters merged in, as other programs read it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct ExportObject {
    id: ExportId,
    /// `model.export`.
    #[schema(example = "model.export")]
    object: &'static str,
    model: ModelId,
    format: ExportFormat,
    dtype: ExportDtype,
    status: ExportStatus,
    /// Weights written, once their number is known.
    progress: Option<ExportProgress>,
    /// Size of all files, in bytes; null until it is ready.
    size_bytes: Option<u64>,
    /// Of a GGUF file: SHA-256 in hexadecimal, which `content` has as its `ETag`. A directory has one for each of its files.
    sha256: Option<String>,
    /// Its files by name; none until it is ready.
    files: Vec<HashedFile>,
    /// What other programs will do otherwise with it.
    warnings: Vec<String>,
    /// Why it could not be made.
    error: Option<Failure>,
    /// Unix time in seconds.
    created_at: i64,
    /// When it was ready or in error: Unix time in seconds.
    finished_at: Option<i64>,
}

/// How far an export is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct ExportProgress {
    /// Weights written.
    n_weights_done: u64,
    /// Weights in all.
    n_weights: u64,
}

impl From<ExportRecord> for ExportObject {
    fn from(export: ExportRecord) -> Self {
        let size_bytes = export.size_bytes().filter(|_| export.status == ExportStatus::Ready);
        let result = export.result.filter(|_| export.status == ExportStatus::Ready);
        let (files, warnings) = result.map_or_else(Default::default, |made| (made.files, made.warnings));
        let is_one_file = export.format == ExportFormat::Gguf;
        Self {
            id: export.id,
            object: "model.export",
            model: export.model,
            format: export.format,
            dtype: export.dtype,
            status: export.status,
            progress: export.progress.map(|(n_weights_done, n_weights)| ExportProgress { n_weights_done, n_weights }),
            size_bytes,
            sha256: files.first().filter(|_| is_one_file).map(|file| file.sha256.clone()),
            files,
            warnings,
            error: export.error,
            created_at: export.created_at,
            finished_at: export.finished_at,
        }
    }
}

/// Exports a model
///
/// The model with its adapters merged in, written in the background as other programs read it: poll the export until its status is
/// `ready` or `error`, then download it. Whoever asks for the same again gets the same export while it is pending or ready.
#[utoipa::path(
    post, path = "/v1/models/{model}/exports", tag = "exports", request_body = ExportRequest,
    params(("model" = String, Path, description = "The model's name")),
    responses(
        (status = 200, description = "The export; writing begins, or has begun before", body = ExportObject),
        (status = 400, description = "The body is not valid, the format has no such type, or the model has no weights here"),
        (status = 404, description = "No such model"),
        (status = 409, description = "The model is not ready (`not_ready`), or this user has as much on disk as one may have (`disk_limit`)"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body is not JSON"),
        (status = 507, description = "The server's disk would be too full"),
    )
)]
async fn create_export(
    State(app): State<App>,
    By(caller): By,
    Id(id): Id<ModelId>,
    Json(request): Json<ExportRequest>,
) -> Result<axum::Json<ExportObject>, ApiError> {
    let dtype = request.dtype.unwrap_or(request.format.default_dtype());
    if let Some(refusal) = request.format.refusal(dtype) {
        return Err(ApiError::invalid_at("/dtype", "conflicting_fields", refusal));
    }
    let model = app.store().model(&id).await?;
    let Some(info) = model.info.filter(|_| model.status == ModelStatus::Ready) else {
        let message = format!("the model '{id}' is not ready: look at GET /v1/models/{id}");
        return Err(ApiError::new(ErrorCode::NotReady, message));
    };
    if info.location.format.is_reference_only() {
        let message =
            format!("the model '{id}' cannot be exported: {}; export a model with weights", WeightsFormat::NOT_A_MODEL);
        return Err(ApiError::invalid_at("/model", "reference_only", message));
    }
    check_free(&app, info.size_bytes)?;
    check_share(&app, &caller).await?;
    Ok(axum::Json(app.store().insert_export(&id, request.format, dtype, caller.user.as_ref()).await?.into()))
}

/// Lists a model's exports
///
/// Newest first, whatever their status.
#[utoipa::path(
    get, path = "/v1/models/{model}/exports", tag = "exports",
    params(("model" = String, Path, description = "The model's name"), PageQuery),
    responses(
        (status = 200, description = "One page, newest first", body = List<ExportObject>),
        (status = 400, description = "A parameter is not valid, or `after` is not in the list"),
        (status = 404, description = "No such model"),
    )
)]
async fn list_exports(
    State(app): State<App>,
    Id(id): Id<ModelId>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<List<ExportObject>>, ApiError> {
    let page = app.store().exports(&id, query.after()?.as_ref(), query.limit(20)?).await?;
    Ok(axum::Json(List::of(page, |export| export.id.to_string(), ExportObject::from)))
}

/// Shows an export
///
/// Poll it until its status is `ready` or `error`.
#[utoipa::path(
    get, path = "/v1/exports/{export_id}", tag = "exports", params(("export_id" = String, Path, description = "The export")),
    responses((status = 200, description = "The export", body = ExportObject), (status = 404, description = "No such export"))
)]
async fn get_export(State(app): State<App>, Id(id): Id<ExportId>) -> Result<axum::Json<ExportObject>, ApiError> {
    Ok(axum::Json(app.store().export(&id).await?.into()))
}

/// Deletes an export
///
/// It is gone at once, and its files a moment later. One that is being written is stopped first.
#[utoipa::path(
    delete, path = "/v1/exports/{export_id}", tag = "exports", params(("export_id" = String, Path, description = "The export")),
    responses((status = 200, description = "Deleted", body = Deleted), (status = 404, description = "No such export"))
)]
async fn delete_export(State(app): State<App>, Id(id): Id<ExportId>) -> Result<axum::Json<Deleted>, ApiError> {
    app.store().delete_export(&id).await?;
    Ok(Deleted::new(id, "model.export"))
}
