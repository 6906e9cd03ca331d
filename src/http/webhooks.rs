//! `/v1/webhook_endpoints`: addresses that are told when jobs have ended; as of OpenAI's `client.webhooks`.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    access::By,
    error::{ApiError, ErrorCode},
    extract::{Id, Json, JsonOrNothing, Query},
    files::Deleted,
    name,
    paging::{List, PageQuery},
};
use crate::{
    domain::{
        AllowedHosts, HttpAddress, InvalidAddress, Ownership, Problems, UserName, Webhook, WebhookChange,
        WebhookEventType, WebhookId, WebhookSecret,
    },
    store::unix_now,
};

/// For how long the secret before may sign, in seconds.
const OLD_SECRET_S: i64 = 24 * 3600;

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_webhook, list_webhooks))
        .routes(routes!(get_webhook, change_webhook, delete_webhook))
        .routes(routes!(rotate_webhook_secret))
        .routes(routes!(list_webhook_event_types))
}

/// A webhook to be made.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WebhookRequest {
    /// A name for people.
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// Where to send: `http(s)://HOST[:PORT]/PATH`, of a host that the server's operator allows.
    #[schema(example = "https://hooks.example.org/mrpo", max_length = 2000)]
    url: String,
    /// What it is to be told of.
    #[schema(min_items = 1, max_items = 100)]
    event_types: Vec<WebhookEventType>,
}

/// What is to be different; what is not given stays.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WebhookChangeRequest {
    /// A name for people.
    #[schema(min_length = 1, max_length = 128)]
    name: Option<String>,
    /// Where to send.
    #[schema(max_length = 2000)]
    url: Option<String>,
    /// All that it is to be told of.
    #[schema(min_items = 1, max_items = 100)]
    event_types: Option<Vec<WebhookEventType>>,
    /// Whether it is to be told nothing. What is still on its way is then given up.
    disabled: Option<bool>,
}

/// What is to become of the secret before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RotationRequest {
    /// Whether it signs for 24 hours beside the new one; else it does not sign any more.
    #[serde(default)]
    keep_old_secret_active_for_24_hours: bool,
}

/// A webhook.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct WebhookObject {
    id: WebhookId,
    /// `webhook_endpoint`.
    #[schema(example = "webhook_endpoint")]
    object: &'static str,
    /// For people.
    name: String,
    /// Where it is sent.
    url: String,
    /// What it is told of.
    event_types: Vec<WebhookEventType>,
    /// What signs: only in the answer that made it, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_secret: Option<String>,
    /// Its end, to tell secrets apart.
    signing_secret_hint: String,
    /// Unix time in seconds.
    created_at: i64,
    /// When it, or its secret, was last changed.
    updated_at: i64,
    /// Since when it is told nothing.
    disabled_at: Option<i64>,
    /// Why.
    disabled_reason: Option<String>,
    /// Whose it is; null where nobody was asked for a key.
    owner: Option<UserName>,
}

impl WebhookObject {
    /// With the secret, for the one time that it is shown.
    fn with_secret(webhook: Webhook, secret: &WebhookSecret) -> axum::Json<Self> {
        axum::Json(Self { signing_secret: Some(secret.reveal().to_owned()), ..webhook.into() })
    }
}

impl From<Webhook> for WebhookObject {
    fn from(webhook: Webhook) -> Self {
        let (disabled_at, disabled_reason) = webhook.disabled.map(|disabled| (disabled.at, disabled.reason)).unzip();
        Self {
            id: webhook.id,
            object: "webhook_endpoint",
            name: webhook.name,
            url: webhook.url.to_string(),
            event_types: webhook.event_types,
            signing_secret: None,
            signing_secret_hint: webhook.secret_hint,
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
            disabled_at,
            disabled_reason,
            owner: webhook.ownership.owner,
        }
    }
}

/// What there is to be told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct WebhookEventTypes {
    /// `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// The types.
    data: [WebhookEventType; 3],
}

