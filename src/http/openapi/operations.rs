//! What holds for many operations, written into each: keys, errors, headers.
//!
//! A handler names the errors that are its own by their codes, in backticks, in the text of an answer. Those that come of what a route
//! is (its body, its ids, that it asks for a key) are added here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    object,
    parameters::{self, PARTS},
};
use crate::http::{
    access::{PUBLIC, USES},
    error::{ApiError, ErrorCode},
    replay::CREATES,
    stream_tokens,
};

/// Parts that stand for what nobody owns, or what belongs to the part before.
const UNOWNED: [&str; 4] = ["checkpoint_id", "event_id", "key_id", "name"];

/// Completes every operation.
pub(super) fn complete(document: &mut Value) {
    document["components"]["securitySchemes"] = json!({"key": {
        "type": "http", "scheme": "bearer",
        "description": "A key as `mrpo keys create --user NAME` or `POST /v1/api_keys` makes it. A server that has no keys asks nobody.",
    }});
    document["components"]["headers"] = headers();
    let examples = ErrorCode::ALL.into_iter().map(|code| {
        let value = serde_json::to_value(ApiError::example(code)).expect("texts and numbers always serialise");
        (code.as_str().to_owned(), json!({"summary": code.title(), "value": value}))
    });
    document["components"]["examples"] = examples.collect::<Map<_, _>>().into();
    // The router's `{*model}` takes in slashes; the description knows only `{model}`.
    let paths = std::mem::take(object(&mut document["paths"]));
    document["paths"] = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    for (path, item) in object(&mut document["paths"]) {
        for (method, operation) in object(item) {
            let facts = Facts::of(method, path, operation);
            facts.complete(operation);
        }
    }
}

/// What an operation is, as far as rules ask.
#[expect(clippy::struct_excessive_bools, reason = "each is a question that some rule asks")]
struct Facts<'a> {
    path: &'a str,
    parts: Vec<&'a str>,
    is_public: bool,
    is_safe: bool,
    creates: bool,
    has_query: bool,
    /// Whether a page is asked for by the id of the last item.
    has_cursor: bool,
    has_range: bool,
    resumes: bool,
    body: Option<Body>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    Json,
    Form,
}

impl<'a> Facts<'a> {
    fn of(method: &str, path: &'a str, operation: &Value) -> Self {
        let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        let has = |place: &str, name: &str| parameters.iter().any(|p| p["in"] == place && p["name"] == name);
        let is_text = |name: &str| parameters.iter().any(|p| p["name"] == name && p["schema"]["type"] == "string");
        let content = &operation["requestBody"]["content"];
        Self {
            path,
            parts: path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect(),
            is_public: PUBLIC.contains(&path),
            is_safe: method == "get",
            creates: method == "post" && CREATES.contains(&path),
            has_query: parameters.iter().any(|p| p["in"] == "query"),
            has_cursor: has("query", "after") && is_text("after"),
            has_range: has("header", "range"),
            resumes: has("header", "last-event-id"),
            body: match (content.get("application/json"), content.get("multipart/form-data")) {
                (Some(_), _) => Some(Body::Json),
                (None, Some(_)) => Some(Body::Form),
                (None, None) => None,
            },
        }
    }

    fn complete(&self, operation: &mut Value) {
        if !self.is_public {
            operation["security"] = json!([{"key": []}]);
        }
        parameters::complete(operation, self.creates, self.has_range);
        let mut by_status = BTreeMap::<u16, BTreeSet<&str>>::new();
        for code in self.codes().into_iter().chain(named(operation)) {
            by_status.entry(code.status().as_u16()).or_default().insert(code.as_str());
        }
        let answers = object(&mut operation["responses"]);
        for (status, codes) in by_status {
            let answer = answers.entry(status.to_string()).or_insert_with(|| json!({}));
            complete_error(answer, &codes);
        }
        for (status, answer) in answers {
            Self::describe_files(answer);
            self.add_headers(status, answer);
        }
    }

    /// The errors that come of what the route is.
    fn codes(&self) -> Vec<ErrorCode> {
        use ErrorCode as E;
        let mut codes = vec![E::Internal, E::Overloaded];
        let mut add = |applies: bool, some: &[ErrorCode]| codes.extend(some.iter().filter(|_| applies));
        let is_owned = self.parts.iter().any(|part| !UNOWNED.contains(part));
        add(!self.is_public, &[E::Unauthenticated, E::RateLimited]);
        add(!self.is_safe && self.path != stream_tokens::ROUTE, &[E::InsufficientScope]);
        add(!self.is_safe && is_owned && !USES.contains(&self.path), &[E::NotOwner]);
        add(!self.is_safe, &[E::DiskFull]);
        add(!self.parts.is_empty(), &[E::RouteNotFound]);
        add(self.has_query, &[E::InvalidQuery]);
        add(self.has_cursor, &[E::UnknownCursor]);
        add(self.resumes, &[E::InvalidRequest, E::UnknownCursor]);
        add(self.has_range, &[E::RangeNotSatisfiable]);
        add(self.body == Some(Body::Json), &[E::InvalidJson]);
        add(self.body == Some(Body::Form), &[E::InvalidMultipart]);
        let of_body = [E::InvalidRequest, E::RequestTimeout, E::BodyTooLarge, E::UnsupportedMediaType];
        add(self.body.is_some(), &of_body);
        add(self.creates, &[E::InvalidRequest, E::InProgress, E::KeyReused]);
        let missing = |part: &&str| PARTS.iter().find(|(name, ..)| name == part).map(|(.., code)| *code);
        codes.extend(self.parts.iter().filter_map(missing));
        codes
    }

