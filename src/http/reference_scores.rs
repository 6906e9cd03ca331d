//! `/v1/reference_scores`: what is kept of the references' log-probabilities, and its deletion.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    access::{By, change, see},
    error::ApiError,
    extract::Query,
    paging::{self, List, MAX_PAGE},
};
use crate::{
    domain::{FileId, ModelId, ScorePrecision},
    store::{KeptDataset, KeptScores, Owned},
};

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_reference_scores, delete_reference_scores))
}

/// The scores kept of one reference in one precision. A score is the log-probability of one completion; it outlives the job
/// that computed it, and the next job on the same text is handed it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct ReferenceScoresObject {
    /// `reference` and `precision`.
    id: String,
    /// `reference_scores`.
    #[schema(example = "reference_scores")]
    object: &'static str,
    /// SHA-256 over the model's files.
    reference: String,
    precision: ScorePrecision,
    /// The models with these files, newest first, at most 20.
    models: Vec<ModelId>,
    /// How many scores there are.
    n_scores: u64,
    /// How many scores jobs were handed instead of computing them.
    n_hits: u64,
    /// When a job last used them: Unix time in seconds.
    last_used_at: Option<i64>,
    /// How many training files they belong to; files of the same content are one.
    n_datasets: u64,
    /// The newest 20 of these.
    datasets: Vec<DatasetScores>,
}

/// The scores that the jobs on one training file have used.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct DatasetScores {
    /// SHA-256 of the training file.
    sha256: String,
    /// Completions of it, and of the held-out pairs its jobs had.
    n_rows: u64,
    /// The uploads with this content, newest first, at most 20; none where all have been deleted.
    files: Vec<NamedFile>,
}

/// An uploaded file.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct NamedFile {
    id: FileId,
    /// The name it was uploaded under.
    filename: String,
}

impl From<KeptScores> for ReferenceScoresObject {
    fn from(kept: KeptScores) -> Self {
        let of_dataset = |KeptDataset { sha256, n_rows, files }: KeptDataset| {
            let files = files.into_iter().map(|(id, filename)| NamedFile { id, filename }).collect();
            DatasetScores { sha256, n_rows, files }
        };
        Self {
            id: kept.key.to_string(),
            object: "reference_scores",
            reference: kept.key.digest,
            precision: kept.key.precision,
            models: kept.models,
            n_scores: kept.n_scores,
            n_hits: kept.n_hits,
            last_used_at: kept.last_used_at,
            n_datasets: kept.n_datasets,
            datasets: kept.datasets.into_iter().map(of_dataset).collect(),
        }
    }
}

/// Which kept scores.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ScoresQuery {
    /// Only those of this model.
    #[param(value_type = Option<ModelId>)]
    model: Option<String>,
    /// The id of the last item of the page before.
    after: Option<String>,
    /// How many items at most, 1 to 100.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
}

/// Whose scores to delete.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeletionQuery {
    /// The model.
    #[param(value_type = ModelId)]
    model: String,
}

/// Scores that were deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct DeletedScores {
    /// `reference_scores`.
    #[schema(example = "reference_scores")]
    object: &'static str,
    /// `true`.
    #[schema(example = true)]
    deleted: bool,
    model: ModelId,
    /// How many there were.
    n_scores: u64,
}

/// Lists what is kept of the references' scores
///
/// Newest reference first.
#[utoipa::path(
    get, path = "/v1/reference_scores", tag = "reference scores", params(ScoresQuery),
    responses(
        (status = 200, description = "One page", body = List<ReferenceScoresObject>),
        (status = 400, description = "A parameter is not valid, or `after` is not in the list"),
        (status = 404, description = "No such model: `model_not_found`"),
    )
)]
async fn list_reference_scores(
    State(app): State<App>,
    By(caller): By,
    Query(query): Query<ScoresQuery>,
) -> Result<axum::Json<List<ReferenceScoresObject>>, ApiError> {
    let model: Option<ModelId> = query.model.as_deref().map(str::parse).transpose()?;
    let after = query.after.as_deref();
    let after = after.map(|text| text.parse().map_err(|_| paging::unknown_cursor(text))).transpose()?;
    let limit = paging::limit(query.limit, 20, MAX_PAGE)?;
    if let Some(model) = &model {
        see(&app, &caller, &Owned::Model(model.clone())).await?;
    }
    let page = app.store().kept_scores(&caller.viewer(), model.as_ref(), after.as_ref(), limit).await?;
    Ok(axum::Json(List::of(page, |kept| kept.key.to_string(), ReferenceScoresObject::from)))
}

/// Deletes the scores kept for a model
///
/// In every precision, and for every other model with the same files. It does no harm to jobs: one that has begun has its own
/// copy of what was known, and keeps what it computes; one that begins later computes what it misses.
#[utoipa::path(
    delete, path = "/v1/reference_scores", tag = "reference scores", params(DeletionQuery),
    responses(
        (status = 200, description = "Deleted", body = DeletedScores),
        (status = 400, description = "The parameter `model` is missing"),
        (status = 404, description = "No such model: `model_not_found`"),
    )
)]
async fn delete_reference_scores(
    State(app): State<App>,
    By(caller): By,
    Query(query): Query<DeletionQuery>,
) -> Result<axum::Json<DeletedScores>, ApiError> {
    let model: ModelId = query.model.parse()?;
    change(&app, &caller, &Owned::Model(model.clone())).await?;
    let n_scores = app.store().delete_scores(&model).await?;
    Ok(axum::Json(DeletedScores { object: "reference_scores", deleted: true, model, n_scores }))
}
