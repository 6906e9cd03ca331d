//! How an error looks on the wire: OpenAI's shape and RFC 9457's in one.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::Problem;

/// Every error's body: OpenAI's shape and RFC 9457's in one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    /// The kind of error, as a URN.
    #[schema(example = "urn:mrpo:error:job_not_found")]
    pub(super) r#type: String,
    /// The same for people.
    pub(super) title: String,
    /// The HTTP status.
    pub(super) status: u16,
    /// What went wrong this time, and the way out.
    pub(super) detail: String,
    /// The same as OpenAI writes it.
    pub(super) error: ErrorObject,
    /// How many things are wrong with the request in all; `errors` holds the first hundred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) n_problems: Option<u64>,
    /// Everything that is wrong with the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) errors: Option<Vec<Problem>>,
}

/// An error as OpenAI writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct ErrorObject {
    /// What went wrong, and the way out.
    pub(super) message: String,
    /// `invalid_request_error` or `server_error`.
    pub(super) r#type: String,
    /// The parameter that is wrong.
    pub(super) param: Option<String>,
    /// The kind of error, for programs; with several problems, the first one's.
    pub(super) code: String,
}