/// Makes a webhook
///
/// The answer has the secret that signs, this once. It is told of the jobs that its owner sees: their own, those that are shared, and those
/// that belong to nobody. Twenty of one person.
#[utoipa::path(
    post, path = "/v1/webhook_endpoints", tag = "webhooks", request_body = WebhookRequest,
    responses(
        (status = 200, description = "The webhook, with its secret", body = WebhookObject),
        (status = 400, description = "The body is not valid"),
        (status = 403, description = "The operator has not allowed this host: `webhook_host_not_allowed`"),
        (status = 409, description = "As many as one person may have: `too_many`"),
    )
)]
async fn create_webhook(
    State(app): State<App>,
    By(caller): By,
    Json(request): Json<WebhookRequest>,
) -> Result<axum::Json<WebhookObject>, ApiError> {
    let mut problems = Problems::default();
    let name = name::checked(&request.name, &mut problems);
    let url = checked_url(&request.url, &mut problems);
    let event_types = checked_types(request.event_types, &mut problems);
    let Some(url) = url.filter(|_| problems.is_empty()) else { return Err(ApiError::invalid(problems)) };
    check_allowed(&app, &url)?;
    let secret = WebhookSecret::new().map_err(ApiError::internal)?;
    let now = unix_now();
    let webhook = Webhook {
        id: WebhookId::new(),
        name,
        url,
        event_types,
        secret_hint: secret.hint(),
        disabled: None,
        created_at: now,
        updated_at: now,
        ownership: Ownership::of(&caller, false),
    };
    app.store().insert_webhook(&webhook, &secret).await?;
    Ok(WebhookObject::with_secret(webhook, &secret))
}

/// Lists the webhooks
///
/// One's own; an admin sees everybody's. None with its secret.
#[utoipa::path(
    get, path = "/v1/webhook_endpoints", tag = "webhooks", params(PageQuery),
    responses(
        (status = 200, description = "One page, newest first", body = List<WebhookObject>),
        (status = 400, description = "A parameter is not valid, or `after` is not in the list"),
    )
)]
async fn list_webhooks(
    State(app): State<App>,
    By(caller): By,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<List<WebhookObject>>, ApiError> {
    let page = app.store().webhooks(&caller.viewer(), query.after()?.as_ref(), query.limit(20)?).await?;
    Ok(axum::Json(List::of(page, |webhook| webhook.id.to_string(), WebhookObject::from)))
}

/// Shows a webhook
///
/// Without its secret.
#[utoipa::path(
    get, path = "/v1/webhook_endpoints/{webhook_endpoint_id}", tag = "webhooks",
    params(("webhook_endpoint_id" = String, Path, description = "The webhook")),
    responses(
        (status = 200, description = "The webhook", body = WebhookObject),
        (status = 404, description = "No such webhook"),
    )
)]
async fn get_webhook(State(app): State<App>, Id(id): Id<WebhookId>) -> Result<axum::Json<WebhookObject>, ApiError> {
    Ok(axum::Json(app.store().webhook(&id).await?.into()))
}

/// Changes a webhook, disables it, or enables it again
///
/// What is not given stays. A new address is asked for like that of a new webhook.
#[utoipa::path(
    post, path = "/v1/webhook_endpoints/{webhook_endpoint_id}", tag = "webhooks", request_body = WebhookChangeRequest,
    params(("webhook_endpoint_id" = String, Path, description = "The webhook")),
    responses(
        (status = 200, description = "The webhook", body = WebhookObject),
        (status = 400, description = "The body is not valid"),
        (status = 403, description = "It belongs to somebody else, or the operator has not allowed this host: `webhook_host_not_allowed`"),
        (status = 404, description = "No such webhook"),
    )
)]
async fn change_webhook(
    State(app): State<App>,
    Id(id): Id<WebhookId>,
    Json(request): Json<WebhookChangeRequest>,
) -> Result<axum::Json<WebhookObject>, ApiError> {
    let mut problems = Problems::default();
    let change = WebhookChange {
        name: request.name.map(|name| name::checked(&name, &mut problems)),
        url: request.url.and_then(|url| checked_url(&url, &mut problems)),
        event_types: request.event_types.map(|types| checked_types(types, &mut problems)),
        is_disabled: request.disabled,
    };
    if !problems.is_empty() {
        return Err(ApiError::invalid(problems));
    }
    if let Some(url) = &change.url {
        check_allowed(&app, url)?;
    }
    Ok(axum::Json(app.store().change_webhook(&id, &change, unix_now()).await?.into()))
}

