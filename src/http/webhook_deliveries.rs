//! `/v1/webhook_endpoints/{webhook_endpoint_id}/test` and `…/deliveries`: what a webhook was told, and what became of it.

use std::time::Duration;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    error::{ApiError, ErrorCode},
    extract::{Id, Json, Path, Query},
    paging::{List, PageQuery},
};
use crate::{
    domain::{Delivery, DeliveryStatus, JobId, WebhookEvent, WebhookEventId, WebhookEventType, WebhookId},
    store::{StoreError, unix_now},
};

/// How long a request waits for the answer to a test: longer than a webhook may take for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(test_webhook))
        .routes(routes!(list_webhook_deliveries))
        .routes(routes!(retry_webhook_delivery))
}

/// What a test is to look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WebhookTestRequest {
    /// What it says.
    event_type: WebhookEventType,
}

/// What a webhook has answered to a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct WebhookTestObject {
    /// `webhook_endpoint.test`.
    #[schema(example = "webhook_endpoint.test")]
    object: &'static str,
    webhook_endpoint_id: WebhookId,
    /// As in the list of deliveries.
    event_id: WebhookEventId,
    event_type: WebhookEventType,
    /// HTTP status of its answer.
    status_code: u16,
    /// `true`: there was an answer; what it says is `status_code`.
    #[schema(example = true)]
    success: bool,
}

/// One event on its way to one webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct WebhookDeliveryObject {
    /// The event's id, which is the request's `webhook-id` in every attempt.
    id: WebhookEventId,
    /// `webhook_endpoint.delivery`.
    #[schema(example = "webhook_endpoint.delivery")]
    object: &'static str,
    event_type: WebhookEventType,
    /// The job; null in a test.
    job_id: Option<JobId>,
    status: DeliveryStatus,
    /// How often it was begun to send it.
    n_attempts: u32,
    /// When it is sent next, while it is `pending`: Unix time in seconds.
    next_attempt_at: Option<i64>,
    /// HTTP status of the last answer.
    status_code: Option<u16>,
    /// What was wrong with the last attempt. What the webhook has answered beside its status is not kept.
    error: Option<String>,
    /// Unix time in seconds.
    created_at: i64,
    /// When it was delivered or given up.
    ended_at: Option<i64>,
}

impl From<Delivery> for WebhookDeliveryObject {
    fn from(delivery: Delivery) -> Self {
        Self {
            id: delivery.event.id,
            object: "webhook_endpoint.delivery",
            event_type: delivery.event.event_type,
            job_id: delivery.event.job,
            status: delivery.status,
            n_attempts: delivery.n_attempts,
            next_attempt_at: delivery.next_attempt_at,
            status_code: delivery.status_code,
            error: delivery.error,
            created_at: delivery.event.created_at,
            ended_at: delivery.ended_at,
        }
    }
}

/// Sends a webhook a test
///
/// An event of this type about a job that does not exist (`ftjob-` and zeros), signed like any other, once and now; the answer has the
/// status that the webhook answers with.
#[utoipa::path(
    post, path = "/v1/webhook_endpoints/{webhook_endpoint_id}/test", tag = "webhooks", request_body = WebhookTestRequest,
    params(("webhook_endpoint_id" = String, Path, description = "The webhook")),
    responses(
        (status = 200, description = "What it has answered", body = WebhookTestObject),
        (status = 400, description = "The body is not valid, or the webhook is disabled"),
        (status = 403, description = "It belongs to somebody else"),
        (status = 404, description = "No such webhook"),
        (status = 409, description = "Too many tests are on their way: `too_many`"),
        (status = 422, description = "It has not answered: `webhook_unreachable`"),
    )
)]
async fn test_webhook(
    State(app): State<App>,
    Id(id): Id<WebhookId>,
    Json(request): Json<WebhookTestRequest>,
) -> Result<axum::Json<WebhookTestObject>, ApiError> {
    let event = WebhookEvent::test(request.event_type, unix_now());
    // From before it is there, so that no change is missed.
    let mut changes = app.store().changes();
    app.store().insert_test(&id, &event).await?;
    let answered = async {
        loop {
            let delivery = app.store().delivery(&id, &event.id).await?;
            if delivery.status != DeliveryStatus::Pending || changes.changed().await.is_err() {
                return Ok::<_, StoreError>(delivery);
            }
        }
    };
    let unreachable = |why: &str| {
        let message = format!("{why}: see GET /v1/webhook_endpoints/{id}/deliveries");
        ApiError::new(ErrorCode::WebhookUnreachable, message)
    };
    let Ok(delivery) = tokio::time::timeout(PATIENCE, answered).await else {
        let is_sent = app.store().delivery(&id, &event.id).await?.n_attempts > 0;
        return Err(unreachable(if is_sent {
            "the test has not been answered yet"
        } else {
            "the server has not sent it yet: too many others are on their way"
        }));
    };
    let delivery = delivery?;
    let Some(status_code) = delivery.status_code else {
        return Err(unreachable(delivery.error.as_deref().unwrap_or("the test was not answered")));
    };
    let (event_id, event_type) = (event.id, event.event_type);
    let object = "webhook_endpoint.test";
    Ok(axum::Json(WebhookTestObject {
        object,
        webhook_endpoint_id: id,
        event_id,
        event_type,
        status_code,
        success: true,
    }))
}

/// Lists what a webhook was told
///
/// Newest first, of the last thirty days.
#[utoipa::path(
    get, path = "/v1/webhook_endpoints/{webhook_endpoint_id}/deliveries", tag = "webhooks",
    params(("webhook_endpoint_id" = String, Path, description = "The webhook"), PageQuery),
    responses(
        (status = 200, description = "One page", body = List<WebhookDeliveryObject>),
        (status = 400, description = "A parameter is not valid, or `after` is not in the list"),
        (status = 404, description = "No such webhook"),
    )
)]
async fn list_webhook_deliveries(
    State(app): State<App>,
    Id(id): Id<WebhookId>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<List<WebhookDeliveryObject>>, ApiError> {
    let page = app.store().deliveries(&id, query.after()?.as_ref(), query.limit(20)?).await?;
    Ok(axum::Json(List::of(page, |delivery| delivery.event.id.to_string(), WebhookDeliveryObject::from)))
}

/// Sends a webhook something now
///
/// What waits to be sent again is sent now, what has ended once more; under the same id.
#[utoipa::path(
    post, path = "/v1/webhook_endpoints/{webhook_endpoint_id}/deliveries/{event_id}/retry", tag = "webhooks",
    params(
        ("webhook_endpoint_id" = String, Path, description = "The webhook"),
        ("event_id" = String, Path, description = "The event"),
    ),
    responses(
        (status = 200, description = "The delivery, which is pending", body = WebhookDeliveryObject),
        (status = 400, description = "The webhook is disabled: `invalid_request`"),
        (status = 403, description = "It belongs to somebody else"),
        (status = 404, description = "No such webhook, or it was never to be told this"),
    )
)]
async fn retry_webhook_delivery(
    State(app): State<App>,
    Path((webhook, event)): Path<(String, String)>,
) -> Result<axum::Json<WebhookDeliveryObject>, ApiError> {
    let (webhook, event): (WebhookId, WebhookEventId) = (webhook.parse()?, event.parse()?);
    Ok(axum::Json(app.store().retry_delivery(&webhook, &event, unix_now()).await?.into()))
}
