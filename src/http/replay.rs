//! A request sent again is answered as before instead of being done twice: by its `Idempotency-Key`, or, of a job, where an OpenAI SDK
//! says that it sends it again by itself.
//!
//! It stands before routes that make something and take JSON. Keys of people and webhooks are left out: an answer that holds a secret is
//! not kept.

use axum::{
    body::{Body, to_bytes},
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use tracing::Instrument;

use super::{
    App,
    error::{ApiError, ErrorCode},
    extract::body_of,
    form::hex,
};
use crate::{
    domain::{Caller, UserName},
    store::{KeptReply, ReplyClaim, ReplySlot, unix_now},
};

/// The header of draft-ietf-httpapi-idempotency-key-header.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// How often an OpenAI SDK has sent this request before, by itself.
const RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");
/// Says that an answer is an old one.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Where jobs are made: the one thing that is dear to make twice.
const JOBS: &str = "/v1/fine_tuning/jobs";
/// Which POSTs make something.
pub(super) const CREATES: [&str; 6] = [
    JOBS,
    "/v1/models",
    "/v1/models/{model}/exports",
    "/v1/reference_lists",
    "/v1/uploads",
    "/v1/uploads/{upload_id}/complete",
];
/// The longest key.
pub(super) const MAX_KEY_CHARS: usize = 255;
/// How far back an SDK's repetition may reach, in seconds: its own time limit, ten minutes, and some.
pub(super) const MAX_RETRY_AGE_S: i64 = 660;
/// The longest answer that is kept.
pub(super) const MAX_REPLY_BYTES: usize = 4 << 20;

/// What makes two requests the same.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sameness {
    /// The client's own key.
    Key(String),
    /// The body, where an SDK counts; whether it has been sent before.
    Body { again: bool },
}

/// The middleware; it stands behind the guard, which knows who asks.
pub(super) async fn replay(State(app): State<App>, req: Request, next: Next) -> Response {
    let route = req.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if req.method() != Method::POST || !CREATES.contains(&route) {
        return next.run(req).await;
    }
    match sameness(route, req.headers()) {
        Ok(None) => next.run(req).await,
        Ok(Some(sameness)) => answer(app, sameness, req, next).await.unwrap_or_else(IntoResponse::into_response),
        Err(e) => e.into_response(),
    }
}

fn sameness(route: &str, headers: &HeaderMap) -> Result<Option<Sameness>, ApiError> {
    if let Some(key) = headers.get(KEY) {
        let key = key.to_str().unwrap_or_default().trim_matches('"');
        if key.is_empty() || key.len() > MAX_KEY_CHARS || !key.bytes().all(|b| b.is_ascii_graphic()) {
            let message = format!("an Idempotency-Key has 1 to {MAX_KEY_CHARS} letters, digits and signs: a UUID, say");
            return Err(ApiError::new(ErrorCode::InvalidRequest, message).param(KEY.as_str()));
        }
        return Ok(Some(Sameness::Key(key.to_owned())));
    }
    let count: Option<u32> = headers.get(RETRY_COUNT).and_then(|v| v.to_str().ok()?.parse().ok());
    Ok(count.filter(|_| route == JOBS).map(|n| Sameness::Body { again: n > 0 }))
}

async fn answer(app: App, sameness: Sameness, req: Request, next: Next) -> Result<Response, ApiError> {
    let (parts, body) = req.into_parts();
    let bytes = body_of(Request::from_parts(parts.clone(), body)).await?;
    let fingerprint = fingerprint(&[parts.uri.to_string().as_bytes(), &bytes]);
    let now = unix_now();
    let (key, since) = match sameness {
        Sameness::Key(key) => (key, i64::MIN),
        // A key of a client's own has no spaces. What is sent for the first time is an order of its own, whatever it says.
        Sameness::Body { again } => {
            (format!("sent again {fingerprint}"), if again { now - MAX_RETRY_AGE_S } else { i64::MAX })
        }
    };
    let caller = parts.extensions.get::<Caller>().and_then(|caller| caller.user.as_ref());
    let slot = ReplySlot { caller: caller.map_or("", UserName::as_str).to_owned(), key, fingerprint };
    let req = Request::from_parts(parts, Body::from(bytes));
    // On its own from here on: a client that hangs up leaves no slot taken for ever, and finds it done when it sends it again.
    let done = tokio::spawn(async move { once(&app, &slot, (since, now), req, next).await }.in_current_span());
    done.await.map_err(ApiError::internal)?
}

/// Works on a request unless its slot holds something from `since` on.
async fn once(
    app: &App,
    slot: &ReplySlot,
    (since, now): (i64, i64),
    req: Request,
    next: Next,
) -> Result<Response, ApiError> {
    match app.store().claim_reply(slot, since, now).await? {
        ReplyClaim::Free => keep(app, slot, next.run(req).await).await,
        ReplyClaim::Kept(reply) => replayed(reply),
        ReplyClaim::InProgress => {
            let message = "the same request is still being worked on: ask again in a moment";
            Err(ApiError::new(ErrorCode::InProgress, message))
        }
        ReplyClaim::OfAnother => {
            let message = "this Idempotency-Key was used for another request: give each request a key of its own";
            Err(ApiError::new(ErrorCode::KeyReused, message).param(KEY.as_str()))
        }
    }
}

/// Keeps an answer that is a success; after any other the same request may be tried again.
async fn keep(app: &App, slot: &ReplySlot, response: Response) -> Result<Response, ApiError> {
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, MAX_REPLY_BYTES).await.map_err(ApiError::internal)?;
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let reply =
        KeptReply { status: parts.status.as_u16(), content_type: content_type.to_owned(), body: bytes.to_vec() };
    if let Err(e) = app.store().keep_reply(slot, parts.status.is_success().then_some(&reply)).await {
        // It has happened: an answer that says otherwise would be repeated.
        tracing::error!(error = &e as &dyn std::error::Error, "a reply could not be kept");
    }
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

fn replayed(reply: KeptReply) -> Result<Response, ApiError> {
    let status = StatusCode::from_u16(reply.status).map_err(ApiError::internal)?;
    let content_type = HeaderValue::try_from(reply.content_type).map_err(ApiError::internal)?;
    let headers = [(header::CONTENT_TYPE, content_type), (REPLAYED, HeaderValue::from_static("true"))];
    Ok((status, headers, reply.body).into_response())
}

/// Every part goes in after its length, so that no two lists of parts give the same digest.
fn fingerprint(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}
