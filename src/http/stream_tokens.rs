//! `/v1/stream_tokens`: what a web page shows in place of a key, because an `EventSource` sends no headers and an address is no place
//! for a key. A token opens streams only, for minutes, and lives in memory.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use axum::extract::{Query, Request, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    access::{By, MAX_KEY_BYTES},
    error::{ApiError, ErrorCode},
    event_stream,
};
use crate::{
    domain::{Caller, Secret},
    store::unix_now,
};

/// How long a token opens streams, in seconds. One that is open goes on.
pub(super) const LIFE_SECONDS: i64 = 600;
/// How many one key may have at once, and how many there may be.
pub(super) const MAX_OF_KEY: usize = 256;
const MAX_TOKENS: usize = 16_384;

/// Where they are made. A token lets look, so a key that may only look makes them too.
pub(super) const ROUTE: &str = "/v1/stream_tokens";

/// The route.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_stream_token))
}

/// The tokens that open something, by their digests.
#[derive(Debug, Default)]
pub(super) struct StreamTokens(Mutex<HashMap<String, Pass>>);

#[derive(Debug)]
struct Pass {
    caller: Caller,
    expires_at: i64,
}

impl StreamTokens {
    /// A new token for a caller, at `now`; none where there are too many.
    fn issue(&self, caller: &Caller, now: i64) -> Option<(Secret, i64)> {
        let mut passes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        passes.retain(|_, pass| now < pass.expires_at);
        let n_of_key = passes.values().filter(|pass| pass.caller.key == caller.key).count();
        if passes.len() >= MAX_TOKENS || n_of_key >= MAX_OF_KEY {
            return None;
        }
        let (secret, expires_at) = (Secret::new(), now + LIFE_SECONDS);
        passes.insert(secret.digest(), Pass { caller: caller.clone(), expires_at });
        Some((secret, expires_at))
    }

    /// For whom a token was made, if it opens anything at `now`. Whether their key still works is another question.
    pub(super) fn caller(&self, token: &Secret, now: i64) -> Option<Caller> {
        let passes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        passes.get(&token.digest()).filter(|pass| now < pass.expires_at).map(|pass| pass.caller.clone())
    }
}

/// The token in a stream's query (`?token=`); at no other request's it is looked.
pub(super) fn shown(route: &str, req: &Request) -> Option<Secret> {
    if !event_stream::is_stream(route, req) {
        return None;
    }
    let Query(TokenQuery { token }) = Query::try_from_uri(req.uri()).ok()?;
    token.filter(|token| (1..=MAX_KEY_BYTES).contains(&token.len())).map(|token| Secret::shown_by_client(&token))
}

#[derive(Deserialize)]
struct TokenQuery {
    token: Option<String>,
}

/// What a web page opens streams with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct StreamTokenObject {
    /// `stream_token`.
    #[schema(example = "stream_token")]
    object: &'static str,
    /// For `?token=` of streams. It is shown this once.
    token: String,
    /// When it stops opening streams: Unix time in seconds.
    expires_at: i64,
}

/// Makes a token for streams
///
/// It stands for whoever asks, opens streams (`?token=`) and nothing else, for ten minutes. A stream that is open goes on, as long as the key
/// works. A server that restarts knows no token of before.
#[utoipa::path(
    post, path = "/v1/stream_tokens", tag = "live",
    responses(
        (status = 200, description = "The token", body = StreamTokenObject),
        (status = 429, description = "Too many tokens that have not expired: `rate_limited`"),
    )
)]
async fn create_stream_token(
    State(app): State<App>,
    By(caller): By,
) -> Result<axum::Json<StreamTokenObject>, ApiError> {
    let Some((token, expires_at)) = app.stream_tokens().issue(&caller, unix_now()) else {
        let message = "too many tokens that have not expired: one opens any number of streams, use it again";
        return Err(ApiError::new(ErrorCode::RateLimited, message));
    };
    Ok(axum::Json(StreamTokenObject { object: "stream_token", token: token.reveal().to_owned(), expires_at }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_and_there_are_not_too_many() {
        let tokens = StreamTokens::default();
        let (token, expires_at) = tokens.issue(&Caller::ANYBODY, 1000).expect("the first");
        assert_eq!(expires_at, 1000 + LIFE_SECONDS);
        assert_eq!(tokens.caller(&token, expires_at - 1), Some(Caller::ANYBODY));
        assert_eq!(tokens.caller(&token, expires_at), None);
        assert_eq!(tokens.caller(&Secret::new(), 1000), None);
        assert!((1..MAX_OF_KEY).all(|_| tokens.issue(&Caller::ANYBODY, 1001).is_some()));
        assert!(tokens.issue(&Caller::ANYBODY, 1001).is_none());
        assert!(tokens.issue(&Caller::ANYBODY, 1001 + LIFE_SECONDS).is_some());
    }
}