/// Deletes a webhook
///
/// With what was sent to it; what is still on its way is not sent.
#[utoipa::path(
    delete, path = "/v1/webhook_endpoints/{webhook_endpoint_id}", tag = "webhooks",
    params(("webhook_endpoint_id" = String, Path, description = "The webhook")),
    responses(
        (status = 200, description = "Deleted", body = Deleted),
        (status = 403, description = "It belongs to somebody else"),
        (status = 404, description = "No such webhook"),
    )
)]
async fn delete_webhook(State(app): State<App>, Id(id): Id<WebhookId>) -> Result<axum::Json<Deleted>, ApiError> {
    app.store().delete_webhook(&id).await?;
    Ok(Deleted::new(id, "webhook_endpoint.deleted"))
}

/// Gives a webhook another secret
///
/// The answer has it, this once. With `keep_old_secret_active_for_24_hours` every request carries a signature by each of the two for a day.
/// No body is `{}`.
#[utoipa::path(
    post, path = "/v1/webhook_endpoints/{webhook_endpoint_id}/rotate_secret", tag = "webhooks", request_body = Option<RotationRequest>,
    params(("webhook_endpoint_id" = String, Path, description = "The webhook")),
    responses(
        (status = 200, description = "The webhook, with its new secret", body = WebhookObject),
        (status = 403, description = "It belongs to somebody else"),
        (status = 404, description = "No such webhook"),
    )
)]
async fn rotate_webhook_secret(
    State(app): State<App>,
    Id(id): Id<WebhookId>,
    JsonOrNothing(request): JsonOrNothing<RotationRequest>,
) -> Result<axum::Json<WebhookObject>, ApiError> {
    let secret = WebhookSecret::new().map_err(ApiError::internal)?;
    let now = unix_now();
    let old_until = request.keep_old_secret_active_for_24_hours.then_some(now + OLD_SECRET_S);
    let webhook = app.store().rotate_webhook_secret(&id, &secret, old_until, now).await?;
    Ok(WebhookObject::with_secret(webhook, &secret))
}

/// Lists what webhooks can be told of
///
/// All of these go to whoever asked for them when a job of theirs has ended so.
#[utoipa::path(
    get, path = "/v1/webhook_event_types", tag = "webhooks",
    responses((status = 200, description = "All types", body = WebhookEventTypes))
)]
async fn list_webhook_event_types() -> axum::Json<WebhookEventTypes> {
    axum::Json(WebhookEventTypes { object: "list", data: WebhookEventType::ALL })
}

fn checked_url(url: &str, problems: &mut Problems) -> Option<HttpAddress> {
    HttpAddress::given(url).map_err(|InvalidAddress(why)| problems.at("/url", "invalid_url", why)).ok()
}

fn checked_types(mut types: Vec<WebhookEventType>, problems: &mut Problems) -> Vec<WebhookEventType> {
    types.sort_unstable();
    types.dedup();
    if types.is_empty() {
        let message = "a webhook is told of at least one type of event: GET /v1/webhook_event_types lists them";
        problems.at("/event_types", "out_of_range", message);
    }
    types
}

/// Whoever can make a webhook could else make this server call any address.
fn check_allowed(app: &App, url: &HttpAddress) -> Result<(), ApiError> {
    if app.settings().webhook_hosts.allow(url) {
        return Ok(());
    }
    let refusal = AllowedHosts::refusal(url, AllowedHosts::WEBHOOK_FLAG);
    Err(ApiError::new(ErrorCode::WebhookHostNotAllowed, refusal).param("url"))
}
