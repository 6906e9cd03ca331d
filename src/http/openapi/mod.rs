//! The API's description, generated from the handlers: OpenAPI 3.1.
//!
//! A handler's annotation says what only it knows. What holds for many is added here, from the rules themselves: who is asked for a key,
//! which errors a body or an id may come to, what every answer carries, the range of each setting, every limit. `tests/openapi.rs` walks
//! the result, so that a new route cannot forget any of it.

mod bodies;
mod examples;
mod limits;
mod operations;
mod parameters;
mod schemas;

use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use utoipa::openapi::{Components, InfoBuilder, LicenseBuilder};

use super::{
    error::ErrorCode,
    error_body::ErrorBody,
    frame::{StreamedEvent, StreamedStatus},
    routes,
};
use crate::domain::LoraRequest;

/// The groups of operations, in the order in which one comes to them.
const TAGS: [(&str, &str); 13] = [
    ("files", "Preference pairs and scores made elsewhere: uploaded whole or in parts, checked line by line."),
    ("models", "What can be tuned and what can be a reference."),
    ("reference lists", "Named lists of models to tune against."),
    ("fine-tuning jobs", "What is trained: created, watched, paused, cancelled."),
    ("checkpoints", "What a job has saved, file by file and as an archive."),
    ("exports", "Models written for other programs: Hugging Face directories and GGUF files."),
    ("reference scores", "The references' log-probabilities that are kept across jobs."),
    ("objectives", "The mathematics alone: losses, gradients and weights of given log-probabilities."),
    ("queue", "Who runs, what waits and when it will start."),
    ("live", "Events of all jobs as they happen."),
    ("webhooks", "Addresses that are told when jobs have ended, and what became of it."),
    ("people", "Keys, who they belong to, sharing, and who changed what."),
    ("server", "Whether the server lives and can work, and what it can do."),
];

/// What stands in front of everything else.
const DESCRIPTION: &str = concat!(
    env!("CARGO_PKG_DESCRIPTION"),
    ".\n\nThe wire is OpenAI's for files, models and fine-tuning jobs: its SDKs work unchanged. Times are Unix seconds, sizes bytes, \
     log-probabilities nats.\n\n**Keys.** A server that has keys asks for one: `Authorization: Bearer mrpo_…`. A server without keys asks \
     nobody, and listens on this machine only.\n\n**Errors.** Every error is `application/problem+json` and holds OpenAI's `error` object \
     too. `error.code` is for programs, the message names the way out, and `errors` lists every problem of a body; where it does, \
     `error.code` is the first problem's. `x-error-codes` lists the codes, here all of them and at each answer those it may have.\n\n\
     **Lists** are pages: `after` is the id of the last item one has; an unknown one is an error and never the first page.\n\n**The same \
     request again.** A POST that makes something takes an `Idempotency-Key`.\n\n**Limits.** `x-limits` has all of them."
);

/// The document as it is served, committed and printed: indented, with a last newline.
pub fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let mut text = serde_json::to_string_pretty(&generate()).expect("a description always serialises");
        text.push('\n');
        text
    });
    &DOCUMENT
}

fn generate() -> Value {
    let mut api = routes().into_openapi();
    api.info = InfoBuilder::new()
        .title(env!("CARGO_PKG_NAME"))
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0")).build()))
        .build();
    let components = api.components.get_or_insert_with(Components::new);
    add_schema::<ErrorBody>(components);
    add_schema::<LoraRequest>(components);
    add_schema::<StreamedEvent>(components);
    add_schema::<StreamedStatus<'_>>(components);
    let mut document = serde_json::to_value(&api).expect("a description always serialises");
    schemas::complete(&mut document);
    operations::complete(&mut document);
    examples::add(&mut document);
    let tags = TAGS.iter().map(|(name, text)| json!({"name": name, "description": text}));
    document["tags"] = tags.collect();
    document["servers"] = json!([{"url": "/", "description": "The server that serves this document"}]);
    document["x-limits"] = limits::all();
    document["x-error-codes"] = error_codes();
    document
}

fn add_schema<T: utoipa::ToSchema>(components: &mut Components) {
    let mut schemas = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut schemas);
    components.schemas.extend(schemas);
}

/// The table of error codes.
fn error_codes() -> Value {
    let row = |code: &ErrorCode| {
        let about = json!({"status": code.status().as_u16(), "title": code.title()});
        (code.as_str().to_owned(), about)
    };
    ErrorCode::ALL.iter().map(row).collect::<Map<_, _>>().into()
}

/// The object at a place of the document.
///
/// # Panics
/// If there is something else: what is generated has one shape.
fn object(value: &mut Value) -> &mut Map<String, Value> {
    value.as_object_mut().expect("the generator writes an object here")
}
