//! `/v1/fine_tuning/jobs/{job_id}/events`: what a job has said so far.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    error::ApiError,
    extract::{Id, Query},
    paging::{List, PageQuery},
};
use crate::{
    domain::{EventId, JobId, Level},
    store::{EventKind, JobEvent},
};

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_job_events))
}

/// One line of a job's history.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct JobEventObject {
    id: EventId,
    /// `fine_tuning.job.event`.
    #[schema(example = "fine_tuning.job.event")]
    object: &'static str,
    /// Unix time in seconds.
    created_at: i64,
    level: Level,
    /// For people.
    message: String,
    /// What it is about.
    r#type: JobEventType,
    /// For programs; for `metrics`, the metrics by name.
    #[schema(value_type = Option<Object>)]
    data: Option<serde_json::Value>,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum JobEventType {
    /// A line for people.
    Message,
    /// Metrics of a step.
    Metrics,
}

impl From<JobEvent> for JobEventObject {
    fn from(event: JobEvent) -> Self {
        Self {
            id: event.id,
            object: "fine_tuning.job.event",
            created_at: event.created_at,
            level: event.level,
            message: event.message,
            r#type: match event.kind {
                EventKind::Message => JobEventType::Message,
                EventKind::Metrics => JobEventType::Metrics,
            },
            data: event.data,
        }
    }
}

/// Lists a job's events
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{job_id}/events", tag = "fine-tuning jobs",
    params(("job_id" = String, Path, description = "The job"), PageQuery),
    responses(
        (status = 200, description = "One page, newest first; 20 by default", body = List<JobEventObject>),
        (status = 400, description = "A parameter is not valid, or `after` is not in the list"),
        (status = 404, description = "No such job"),
    )
)]
async fn list_job_events(
    State(app): State<App>,
    Id(id): Id<JobId>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<List<JobEventObject>>, ApiError> {
    let page = app.store().events(&id, query.after()?.as_ref(), query.limit(20)?).await?;
    Ok(axum::Json(List::of(page, |event| event.id.to_string(), JobEventObject::from)))
}