    /// utoipa describes bytes as a list of numbers.
    fn describe_files(answer: &mut Value) {
        for media_type in ["application/octet-stream", "application/x-tar"] {
            if let Some(content) = answer.pointer_mut(&format!("/content/{}", media_type.replace('/', "~1"))) {
                content["schema"] = json!({"type": "string", "format": "binary"});
            }
        }
    }

    fn add_headers(&self, status: &str, answer: &mut Value) {
        let mut names = vec!["x-request-id"];
        let mut add = |applies: bool, some: &[&'static str]| names.extend(some.iter().filter(|_| applies));
        add(status == "401", &["www-authenticate"]);
        add(status == "409", &["x-should-retry"]);
        add(["429", "503"].contains(&status) || (status == "409" && self.creates), &["retry-after"]);
        add(status == "200" && self.creates, &["idempotent-replayed"]);
        let is_download = self.has_range && ["200", "206"].contains(&status);
        add(is_download, &["etag", "accept-ranges", "content-disposition", "repr-digest"]);
        add(self.has_range && ["206", "416"].contains(&status), &["content-range"]);
        add(self.has_range && status == "304", &["etag"]);
        let refer = |name: &str| (name.to_owned(), json!({"$ref": format!("#/components/headers/{name}")}));
        let headers: Map<String, Value> = names.into_iter().map(refer).collect();
        object(answer).insert("headers".to_owned(), headers.into());
    }
}

/// The codes a handler names in its answers' texts.
fn named(operation: &Value) -> Vec<ErrorCode> {
    let answers = operation["responses"].as_object().into_iter().flatten();
    let errors = answers.filter(|(status, _)| status.starts_with(['4', '5']));
    let texts = errors.filter_map(|(_, answer)| answer["description"].as_str());
    let words = texts.flat_map(|text| text.split('`').skip(1).step_by(2));
    words.filter_map(|word| ErrorCode::ALL.into_iter().find(|code| code.as_str() == word)).collect()
}

/// One body for all of them; the codes as an example each.
fn complete_error(answer: &mut Value, codes: &BTreeSet<&str>) {
    let answer = object(answer);
    let titles = || {
        let of_codes = ErrorCode::ALL.into_iter().filter(|code| codes.contains(code.as_str()));
        of_codes.map(ErrorCode::title).collect::<Vec<_>>().join("; ")
    };
    answer.entry("description").or_insert_with(|| titles().into());
    answer.insert("x-error-codes".to_owned(), codes.iter().copied().collect());
    let refer = |code: &&str| ((*code).to_owned(), json!({"$ref": format!("#/components/examples/{code}")}));
    let examples: Map<String, Value> = codes.iter().map(refer).collect();
    answer.insert(
        "content".to_owned(),
        json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}, "examples": examples}}),
    );
}

fn headers() -> Value {
    let text = |description: &str, example: &str| json!({"description": description, "schema": {"type": "string"}, "example": example});
    let sha = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let mut request_id = text(
        "Names the request, in the server's log too. A client may give its own in the same header: up to 128 letters, digits and `-_.:`",
        "req-01a21e3447a9703cb8a7ac8ea2a69aa8",
    );
    request_id["required"] = true.into();
    json!({
        "x-request-id": request_id,
        "www-authenticate": text("How to show a key", "Bearer"),
        "x-should-retry": text("Whether asking again can change the answer; OpenAI's SDKs obey it", "false"),
        "retry-after": text("After how many seconds to ask again", "1"),
        "idempotent-replayed": text("That this is the answer to an earlier request with the same key", "true"),
        "etag": text("SHA-256 of the whole file: one that is still the same may be gone on with", &format!("\"{sha}\"")),
        "accept-ranges": text("That parts can be asked for", "bytes"),
        "content-range": text("Which part this is, and of how many bytes", "bytes 0-1023/4096"),
        "content-disposition": text("The name the file is offered under", "attachment; filename=\"model.gguf\""),
        "repr-digest": text("SHA-256 of the whole file (RFC 9530)", "sha-256=:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=:"),
    })
}
