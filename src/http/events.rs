//! `/v1/fine_tuning/jobs/{job_id}/events`: what a job has said so far, and goes on saying; `/v1/events`: what all jobs say.

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoParams, ToSchema,
    openapi::{ObjectBuilder, schema::Type},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    access::{By, MAX_KEY_BYTES},
    error::{ApiError, ErrorCode},
    event_stream::{self, Asked},
    extract::{Id, Query},
    frame::{StreamFormat, StreamFrame},
    paging::{List, MAX_CURSOR_CHARS, PageQuery, unknown_cursor},
};
use crate::{
    domain::{EventId, JobId, Level},
    store::{EventKind, JobEvent},
};

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_job_events)).routes(routes!(stream_events))
}

/// One line of a job's history.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct JobEventObject {
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

/// Which events, and how.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// Of a list: the id of the last event of the page before. Of a stream: the id of the last event one has, to go on from there; the header
    /// `Last-Event-ID` counts before it.
    after: Option<String>,
    /// Of a list: how many at most, 1 to 100; 20 by default.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
    /// Whether to stream; without it the header `Accept: text/event-stream` says so.
    stream: Option<bool>,
    /// Of a stream: what its frames are like; `named` by default.
    #[param(inline)]
    format: Option<StreamFormat>,
    /// Of a stream: a token of `POST /v1/stream_tokens`, in place of a key.
    token: Option<String>,
}

/// Of all jobs: from where, and how.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LiveQuery {
    /// The id of the last event one has, to go on from there; the header `Last-Event-ID` counts before it.
    after: Option<String>,
    #[param(schema_with = always)]
    stream: Option<bool>,
    /// What its frames are like; `named` by default.
    #[param(inline)]
    format: Option<StreamFormat>,
    /// A token of `POST /v1/stream_tokens`, in place of a key.
    token: Option<String>,
}

/// The schema of what can only be `true`.
fn always() -> utoipa::openapi::schema::Object {
    let text = "This is always a stream: nothing else can be said.";
    ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([true])).description(Some(text)).build()
}

/// No id and no token is that long, also where it is not read because a header or a key counts before it.
fn check_lengths(after: Option<&str>, token: Option<&str>) -> Result<(), ApiError> {
    if let Some(after) = after.filter(|after| after.len() > MAX_CURSOR_CHARS) {
        return Err(unknown_cursor(after));
    }
    if token.is_some_and(|token| token.len() > MAX_KEY_BYTES) {
        let message = format!("a token has at most {MAX_KEY_BYTES} characters: POST /v1/stream_tokens makes one");
        return Err(ApiError::new(ErrorCode::InvalidQuery, message).param("token"));
    }
    Ok(())
}

impl EventsQuery {
    /// Refuses what a stream has no use for, or a list.
    fn check(&self, streams: bool) -> Result<(), ApiError> {
        let refused = |param: &str, message: &str| Err(ApiError::new(ErrorCode::InvalidQuery, message).param(param));
        if streams && self.limit.is_some() {
            return refused("limit", "a stream has no limit: leave it out, or list the events with stream=false");
        }
        if !streams && self.format.is_some() {
            return refused("format", "only a stream has a format: ask for one with stream=true");
        }
        if !streams && self.token.is_some() {
            return refused("token", "a token opens streams only: ask for one with stream=true, or show your key");
        }
        check_lengths(self.after.as_deref(), self.token.as_deref())
    }
}

/// Lists or streams a job's events
///
/// A stream (`stream=true`, or `Accept: text/event-stream`) has all events from the first on, oldest first, or those after the one it is told;
/// then each as it happens. Its events are `message`, `metrics` and `checkpoint`, with an event as in lists and the job's status, and `status` when that
/// has changed. The final `status` ends it. A comment comes at least every 15 seconds. `format=openai` has no names and no `status`, and ends with
/// `data: [DONE]`.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{job_id}/events", tag = "fine-tuning jobs",
    params(
        ("job_id" = String, Path, description = "The job"),
        EventsQuery,
        ("last-event-id" = Option<String>, Header, description = "Of a stream: the id of the last event one has"),
    ),
    responses(
        (status = 200, description = "One page, newest first; 20 by default. Or a stream", content(
            (List<JobEventObject> = "application/json"), (StreamFrame = "text/event-stream"))),
        (status = 204, description = "To a stream's `Last-Event-ID`: the job has ended and that was its last event"),
        (status = 400, description = "A parameter is not valid, or `after` is none of the job's events"),
        (status = 404, description = "No such job"),
        (status = 429, description = "Too many streams: `too_many_streams`"),
    )
)]
async fn list_job_events(
    State(app): State<App>,
    By(caller): By,
    Id(id): Id<JobId>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let streams = event_stream::is_asked_for(query.stream, &headers);
    query.check(streams)?;
    if streams {
        let format = query.format.unwrap_or_default();
        // No such job: told before the stream begins.
        app.store().job(&id).await?;
        let asked = Asked { caller: &caller, job: Some(&id), after: query.after.as_deref(), format };
        return event_stream::answer(&app, asked, &headers).await;
    }
    let page = PageQuery { after: query.after, limit: query.limit };
    let page = app.store().events(&id, page.after()?.as_ref(), page.limit(20)?).await?;
    Ok(axum::Json(List::of(page, |event| event.id.to_string(), JobEventObject::from)).into_response())
}

/// Streams the events of all jobs that one may see
///
/// As the stream of one job, without an end: events of all jobs, own, shared and the team's, from now on, or after the one it is told; and a
/// `status` whenever a job has another one. Always a stream.
#[utoipa::path(
    get, path = "/v1/events", tag = "live",
    params(
        LiveQuery,
        ("last-event-id" = Option<String>, Header, description = "The id of the last event one has"),
    ),
    responses(
        (status = 200, description = "A stream", body = StreamFrame, content_type = "text/event-stream"),
        (status = 400, description = "A parameter is not valid, or `after` is no event one may see"),
        (status = 429, description = "Too many streams: `too_many_streams`"),
    )
)]
async fn stream_events(
    State(app): State<App>,
    By(caller): By,
    Query(query): Query<LiveQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if query.stream == Some(false) {
        let message = "this is always a stream: a job's events are listed at /v1/fine_tuning/jobs/{job_id}/events";
        return Err(ApiError::new(ErrorCode::InvalidQuery, message).param("stream"));
    }
    check_lengths(query.after.as_deref(), query.token.as_deref())?;
    let format = query.format.unwrap_or_default();
    let asked = Asked { caller: &caller, job: None, after: query.after.as_deref(), format };
    event_stream::answer(&app, asked, &headers).await
}
