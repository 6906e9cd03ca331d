//! `/docs`: the API's description as a page, for browsers without the internet.
//!
//! One answer holds all of it: the page, its style and its script, which reads `/openapi.json`. The policy it comes with names both by
//! their digests and allows nothing else, so that no text of the document can run.

use std::sync::LazyLock;

use axum::{
    http::{HeaderName, HeaderValue, header},
    response::{Html, IntoResponse},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::App;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str =
    concat!(include_str!("text.js"), include_str!("schema.js"), include_str!("try.js"), include_str!("page.js"));

/// The route.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_docs))
}

static PAGE: LazyLock<String> =
    LazyLock::new(|| include_str!("page.html").replace("/*STYLE*/", STYLE).replace("/*SCRIPT*/", SCRIPT));

static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let digest = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        digest(SCRIPT),
        digest(STYLE)
    );
    HeaderValue::try_from(policy).expect("digests in Base64 are plain")
});

/// Shows this document as a page
///
/// For browsers, without the internet and without a key: search, a command line for each operation, and a form to try it. A key typed
/// there stays in the page's memory.
#[utoipa::path(
    get, path = "/docs", tag = "server",
    responses((status = 200, description = "The page", body = String, content_type = "text/html"))
)]
async fn get_docs() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY.clone()),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ];
    (headers, Html(PAGE.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_what_its_policy_names_and_asks_nobody_else() {
        assert!(PAGE.contains(STYLE) && PAGE.contains(SCRIPT) && POLICY.to_str().expect("plain").contains("sha256-"));
        for elsewhere in ["http://", "https://", "//cdn", "src=", "innerHTML", "eval("] {
            assert!(!PAGE.contains(elsewhere), "{elsewhere}");
        }
    }
}
