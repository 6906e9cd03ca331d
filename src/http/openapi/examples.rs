//! Requests and answers as a server gave them: `openapi/examples.json`, which `scripts/openapi_examples.py` writes from a real run.

use serde_json::{Map, Value};

use super::object;

/// By operation: `request` is the JSON body that was sent, `response` what came.
const EXAMPLES: &str = include_str!("../../../openapi/examples.json");

/// Puts each beside the operation it is of.
pub(super) fn add(document: &mut Value) {
    let examples: Map<String, Value> =
        serde_json::from_str(EXAMPLES).expect("the examples are JSON: a test reads them");
    let operations = object(&mut document["paths"]).values_mut().flat_map(|item| object(item).values_mut());
    for operation in operations {
        let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
        let Some(example) = examples.get(&id) else { continue };
        if let Some(request) = example.get("request") {
            insert(operation.get_mut("requestBody"), request);
        }
        if let Some(response) = example.get("response") {
            insert(operation["responses"].get_mut("200"), response);
        }
    }
}

/// Texts are examples of what is no JSON.
fn insert(described: Option<&mut Value>, example: &Value) {
    let Some(Value::Object(content)) = described.and_then(|d| d.get_mut("content")) else { return };
    for (media_type, content) in content {
        if (media_type == "application/json") != example.is_string() && content.get("example").is_none() {
            object(content).insert("example".to_owned(), example.clone());
        }
    }
}
