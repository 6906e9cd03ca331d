//! `POST /v1/models/{model}/preview`: what a model makes of a preference pair.

use std::time::Duration;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    error::{ApiError, ErrorCode},
    extract::{Id, Json},
    inspections,
};
use crate::dataset::PairReader;
use crate::domain::{
    Failure, FailureCode, Hyperparameters, ModelId, ModelStatus, Preview, PreviewSpec, Problems, Question, Truncation,
};

/// How long a request waits for its answer.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);
/// The longest pair that is shown, in bytes.
pub(super) const MAX_PAIR_BYTES: usize = 256 << 10;

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(preview_pair))
}

/// A pair to be shown.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PreviewRequest {
    /// The pair: what a line of a dataset is, in any of its formats.
    #[schema(value_type = Object, example = json!({"prompt": "Hello?", "chosen": "Hello!", "rejected": "Go away."}))]
    pair: serde_json::Map<String, serde_json::Value>,
    /// As in a job's hyperparameters.
    #[serde(default = "default_max_length")]
    max_length: usize,
    /// As in a job's hyperparameters.
    #[serde(default)]
    truncation: Truncation,
}

/// That of a job.
fn default_max_length() -> usize {
    Hyperparameters::MAX_LENGTH
}

/// What a model makes of a pair.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct PreviewObject {
    /// `model.preview`.
    #[schema(example = "model.preview")]
    object: &'static str,
    /// The model.
    model: ModelId,
    #[serde(flatten)]
    preview: Preview,
}

/// Shows a preference pair as a model reads it
///
/// The rendered text, the tokens, and which of them are scored. Each model has its own template and tokenizer: show the same pair to a
/// job's base and to its references.
#[utoipa::path(
    post, path = "/v1/models/{model}/preview", tag = "models", request_body = PreviewRequest,
    params(("model" = String, Path, description = "The model's name")),
    responses(
        (status = 200, description = "The pair in the model's tokens", body = PreviewObject),
        (status = 400, description = "The body or the pair is not valid, or the template refuses it"),
        (status = 404, description = "No such model"),
        (status = 409, description = "The model is not ready: `not_ready`"),
        (status = 422, description = "The model's tokenizer cannot be used: `inspection_failed`"),
        (status = 504, description = "There was no answer in time: `inspection_timeout`"),
    )
)]
async fn preview_pair(
    State(app): State<App>,
    Id(id): Id<ModelId>,
    Json(request): Json<PreviewRequest>,
) -> Result<axum::Json<PreviewObject>, ApiError> {
    let pair = serde_json::Value::Object(request.pair).to_string();
    if pair.len() > MAX_PAIR_BYTES {
        let message = format!("the pair has {} bytes; at most {MAX_PAIR_BYTES} are shown", pair.len());
        return Err(ApiError::invalid_at("/pair", "out_of_range", message));
    }
    check_pair(&pair)?;
    if !(2..=1 << 20).contains(&request.max_length) {
        return Err(ApiError::invalid_at("/max_length", "out_of_range", "between 2 and 1048576"));
    }
    let model = app.store().model(&id).await?;
    let Some(info) = model.info.filter(|_| model.status == ModelStatus::Ready) else {
        let message = format!("the model '{id}' is not ready: look at GET /v1/models/{id}");
        return Err(ApiError::new(ErrorCode::NotReady, message));
    };
    let (max_length, truncation) = (request.max_length, request.truncation);
    let spec = PreviewSpec { model: id.clone(), location: info.location, pair, max_length, truncation };
    let preview = inspections::ask(&app, &Question::Preview(spec), PATIENCE, refusal).await?;
    Ok(axum::Json(PreviewObject { object: "model.preview", model: id, preview }))
}

/// Everything that is wrong with the pair as the line of a dataset.
fn check_pair(line: &str) -> Result<(), ApiError> {
    let row = PairReader::new(line.as_bytes(), None).read();
    let Some(row) = row.map_err(|e| ApiError::new(ErrorCode::Internal, "the pair cannot be read").caused_by(e))? else {
        return Err(ApiError::invalid_at("/pair", "invalid_pair", "the pair is empty"));
    };
    let Err(found) = row.pair else { return Ok(()) };
    let mut problems = Problems::default();
    for problem in found {
        problems.at("/pair", "invalid_pair", problem.message);
    }
    Err(ApiError::invalid(problems))
}

fn refusal(failure: Failure) -> ApiError {
    match failure.code {
        FailureCode::InvalidDataset => ApiError::invalid_at("/pair", "invalid_pair", failure.message),
        _ => ApiError::new(ErrorCode::InspectionFailed, failure.message),
    }
}
