//! Whether the server lives and can work, and what it is: `/`, `/healthz`, `/readyz`, `/openapi.json`.

use std::{io, path::Path};

use axum::{extract::State, http::header, response::IntoResponse};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    App,
    error::{ApiError, ErrorCode},
    form, openapi,
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
    /// The server's version.
    version: &'static str,
    /// What it does, in a sentence.
    description: &'static str,
    /// Where the API's description is.
    openapi: &'static str,
    /// The same as a page for people.
    docs: &'static str,
}

/// A server that lives, or can work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct Health {
    /// `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Names the server
///
/// Answers without a key.
#[utoipa::path(get, path = "/", tag = "server", responses((status = 200, description = "What this is", body = Index)))]
async fn get_index() -> axum::Json<Index> {
    axum::Json(Index {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        description: env!("CARGO_PKG_DESCRIPTION"),
        openapi: "/openapi.json",
        docs: "/docs",
    })
}

/// Tells that the server lives
///
/// It looks at nothing: whether the server can work is `/readyz`'s to say.
#[utoipa::path(get, path = "/healthz", tag = "server", responses((status = 200, description = "It lives", body = Health)))]
async fn get_health() -> axum::Json<Health> {
    axum::Json(Health { status: "ok" })
}

/// Tells whether the server can work
///
/// The database answers, the data directory can be written, the worker is alive, the disk has room.
#[utoipa::path(
    get, path = "/readyz", tag = "server",
    responses((status = 200, description = "It can", body = Health), (status = 503, description = "It cannot, and `detail` says why: `unready`"))
)]
async fn get_readiness(State(app): State<App>) -> Result<axum::Json<Health>, ApiError> {
    let unready = |why: &str| ApiError::new(ErrorCode::Unready, why);
    app.store().ping().await.map_err(|e| unready("the database does not answer").caused_by(e))?;
    can_write(app.data_dir()).await.map_err(|e| unready("the data directory cannot be written").caused_by(e))?;
    if !app.is_worker_alive() {
        return Err(unready("the worker does not answer: jobs wait; restart the server if this lasts"));
    }
    let disk = &app.settings().disk;
    if disk.is_low_at(disk.free_bytes()) {
        let kept = disk.reserve_bytes() >> 20;
        return Err(unready(&format!(
            "less than {kept} MiB are free on the disk: uploads are refused and jobs wait; make room"
        )));
    }
    Ok(axum::Json(Health { status: "ok" }))
}

/// Writes a few bytes and leaves nothing behind.
async fn can_write(data_dir: &Path) -> io::Result<()> {
    let path = data_dir.join("tmp").join(format!("{}{}", form::TEMP_PREFIX, Uuid::now_v7().simple()));
    let written = tokio::fs::write(&path, b"ok").await;
    let removed = tokio::fs::remove_file(&path).await;
    written.and(removed)
}

/// Describes the API (OpenAPI 3.1)
///
/// This document; `/docs` shows it as a page.
#[utoipa::path(
    get, path = "/openapi.json", tag = "server",
    responses((status = 200, description = "This document", body = Object, content_type = "application/json"))
)]
async fn get_openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi::document())
}
