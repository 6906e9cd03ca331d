//! Around every request: its id, one line in the log, a limit on how many run at once, and a panic made an answer.

use std::{any::Any, panic::AssertUnwindSafe, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use tracing::Instrument;
use uuid::Uuid;

use super::{
    App,
    error::{ApiError, ErrorCode},
    event_stream,
    span::Span,
};

/// Names a request in the answer and in the log.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The same, for handlers.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

/// A longer id of a client's own is not taken over.
pub(super) const MAX_REQUEST_ID_BYTES: usize = 128;

/// The method's name, if it is one that routes have. Whoever makes up methods must not make series and names of spans.
pub(super) fn known(method: &Method) -> Option<&str> {
    let known = [Method::GET, Method::HEAD, Method::POST, Method::DELETE, Method::OPTIONS];
    known.contains(method).then_some(method.as_str())
}

/// The middleware; the path is logged as its pattern and the query not at all, so that no name or text gets into the log.
pub(super) async fn observe(State(app): State<App>, mut req: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(req.headers());
    req.extensions_mut().insert(RequestId(id.to_str().unwrap_or_default().to_owned()));
    let method = req.method().clone();
    let route = req.extensions().get::<MatchedPath>().cloned();
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default());
    let route_text = route.as_ref().map_or("none", |r| r.as_str());
    let mut traced = Span::begin(&method, route_text, req.headers(), id.to_str().unwrap_or_default());
    let mut response = answer(&app, route_text, req, next).instrument(span.clone()).await;
    response.headers_mut().insert(REQUEST_ID, id);
    traced.answered(response.status().as_u16());
    app.requests().count(&method, route_text, response.status().as_u16(), started.elapsed());
    span.in_scope(|| {
        tracing::info!(
            %method,
            route = route_text,
            status = response.status().as_u16(),
            duration_ms = started.elapsed().as_millis() as u64,
            "answered"
        );
    });
    response
}

async fn answer(app: &App, route: &str, req: Request, next: Next) -> Response {
    let permit = if event_stream::is_stream(route, &req) {
        // Those that were open when a server ends come back all at once, and browsers do not come back after a refusal: they wait.
        app.live().may_open().await
    } else {
        app.in_flight().enter()
    };
    let Some(_permit) = permit else {
        return ApiError::new(ErrorCode::Overloaded, "too many requests at once: send it again in a moment")
            .into_response();
    };
    match AssertUnwindSafe(next.run(req)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => ApiError::internal(format!("a handler panicked: {}", panic_text(panic.as_ref()))).into_response(),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

/// The client's own id where it is short and plain, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let plain = |v: &&HeaderValue| {
        let bytes = v.as_bytes();
        !bytes.is_empty()
            && bytes.len() <= MAX_REQUEST_ID_BYTES
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(b))
    };
    headers.get(REQUEST_ID).filter(plain).cloned().unwrap_or_else(|| {
        HeaderValue::try_from(format!("req-{}", Uuid::now_v7().simple()))
            .expect("hexadecimal digits are a header value")
    })
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware, routing::get};
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_answered_like_any_error_and_tells_nothing() {
        let dir = tempfile::tempdir().expect("temp dir");
        let app = App::for_tests(dir.path()).await;
        let routes = Router::new().route("/", get(async || -> &'static str { panic!("a secret") }));
        let service = TowerToHyperService::new(routes.layer(middleware::from_fn_with_state(app, observe)));
        let response = service.call(Request::new(Body::empty())).await.expect("infallible");
        assert_eq!(response.status(), 500);
        assert!(response.headers().contains_key(REQUEST_ID));
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.expect("body");
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("\"internal\"") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn only_a_plain_short_id_is_taken_over() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(value).expect("value"));
            request_id(&headers)
        };
        assert_eq!(with("my-id:1"), "my-id:1");
        assert_ne!(with("a b"), "a b");
        assert_ne!(with(&"x".repeat(129)), "x".repeat(129));
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
