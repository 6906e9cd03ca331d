//! Limits of what a client writes: texts, lists and numbers, from the constants that are checked.

use serde_json::{Map, Value, json};

use super::schemas::{bound, id_pattern, limit};
use crate::{
    domain::{
        ExtraField, Hyperparameters, JobRequest, MAX_REFERENCES, ModelId, ModelSource, PartId, Range, SpoSettings,
        TargetModule, UploadRecord, UserName, range_of,
    },
    http::{
        file_request::{COUNTS_FROM, KEPT_FOR_S, PURPOSES},
        form, name, objective_numbers,
    },
};

/// How long a text may be: the schema, the field, fewest and most characters.
const TEXTS: [(&str, &str, usize, usize); 5] = [
    ("JobRequest", "suffix", 1, JobRequest::MAX_SUFFIX_CHARS),
    ("ReferenceListRequest", "name", 1, name::MAX_CHARS),
    ("SpoRequest", "dimension", 1, ExtraField::MAX_DIMENSION_CHARS),
    ("ModelRequest", "source", 1, ModelSource::MAX_BYTES),
    ("UploadRequest", "filename", 1, form::MAX_NAME_CHARS),
];

/// How long a list may be: the schema, the field, fewest and most items.
const LISTS: [(&str, &str, usize, usize); 13] = [
    ("ReferenceListRequest", "references", 1, MAX_REFERENCES),
    ("SpoRequest", "earlier", 0, SpoSettings::MAX_EARLIER),
    ("CompletionRequest", "part_ids", 1, UploadRecord::MAX_PARTS as usize),
    ("ObjectiveRequest", "pairs", 1, objective_numbers::MAX_PAIRS),
    ("ObjectiveRequest", "weighting_pairs", 1, objective_numbers::MAX_PAIRS),
    ("ObjectiveRequest", "weights", 1, MAX_REFERENCES),
    ("ObjectivePair", "margin_rewards_chosen", 1, ExtraField::MAX_REWARDS),
    ("ObjectivePair", "margin_rewards_rejected", 1, ExtraField::MAX_REWARDS),
    ("ObjectivePair", "aux_rewards_chosen", 1, ExtraField::MAX_REWARDS),
    ("ObjectivePair", "aux_rewards_rejected", 1, ExtraField::MAX_REWARDS),
    ("WeightingPair", "chosen", 1, MAX_REFERENCES),
    ("WeightingPair", "rejected", 1, MAX_REFERENCES),
    ("Sides_Vec_f64", "chosen", 1, MAX_REFERENCES),
];

/// Completes the schemas of what clients write.
pub(super) fn complete(schemas: &mut Map<String, Value>) {
    for (schema, field, min, max) in TEXTS {
        set(schemas, schema, field, &[("minLength", min.into()), ("maxLength", max.into())]);
    }
    for (schema, field, min, max) in LISTS.into_iter().chain([("Sides_Vec_f64", "rejected", 1, MAX_REFERENCES)]) {
        set(schemas, schema, field, &[("minItems", min.into()), ("maxItems", max.into())]);
    }
    complete_numbers(schemas);
    complete_choices(schemas);
    for (name, pattern, max) in [
        ("ModelId", "^[A-Za-z0-9][A-Za-z0-9._:-]*$", ModelId::MAX_CHARS),
        ("UserName", "^[A-Za-z0-9][A-Za-z0-9._@-]*$", UserName::MAX_CHARS),
    ] {
        let schema = super::object(&mut schemas[name]);
        schema.insert("pattern".into(), pattern.into());
        schema.insert("minLength".into(), 1.into());
        schema.insert("maxLength".into(), max.into());
    }
    let texts = json!({"type": "string", "maxLength": JobRequest::MAX_METADATA_VALUE_CHARS});
    let names = json!({"type": "string", "maxLength": JobRequest::MAX_METADATA_KEY_CHARS});
    let n_entries = JobRequest::MAX_METADATA.into();
    without_null(&mut schemas["UploadForm"]);
    let metadata = [("maxProperties", n_entries), ("additionalProperties", texts), ("propertyNames", names)];
    set(schemas, "JobRequest", "metadata", &metadata);
}

