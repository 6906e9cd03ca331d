//! `/v1/reference_lists`: named lists of models to tune against, so that jobs can share them.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    access::{By, Seen},
    error::ApiError,
    extract::{Id, Json, Query},
    files::Deleted,
    name,
    paging::{List, PageQuery},
};
use crate::{
    domain::{Ownership, Problems, Reference, ReferenceList, ReferenceListId, UserName, validate_references},
    store::StoreError,
};

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_reference_list, list_reference_lists))
        .routes(routes!(get_reference_list, delete_reference_list))
}

/// A list to be made.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReferenceListRequest {
    /// A name for people, 1 to 128 characters.
    name: String,
    /// The references; weights for all of them or for none, and they sum to 1.
    references: Vec<Reference>,
    /// Whether the team sees and may use it.
    #[serde(default)]
    shared: bool,
}

/// A list.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct ReferenceListObject {
    id: ReferenceListId,
    /// `reference_list`.
    #[schema(example = "reference_list")]
    object: &'static str,
    /// Unix time in seconds.
    created_at: i64,
    /// A name for people.
    name: String,
    /// The references, in order.
    references: Vec<Reference>,
    /// Whose it is; null where nobody was asked for a key.
    owner: Option<UserName>,
    /// Whether the team sees and may use it.
    shared: bool,
}

impl From<ReferenceList> for ReferenceListObject {
    fn from(list: ReferenceList) -> Self {
        Self {
            id: list.id,
            object: "reference_list",
            created_at: list.created_at,
            name: list.name,
            references: list.references,
            owner: list.ownership.owner,
            shared: list.ownership.is_shared,
        }
    }
}

/// Makes a reference list
///
/// A job names it by its id and takes the references as they are then.
#[utoipa::path(
    post, path = "/v1/reference_lists", tag = "reference lists", request_body = ReferenceListRequest,
    responses(
        (status = 200, description = "The list", body = ReferenceListObject),
        (status = 400, description = "The body is not valid, or names a model that is not registered"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body is not JSON"),
    )
)]
async fn create_reference_list(
    State(app): State<App>,
    By(caller): By,
    Json(request): Json<ReferenceListRequest>,
) -> Result<axum::Json<ReferenceListObject>, ApiError> {
    let mut problems = Problems::default();
    let name = name::checked(&request.name, &mut problems);
    validate_references(&request.references, "/references", &mut problems);
    for (i, reference) in request.references.iter().enumerate().take(crate::domain::MAX_REFERENCES) {
        match Seen::by(&caller, &app).model(&reference.model).await {
            Ok(_) => {}
            Err(StoreError::NotFound { .. }) => problems.at(
                format!("/references/{i}/model"),
                "model_not_found",
                format!("there is no model '{}': register it with POST /v1/models first", reference.model),
            ),
            Err(e) => return Err(e.into()),
        }
    }
    if !problems.is_empty() {
        return Err(ApiError::invalid(problems));
    }
    let ownership = Ownership::of(&caller, request.shared);
    let list = app.store().insert_reference_list(&name, &request.references, &ownership).await?;
    Ok(axum::Json(list.into()))
}

/// Lists the reference lists
///
/// One's own, those that are shared and the team's, newest first.
#[utoipa::path(
    get, path = "/v1/reference_lists", tag = "reference lists", params(PageQuery),
    responses(
        (status = 200, description = "One page", body = List<ReferenceListObject>),
        (status = 400, description = "A parameter is not valid, or `after` is not in the list"),
    )
)]
async fn list_reference_lists(
    State(app): State<App>,
    By(caller): By,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<List<ReferenceListObject>>, ApiError> {
    let page = app.store().reference_lists(&caller.viewer(), query.after()?.as_ref(), query.limit(20)?).await?;
    Ok(axum::Json(List::of(page, |list| list.id.to_string(), ReferenceListObject::from)))
}

/// Shows a reference list
///
/// Its models and their weights.
#[utoipa::path(
    get, path = "/v1/reference_lists/{reference_list_id}", tag = "reference lists",
    params(("reference_list_id" = String, Path, description = "The list")),
    responses(
        (status = 200, description = "The list", body = ReferenceListObject),
        (status = 404, description = "No such list"),
    )
)]
async fn get_reference_list(
    State(app): State<App>,
    Id(id): Id<ReferenceListId>,
) -> Result<axum::Json<ReferenceListObject>, ApiError> {
    Ok(axum::Json(app.store().reference_list(&id).await?.into()))
}

/// Deletes a reference list
///
/// Jobs that were made with it keep the references they were given.
#[utoipa::path(
    delete, path = "/v1/reference_lists/{reference_list_id}", tag = "reference lists",
    params(("reference_list_id" = String, Path, description = "The list")),
    responses((status = 200, description = "Deleted", body = Deleted), (status = 404, description = "No such list"))
)]
async fn delete_reference_list(
    State(app): State<App>,
    Id(id): Id<ReferenceListId>,
) -> Result<axum::Json<Deleted>, ApiError> {
    app.store().delete_reference_list(&id).await?;
    Ok(Deleted::new(id, "reference_list"))
}
