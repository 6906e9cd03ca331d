//! `/v1/api_keys`, `/v1/me`, `/v1/audit`: who is who, for admins; and whoever asks, for themselves.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    access::{By, only_admins},
    error::{ApiError, ErrorCode},
    extract::{Id, Json, Query},
    paging::{self, List},
};
use crate::{
    domain::{ApiKey, KeyId, NewKey, Role, Scope, UserName},
    store::{AuditEntry, Page, unix_now},
};

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_key, list_keys))
        .routes(routes!(revoke_key))
        .routes(routes!(me))
        .routes(routes!(list_audit))
}

/// What a new key is to be.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KeyRequest {
    user: UserName,
    /// `member` unless said otherwise.
    #[serde(default)]
    role: Option<Role>,
    /// `write` unless said otherwise.
    #[serde(default)]
    scope: Option<Scope>,
    /// When it stops working: Unix time in seconds; never, if not given.
    #[serde(default)]
    expires_at: Option<i64>,
}

/// A key, without what makes it one.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct ApiKeyObject {
    id: KeyId,
    /// `api_key`.
    #[schema(example = "api_key")]
    object: &'static str,
    user: UserName,
    role: Role,
    scope: Scope,
    /// Its first characters, to tell keys apart.
    prefix: String,
    /// The whole key: only in the answer that made it, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Unix time in seconds.
    created_at: i64,
    /// When it stops working.
    expires_at: Option<i64>,
    /// When it was last shown, to the minute.
    last_used_at: Option<i64>,
    /// Since when it does not work any more.
    revoked_at: Option<i64>,
}

impl From<ApiKey> for ApiKeyObject {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            object: "api_key",
            user: key.made.user,
            role: key.made.role,
            scope: key.made.scope,
            prefix: key.prefix,
            key: None,
            created_at: key.created_at,
            expires_at: key.made.expires_at,
            last_used_at: key.last_used_at,
            revoked_at: key.revoked_at,
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct Me {
    /// `me`.
    #[schema(example = "me")]
    object: &'static str,
    /// Null where nobody is asked for a key.
    user: Option<UserName>,
    role: Role,
    scope: Scope,
    key_id: Option<KeyId>,
}

/// A request that may have changed something.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct AuditObject {
    /// Its place in the log; later is larger.
    id: i64,
    /// `audit.entry`.
    #[schema(example = "audit.entry")]
    object: &'static str,
    /// Unix time in seconds.
    at: i64,
    user: Option<UserName>,
    key_id: Option<KeyId>,
    /// Method and route.
    #[schema(example = "DELETE /v1/files/{file_id}")]
    action: String,
    /// The id in the address.
    subject: Option<String>,
    /// HTTP status of the answer.
    status: u16,
    /// As in the answer's `x-request-id`.
    request_id: String,
}

impl From<AuditEntry> for AuditObject {
    fn from(entry: AuditEntry) -> Self {
        Self {
            id: entry.seq,
            object: "audit.entry",
            at: entry.at,
            user: entry.user,
            key_id: entry.key,
            action: entry.action,
            subject: entry.subject,
            status: entry.status,
            request_id: entry.request_id,
        }
    }
}

/// Which entries.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// Only this person's.
    #[param(value_type = Option<UserName>)]
    user: Option<String>,
    /// The id of the last entry of the page before.
    after: Option<i64>,
    /// How many at most, 1 to 100; 20 by default.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
}

