//! The committed description of the API: it is the one the code generates, it is complete, and what is written beside it agrees.

mod completeness;
mod instances;
mod tables;

use std::{path::Path, sync::LazyLock};

use serde_json::Value;

/// The document.
static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(mrpo::http::document()).expect("the document is JSON"));

/// A file of the repository.
fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_default()
}

/// Every operation: its name for people, and itself.
fn operations() -> Vec<(String, &'static Value)> {
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let of_path = |(path, item): (&String, &'static Value)| {
        let item = item.as_object().expect("operations");
        item.iter().map(|(method, operation)| (format!("{method} {path}"), operation)).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

/// What a `$ref` refers to; anything else is itself.
fn resolve(mut value: &'static Value) -> &'static Value {
    while let Some(reference) = value["$ref"].as_str() {
        let place = reference.strip_prefix('#').expect("a place in this document");
        value = DOCUMENT.pointer(place).unwrap_or_else(|| panic!("{reference} is not there"));
    }
    value
}

#[test]
fn the_committed_document_is_the_generated_one() {
    assert!(
        read("openapi/openapi.json") == mrpo::http::document(),
        "openapi/openapi.json is not what the code generates; write it anew with\n\n    cargo run -- openapi > openapi/openapi.json\n\n\
         and look at the difference: it is what clients will see change"
    );
}
