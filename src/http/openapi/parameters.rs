//! What stands in an address, a query or a header, completed: ids by their form, texts by their limits, headers that belong to many.

use serde_json::{Value, json};

use super::object;
use crate::{
    domain::JobRequest,
    http::{
        access::MAX_KEY_BYTES, error::ErrorCode, form::MAX_NAME_CHARS, paging::MAX_CURSOR_CHARS, replay::MAX_KEY_CHARS,
    },
};

/// Parts of an address: the schema of each, and what is said where it names nothing.
pub(super) const PARTS: [(&str, &str, ErrorCode); 11] = [
    ("file_id", "FileId", ErrorCode::FileNotFound),
    ("upload_id", "UploadId", ErrorCode::UploadNotFound),
    ("model", "ModelId", ErrorCode::ModelNotFound),
    ("reference_list_id", "ReferenceListId", ErrorCode::ReferenceListNotFound),
    ("job_id", "JobId", ErrorCode::JobNotFound),
    ("export_id", "ExportId", ErrorCode::ExportNotFound),
    ("checkpoint_id", "CheckpointId", ErrorCode::CheckpointNotFound),
    ("key_id", "KeyId", ErrorCode::KeyNotFound),
    ("webhook_endpoint_id", "WebhookId", ErrorCode::WebhookNotFound),
    ("event_id", "WebhookEventId", ErrorCode::DeliveryNotFound),
    ("name", "", ErrorCode::FileNotFound),
];
/// Completes an operation's parameters: one that makes something knows the same request again, one that gives a file goes on where it
/// broke off.
pub(super) fn complete(operation: &mut Value, creates: bool, has_range: bool) {
    if creates || has_range {
        object(operation).entry("parameters").or_insert_with(|| json!([]));
    }
    let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut) else { return };
    parameters.iter_mut().for_each(complete_one);
    if creates {
        parameters.push(json!({
            "name": "idempotency-key", "in": "header", "required": false, "example": "5f0c9a5e-7d0e-4b43-a1d5-2b9a3c1f7e11",
            "description": "Makes it safe to send the request again: for a day the same key with the same request gives the same \
                            answer, with `idempotent-replayed: true`.",
            "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARS, "pattern": "^[!-~]+$"},
        }));
    }
    if has_range {
        let etag = "\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"";
        let header = |name: &str, description: &str| {
            json!({"name": name, "in": "header", "required": false, "description": description, "example": etag,
                   "schema": {"type": "string"}})
        };
        parameters.push(header("if-none-match", "The `etag` one has: 304 if it is still the one"));
        parameters.push(header("if-range", "The `etag` that the parts one has are of: all of it if it has changed"));
    }
}

fn complete_one(parameter: &mut Value) {
    // utoipa passes over the comment of a field with a schema of its own.
    if parameter.get("description").is_none() {
        parameter["description"] = object(&mut parameter["schema"]).remove("description").unwrap_or_default();
    }
    let is_path = parameter["in"] == "path";
    let name = parameter["name"].as_str().unwrap_or_default().to_owned();
    let schema = &mut parameter["schema"];
    let id = PARTS.iter().find(|(part, id, _)| is_path && *part == name && !id.is_empty());
    match name.as_str() {
        _ if id.is_some() => *schema = json!({"$ref": format!("#/components/schemas/{}", id.map_or("", |id| id.1))}),
        "name" if is_path => schema["maxLength"] = MAX_NAME_CHARS.into(),
        "after" if schema["type"] == "string" => schema["maxLength"] = MAX_CURSOR_CHARS.into(),
        "token" => schema["maxLength"] = MAX_KEY_BYTES.into(),
        "metadata" => {
            schema["maxProperties"] = JobRequest::MAX_METADATA.into();
            schema["additionalProperties"]["maxLength"] = JobRequest::MAX_METADATA_VALUE_CHARS.into();
            schema["propertyNames"] =
                json!({"type": "string", "minLength": 1, "maxLength": JobRequest::MAX_METADATA_KEY_CHARS});
        }
        _ => {}
    }
}
