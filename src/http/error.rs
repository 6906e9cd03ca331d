//! How an error looks on the wire, and what of the rooms below becomes which one.
//!
//! A body satisfies the OpenAI SDKs (`error.message`, `.type`, `.param`, `.code`) and RFC 9457 (`type`, `title`, `status`,
//! `detail`) at once. What went wrong inside is logged here, once, with its causes, and never shown.

use std::{error::Error as StdError, io};

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::error_body::{ErrorBody, ErrorObject};
pub(super) use super::error_code::ErrorCode;
use crate::{
    domain::{InvalidId, Problems},
    store::StoreError,
};

/// Tells the OpenAI SDKs whether to send a request again; without it they repeat every 409.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Media type of every error body.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct ApiError {
    code: ErrorCode,
    message: String,
    param: Option<String>,
    problems: Option<Problems>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl ApiError {
    /// An error with a text for people, which names the way out.
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: None, problems: None, source: None }
    }

    /// Everything that is wrong with a request; the first problem is what a client that reads only one sees.
    pub(super) fn invalid(problems: Problems) -> Self {
        let first = problems.first.first();
        let mut message = first.map_or_else(|| "the request is not valid".to_owned(), |p| p.message.clone());
        if problems.n_total > 1 {
            message = format!("{message} (and {} more: see errors)", problems.n_total - 1);
        }
        let param = first.and_then(|p| p.pointer.as_deref()).map(dotted);
        Self { code: ErrorCode::InvalidRequest, message, param, problems: Some(problems), source: None }
    }

    /// One thing wrong with a request's body.
    pub(super) fn invalid_at(pointer: &str, code: &str, message: impl Into<String>) -> Self {
        let mut problems = Problems::default();
        problems.at(pointer, code, message);
        Self::invalid(problems)
    }

    /// A defect or a failure of the machine: the client learns only that it happened.
    pub(super) fn internal(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(ErrorCode::Internal, "the server failed; its log has the cause under the id in x-request-id")
            .caused_by(source)
    }

    /// Names the parameter that is wrong.
    #[must_use]
    pub(super) fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Adds the cause, for the log.
    #[must_use]
    pub(super) fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    fn log(&self) {
        let Some(source) = &self.source else { return };
        let mut causes = source.to_string();
        let mut next = source.source();
        while let Some(cause) = next {
            causes = format!("{causes}: {cause}");
            next = cause.source();
        }
        if self.code.status().is_server_error() {
            tracing::error!(code = self.code.as_str(), cause = causes, "request failed");
        } else {
            tracing::debug!(code = self.code.as_str(), cause = causes, "request refused");
        }
    }

    /// How it looks, for the API document.
    pub(super) fn example(code: ErrorCode) -> ErrorBody {
        Self::new(code, code.title()).body()
    }

    fn body(self) -> ErrorBody {
        let (word, status, title) = self.code.row();
        let (n_problems, errors) = self.problems.map_or((None, None), |p| (Some(p.n_total), Some(p.first)));
        // The word and `param` speak of the same thing: where a body has problems, of its first.
        let code = errors.as_ref().and_then(|e| e.first()).map_or(word, |p| p.code.as_str()).to_owned();
        ErrorBody {
            r#type: format!("urn:mrpo:error:{word}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.message.clone(),
            error: ErrorObject {
                message: self.message,
                r#type: if status.is_server_error() { "server_error" } else { "invalid_request_error" }.to_owned(),
                param: self.param,
                code,
            },
            n_problems,
            errors,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let status = self.code.status();
        let retry = match self.code {
            // The only conflict that passes.
            ErrorCode::InProgress => Some("true"),
            // Nothing changes by asking again.
            _ if status == StatusCode::CONFLICT => Some("false"),
            ErrorCode::DiskFull => Some("false"),
            _ => None,
        };
        let passes = self.code == ErrorCode::InProgress;
        let body = serde_json::to_vec(&self.body()).expect("texts and numbers always serialise");
        let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        if let Some(retry) = retry {
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static(retry));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if passes || status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// `/method/mrpo/references/0/model` as OpenAI writes a parameter: `method.mrpo.references.0.model`.
fn dotted(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".").replace("~1", "/").replace("~0", "~")
}

/// A text in an address that cannot be an id names nothing.
impl From<InvalidId> for ApiError {
    fn from(e: InvalidId) -> Self {
        Self::new(ErrorCode::not_found(e.kind().trim_end_matches(" id")), e.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(e: StoreError) -> Self {
        let code = match &e {
            StoreError::NotFound { kind, .. } => ErrorCode::not_found(kind),
            StoreError::UnknownAfter { .. } => ErrorCode::UnknownCursor,
            StoreError::Exists { .. } => ErrorCode::AlreadyExists,
            StoreError::InUse { .. } => ErrorCode::InUse,
            StoreError::TooMany { .. } => ErrorCode::TooMany,
            StoreError::UploadEnded { .. } => ErrorCode::UploadEnded,
            StoreError::Unusable { .. } => ErrorCode::InvalidRequest,
            StoreError::IllegalTransition(_) | StoreError::NotWaiting { .. } => ErrorCode::IllegalTransition,
            StoreError::TooManyWaiting { .. } => ErrorCode::TooManyWaiting,
            _ if e.is_disk_full() => return Self::disk_full(e),
            _ if e.is_busy() => {
                let message = "the database is busy: send it again in a moment";
                return Self::new(ErrorCode::Overloaded, message).caused_by(e);
            }
            _ => return Self::internal(e),
        };
        let param = matches!(code, ErrorCode::UnknownCursor).then(|| "after".to_owned());
        Self { param, ..Self::new(code, e.to_string()) }
    }
}

impl From<io::Error> for ApiError {
    fn from(e: io::Error) -> Self {
        if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::disk_full(e);
        }
        Self::internal(e)
    }
}

impl ApiError {
    /// Less than what is kept free would be left.
    pub(super) fn disk_low(reserve_bytes: u64) -> Self {
        let message = format!(
            "less than {} MiB would be left free on the server's disk, and so much is kept for the work under way: delete files, \
             exports or runs that nobody needs (DELETE /v1/fine_tuning/jobs/{{job_id}}/run), then send it again",
            reserve_bytes >> 20
        );
        Self::new(ErrorCode::DiskFull, message)
    }

    /// A write failed because nothing is left to write on.
    pub(super) fn disk_full(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(
            ErrorCode::DiskFull,
            "the server's disk (or its quota) is full; nothing was kept of this request: free some space, for instance \
             by deleting files or models you no longer need, then send it again",
        )
        .caused_by(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_in_the_body_and_the_first_one_leads() {
        let mut problems = Problems::default();
        problems.at("/method/mrpo/references/1/model", "model_not_found", "there is no model 'x'");
        problems.at("/seed", "out_of_range", "a seed is between 0 and 2147483647");
        let body = serde_json::to_value(ApiError::invalid(problems).body()).expect("serialises");
        assert_eq!(body["status"], 400);
        assert_eq!(body["error"]["code"], "model_not_found");
        assert_eq!(body["error"]["param"], "method.mrpo.references.1.model");
        assert_eq!(body["n_problems"], 2);
        assert_eq!(body["errors"][1]["pointer"], "/seed");
        assert_eq!(body["detail"], "there is no model 'x' (and 1 more: see errors)");
    }

    #[test]
    fn a_permanent_conflict_is_not_sent_again() {
        let response = ApiError::new(ErrorCode::AlreadyExists, "taken").into_response();
        assert_eq!(response.headers()[&SHOULD_RETRY], "false");
        let busy = ApiError::new(ErrorCode::Overloaded, "busy").into_response();
        assert_eq!(
            (busy.headers().get(&SHOULD_RETRY), &busy.headers()[header::RETRY_AFTER]),
            (None, &"1".parse().expect("value"))
        );
    }

    #[test]
    fn a_cause_never_reaches_the_client() {
        let body = ApiError::internal(io::Error::other("/secret/path")).body();
        assert!(!serde_json::to_string(&body).expect("serialises").contains("secret"));
        assert_eq!(ApiError::from(io::Error::from(io::ErrorKind::StorageFull)).code, ErrorCode::DiskFull);
    }
}