/// Makes a key (admins)
///
/// The answer has the whole of it, this once: only a digest is kept. From the first key on everybody is asked for one.
#[utoipa::path(
    post, path = "/v1/api_keys", tag = "people", request_body = KeyRequest,
    responses(
        (status = 200, description = "The key", body = ApiKeyObject),
        (status = 400, description = "The body is not valid"),
        (status = 403, description = "Only admins make keys: `admins_only`"),
    )
)]
async fn create_key(
    State(app): State<App>,
    By(caller): By,
    Json(request): Json<KeyRequest>,
) -> Result<axum::Json<ApiKeyObject>, ApiError> {
    only_admins(&caller)?;
    if request.expires_at.is_some_and(|at| at <= unix_now()) {
        return Err(ApiError::invalid_at("/expires_at", "in_the_past", "a key that has expired opens nothing"));
    }
    if caller.user.is_none() && request.role != Some(Role::Admin) {
        // Nobody could ever make another one.
        let message = "the first key must be an admin's: say \"role\": \"admin\"";
        return Err(ApiError::invalid_at("/role", "admin_first", message));
    }
    let new = NewKey {
        user: request.user,
        role: request.role.unwrap_or(Role::Member),
        scope: request.scope.unwrap_or(Scope::Write),
        expires_at: request.expires_at,
    };
    let (key, secret) = app.store().create_key(&new).await?;
    Ok(axum::Json(ApiKeyObject { key: Some(secret.reveal().to_owned()), ..key.into() }))
}

/// Lists the keys (admins)
///
/// All of them, newest first, those that do not work any more too. Nothing here opens anything.
#[utoipa::path(
    get, path = "/v1/api_keys", tag = "people",
    responses(
        (status = 200, description = "All keys, newest first", body = List<ApiKeyObject>),
        (status = 403, description = "Only admins see keys: `admins_only`"),
    )
)]
async fn list_keys(State(app): State<App>, By(caller): By) -> Result<axum::Json<List<ApiKeyObject>>, ApiError> {
    only_admins(&caller)?;
    let page = Page { items: app.store().keys().await?, has_more: false };
    Ok(axum::Json(List::of(page, |key| key.id.to_string(), ApiKeyObject::from)))
}

/// Revokes a key (admins)
///
/// It stops working at once and for good; what was made with it stays.
#[utoipa::path(
    delete, path = "/v1/api_keys/{key_id}", tag = "people",
    params(("key_id" = String, Path, description = "The key")),
    responses(
        (status = 200, description = "The key", body = ApiKeyObject),
        (status = 403, description = "Only admins revoke keys: `admins_only`"),
        (status = 404, description = "No such key"),
    )
)]
async fn revoke_key(
    State(app): State<App>,
    By(caller): By,
    Id(id): Id<KeyId>,
) -> Result<axum::Json<ApiKeyObject>, ApiError> {
    only_admins(&caller)?;
    let revoked = app.store().revoke_key(&id).await?;
    app.live().recheck();
    Ok(axum::Json(revoked.into()))
}

/// Tells who asks
///
/// Whose key was shown, and what it allows.
#[utoipa::path(get, path = "/v1/me", tag = "people", responses((status = 200, description = "Whose key was shown", body = Me)))]
async fn me(By(caller): By) -> axum::Json<Me> {
    axum::Json(Me { object: "me", user: caller.user, role: caller.role, scope: caller.scope, key_id: caller.key })
}

/// Lists who changed what (admins)
///
/// Every request that may have changed something, newest first; the newest million are kept.
#[utoipa::path(
    get, path = "/v1/audit", tag = "people", params(AuditQuery),
    responses(
        (status = 200, description = "One page", body = List<AuditObject>),
        (status = 400, description = "A parameter is not valid"),
        (status = 403, description = "Only admins see it: `admins_only`"),
    )
)]
async fn list_audit(
    State(app): State<App>,
    By(caller): By,
    Query(query): Query<AuditQuery>,
) -> Result<axum::Json<List<AuditObject>>, ApiError> {
    only_admins(&caller)?;
    let invalid = |e| ApiError::new(ErrorCode::InvalidQuery, format!("{e}")).param("user");
    let user: Option<UserName> = query.user.as_deref().map(|name| name.parse().map_err(invalid)).transpose()?;
    let limit = paging::limit(query.limit, 20, paging::MAX_PAGE)?;
    let page = app.store().audit(user.as_ref(), query.after, limit).await?;
    Ok(axum::Json(List::of(page, |entry| entry.seq.to_string(), AuditObject::from)))
}
