//! Lists, page by page: `after` the last id one has, at most `limit` at a time.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::{ApiError, ErrorCode};
use crate::{domain::ModelId, store::Page};

/// No id of any list is longer.
pub(super) const MAX_CURSOR_CHARS: usize = ModelId::MAX_CHARS;
/// The longest page of most lists.
pub(super) const MAX_PAGE: usize = 100;

/// Which page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// The id of the last item of the page before; an id that is not in the list is an error.
    pub after: Option<String>,
    /// How many items at most, 1 to 100.
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<usize>,
}

impl PageQuery {
    /// The id to go on after. A text that is no id of the list's kind is in no list.
    pub(super) fn after<I: FromStr>(&self) -> Result<Option<I>, ApiError> {
        self.after.as_deref().map(|text| text.parse().map_err(|_| unknown_cursor(text))).transpose()
    }

    /// The limit, or `default`; 1 to [`MAX_PAGE`].
    pub(super) fn limit(&self, default: usize) -> Result<usize, ApiError> {
        limit(self.limit, default, MAX_PAGE)
    }
}

/// A limit that was given, or `default`; 1 to `max`.
pub(super) fn limit(given: Option<usize>, default: usize, max: usize) -> Result<usize, ApiError> {
    let limit = given.unwrap_or(default);
    if (1..=max).contains(&limit) {
        Ok(limit)
    } else {
        Err(ApiError::new(ErrorCode::InvalidQuery, format!("limit is between 1 and {max}, got {limit}")).param("limit"))
    }
}

/// The error of an `after` that names nothing in the list: never the first page, or a client would go round for ever.
pub(super) fn unknown_cursor(after: &str) -> ApiError {
    let shown: String = after.chars().take(80).collect();
    ApiError::new(
        ErrorCode::UnknownCursor,
        format!("there is no '{shown}' in this list: pass the id of the last item you have, or leave 'after' out"),
    )
    .param("after")
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct List<T> {
    /// `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// The items.
    data: Vec<T>,
    /// Id of the first item of this page.
    first_id: Option<String>,
    /// Id of the last item of this page: the next page's `after`.
    last_id: Option<String>,
    /// Whether there is a next page.
    has_more: bool,
}

impl<T> List<T> {
    /// A page of the store's records as they look on the wire.
    pub(super) fn of<R>(page: Page<R>, id: impl Fn(&R) -> String, body: impl FnMut(R) -> T) -> Self {
        let Page { items, has_more } = page;
        let (first_id, last_id) = (items.first().map(&id), items.last().map(&id));
        Self { object: "list", data: items.into_iter().map(body).collect(), first_id, last_id, has_more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_limits() {
        assert_eq!(limit(None, 20, 100).expect("default"), 20);
        assert!(limit(Some(0), 20, 100).is_err());
        assert!(limit(Some(101), 20, 100).is_err());
    }
}