fn complete_numbers(schemas: &mut Map<String, Value>) {
    let any = Range::between(-objective_numbers::MAX_ABS, objective_numbers::MAX_ABS);
    let numbers = [
        ("JobRequest", "seed", Range::between(0.0, f64::from(JobRequest::MAX_SEED))),
        ("Reference", "weight", Range::between(0.0, 1.0)),
        ("PreviewRequest", "max_length", range_of(&Hyperparameters::LIMITS, "max_length")),
        ("ObjectivePair", "baseline", any),
        ("OptimismLogps", "policy", any),
        ("OptimismLogps", "reference", any),
        ("Sides_f64", "chosen", any),
        ("Sides_f64", "rejected", any),
    ];
    for (schema, field, range) in numbers {
        limit(schemas, &[schema], field, &|value| bound(value, range));
    }
    let is_of_numbers = |(schema, _, _, _): &(&str, &str, usize, usize)| {
        ["ObjectivePair", "WeightingPair", "Sides_Vec_f64"].contains(schema)
    };
    let lists = LISTS.into_iter().filter(is_of_numbers).map(|(schema, field, ..)| (schema, field, any));
    let more = [("Sides_Vec_f64", "rejected", any), ("ObjectiveRequest", "weights", Range::between(0.0, 1.0))];
    for (schema, field, range) in lists.chain(more) {
        limit(schemas, &[schema], field, &|value| bound(super::object(&mut value["items"]), range));
    }
}

/// A form has texts and files, and no null.
fn without_null(form: &mut Value) {
    for field in super::object(&mut form["properties"]).values_mut() {
        if let Some(kind) = field["type"].as_array().and_then(|types| types.iter().find(|t| *t != "null")).cloned() {
            field["type"] = kind;
        }
        if let Some(value) = field["oneOf"].as_array().and_then(|parts| parts.first()).cloned() {
            *field = value;
        }
    }
}

/// What is one of some words, and lists of such.
fn complete_choices(schemas: &mut Map<String, Value>) {
    let purposes: Value = PURPOSES.iter().map(|(word, _)| *word).collect();
    set(schemas, "UploadForm", "purpose", &[("enum", purposes.clone())]);
    set(schemas, "UploadRequest", "purpose", &[("enum", purposes)]);
    set(schemas, "UploadForm", "expires_after[anchor]", &[("enum", json!([COUNTS_FROM]))]);
    set(schemas, "ExpiresAfter", "anchor", &[("enum", json!([COUNTS_FROM]))]);
    let kept = Range::between(*KEPT_FOR_S.start() as f64, *KEPT_FOR_S.end() as f64);
    limit(schemas, &["ExpiresAfter"], "seconds", &|value| bound(value, kept));
    limit(schemas, &["UploadForm"], "expires_after[seconds]", &|value| bound(value, kept));
    set(schemas, "UploadRequest", "mime_type", &[("maxLength", form::MAX_NAME_CHARS.into())]);
    set(schemas, "CompletionRequest", "md5", &[("pattern", "^[0-9A-Fa-f]{32}$".into())]);
    let part = json!({"type": "string", "pattern": id_pattern(PartId::PREFIX)});
    set(schemas, "CompletionRequest", "part_ids", &[("items", part), ("uniqueItems", true.into())]);
    // Where a setting may be left to us, null is that too.
    schemas["AutoWord"] =
        json!({"type": ["string", "null"], "enum": ["auto", null], "description": "Left to us: `\"auto\"`, or null."});
    schemas["TargetChoice"]["enum"] = json!(["auto", "all-linear", null]);
    schemas["TargetChoice"]["type"] = json!(["string", "null"]);
    for (name, max) in [
        ("Losses", crate::domain::Losses::MAX),
        ("TargetModules", TargetModule::ALL.len()),
        ("ReferencesRequest", MAX_REFERENCES),
    ] {
        let list = super::object(&mut schemas[name]["oneOf"][1]);
        list.insert("minItems".into(), 1.into());
        list.insert("maxItems".into(), max.into());
        list.insert("uniqueItems".into(), true.into());
    }
}

fn set(schemas: &mut Map<String, Value>, schema: &str, field: &str, more: &[(&str, Value)]) {
    limit(schemas, &[schema], field, &|value| {
        value.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    });
}
