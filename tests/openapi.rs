//! The committed description of the API is the one the code generates.

use std::path::Path;

#[test]
fn the_committed_document_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/openapi.json");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == mrpo::http::document(),
        "openapi/openapi.json is not what the code generates; write it anew with\n\n    cargo run -- openapi > openapi/openapi.json\n\n\
         and look at the difference: it is what clients will see change"
    );
}

#[test]
fn every_operation_is_described_with_its_errors() {
    let document: serde_json::Value = serde_json::from_str(mrpo::http::document()).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        assert!(!path.contains('*'), "{path} is a pattern of the router");
        for (method, operation) in item.as_object().expect("operations") {
            let name = format!("{method} {path}");
            assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{name}");
            assert!(ids.insert(operation["operationId"].as_str().expect("an id").to_owned()), "{name}");
            let error = &operation["responses"]["default"]["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(error, "#/components/schemas/ErrorBody", "{name}");
            for part in path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}')) {
                let described = operation["parameters"].as_array().expect(&name).iter().any(|p| p["name"] == part);
                assert!(described, "{name}: {part}");
            }
        }
    }
}
