//! Whether the server lives and can work, and what it is: `/`, `/healthz`, `/readyz`, `/openapi.json`.

use axum::{extract::State, http::header, response::IntoResponse};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    App,
    error::{ApiError, ErrorCode},
    openapi,
};

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_index))
        .routes(routes!(get_health))
        .routes(routes!(get_readiness))
        .routes(routes!(get_openapi))
}

/// What this server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct Index {
    /// `mrpo`.
    #[schema(example = "mrpo")]
    name: &'static str,
    version: &'static str,
    description: &'static str,
    /// Where the API's description is.
    openapi: &'static str,
}

/// A server that lives, or can work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct Health {
    /// `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Names the server
#[utoipa::path(get, path = "/", tag = "server", responses((status = 200, description = "What this is", body = Index)))]
async fn get_index() -> axum::Json<Index> {
    axum::Json(Index {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        description: env!("CARGO_PKG_DESCRIPTION"),
        openapi: "/openapi.json",
    })
}

/// Tells that the server lives
#[utoipa::path(get, path = "/healthz", tag = "server", responses((status = 200, description = "It lives", body = Health)))]
async fn get_health() -> axum::Json<Health> {
    axum::Json(Health { status: "ok" })
}

/// Tells whether the server can work
///
/// The database answers, the data directory can be written, the worker is alive.
#[utoipa::path(
    get, path = "/readyz", tag = "server",
    responses((status = 200, description = "It can", body = Health), (status = 503, description = "It cannot: `detail` says why"))
)]
async fn get_readiness(State(app): State<App>) -> Result<axum::Json<Health>, ApiError> {
    let unready = |why: &str| ApiError::new(ErrorCode::Unready, why);
    app.store().ping().await.map_err(|e| unready("the database does not answer").caused_by(e))?;
    let path = app.data_dir().join("tmp").join(format!("upload-{}", Uuid::now_v7().simple()));
    tokio::fs::write(&path, b"ok").await.map_err(|e| unready("the data directory cannot be written").caused_by(e))?;
    tokio::fs::remove_file(&path).await?;
    if !app.is_worker_alive() {
        return Err(unready("the worker does not answer: jobs wait; restart the server if this lasts"));
    }
    Ok(axum::Json(Health { status: "ok" }))
}

/// Describes the API (`OpenAPI` 3.1)
#[utoipa::path(
    get, path = "/openapi.json", tag = "server",
    responses((status = 200, description = "This document", body = Object, content_type = "application/json"))
)]
async fn get_openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi::document())
}
