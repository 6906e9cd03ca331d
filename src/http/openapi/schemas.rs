//! What bodies look like, completed: ids by their form, settings by their range, and nothing written twice.

use serde_json::{Map, Value, json};

use super::{bodies, object};
use crate::domain::{
    Bound, CheckpointId, EventId, ExportId, ExtraField, FileId, HpoSettings, Hyperparameters, JobId, KeyId, Limit,
    Lora, Losses, ModpoSettings, ObjectiveSpec, PartId, Range, ReferenceListId, RunId, SelmSettings, SpoSettings,
    TokenLevelSettings, UploadId, WebhookEventId, WebhookId,
};

/// Where schemas stand in the document.
const SCHEMAS: &str = "#/components/schemas/";

/// Ids that the server makes: the schema's name, and what they begin with.
const IDS: [(&str, &str); 11] = [
    ("FileId", FileId::PREFIX),
    ("JobId", JobId::PREFIX),
    ("ReferenceListId", ReferenceListId::PREFIX),
    ("EventId", EventId::PREFIX),
    ("CheckpointId", CheckpointId::PREFIX),
    ("ExportId", ExportId::PREFIX),
    ("PartId", PartId::PREFIX),
    ("KeyId", KeyId::PREFIX),
    ("RunId", RunId::PREFIX),
    ("WebhookId", WebhookId::PREFIX),
    ("WebhookEventId", WebhookEventId::PREFIX),
];

/// The form of an id that the server makes.
pub(super) fn id_pattern(prefix: &str) -> String {
    format!("^{prefix}[0-9a-f]{{32}}$")
}

/// Completes every schema.
pub(super) fn complete(document: &mut Value) {
    let mut schemas = std::mem::take(object(&mut document["components"]["schemas"]));
    schemas.entry("UploadId").or_insert_with(|| json!({"type": "string", "description": "A file on its way in."}));
    for (name, prefix) in IDS.into_iter().chain([("UploadId", UploadId::PREFIX)]) {
        if let Some(Value::Object(id)) = schemas.get_mut(name) {
            id.insert("pattern".into(), id_pattern(prefix).into());
            id.insert("minLength".into(), (prefix.len() + 32).into());
            id.insert("maxLength".into(), (prefix.len() + 32).into());
        }
    }
    let named = Named::of(&schemas);
    for (name, schema) in &mut schemas {
        named.refer(schema, Some(name));
    }
    // utoipa passes over the comments of fields whose type is a parameter.
    for (_, sides) in schemas.iter_mut().filter(|(name, _)| name.starts_with("Sides_")) {
        for (field, text) in [("chosen", "Of the chosen completion."), ("rejected", "Of the rejected completion.")] {
            object(&mut sides["properties"][field]).insert("description".into(), text.into());
        }
    }
    schemas["StreamFrame"]["properties"]["data"]["contentSchema"] =
        json!({"anyOf": [{"$ref": format!("{SCHEMAS}StreamedEvent")}, {"$ref": format!("{SCHEMAS}StreamedStatus")}]});
    object(&mut schemas["StreamFrame"]).remove("required");
    describe_settings(&mut schemas);
    limit_settings(&mut schemas);
    bodies::complete(&mut schemas);
    document["components"]["schemas"] = schemas.into();
    plain_texts(document);
}

/// Schemas by what they say: where one stands inside another, its name does.
struct Named(Vec<(Value, String)>);

impl Named {
    fn of(schemas: &Map<String, Value>) -> Self {
        let has_fields = |schema: &Value| schema.get("properties").is_some() || schema.get("oneOf").is_some();
        Self(schemas.iter().filter(|(_, s)| has_fields(s)).map(|(name, s)| (s.clone(), name.clone())).collect())
    }

    fn refer(&self, value: &mut Value, own: Option<&str>) {
        let known = self.0.iter().find(|(schema, name)| own != Some(name.as_str()) && schema == value);
        if let Some((_, name)) = known {
            *value = json!({"$ref": format!("{SCHEMAS}{name}")});
            return;
        }
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.refer(item, None)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.refer(field, None)),
            _ => {}
        }
    }
}

/// What a client writes is described where it is told as it is used: under the same name.
fn describe_settings(schemas: &mut Map<String, Value>) {
    const WRITTEN: [(&str, &[&str]); 3] = [
        ("HyperparametersRequest", &["Hyperparameters", "ObjectiveSpec"]),
        ("LoraRequest", &["Lora"]),
        ("HpoRequest", &["HpoSettings"]),
    ];
    for (written, used) in WRITTEN {
        let texts: Map<String, Value> = used.iter().filter_map(|name| schemas.get(*name)).flat_map(texts_of).collect();
        for (field, schema) in fields_of(&mut schemas[written]) {
            if let Some(text) = texts.get(field) {
                object(schema).entry("description").or_insert_with(|| text.clone());
            }
        }
    }
}

/// Every field's description, in all parts of a schema; where a field refers to something that may be null, it stands inside.
fn texts_of(schema: &Value) -> Vec<(String, Value)> {
    let parts = schema.get("allOf").and_then(Value::as_array).into_iter().flatten();
    let fields = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    let text =
        |schema: &Value| schema.get("description").or_else(|| schema.get("oneOf")?.get(0)?.get("description")).cloned();
    let own = fields.filter_map(|(name, schema)| Some((name.clone(), text(schema)?)));
    own.chain(parts.flat_map(texts_of)).collect()
}

fn fields_of(schema: &mut Value) -> &mut Map<String, Value> {
    object(&mut schema["properties"])
}

/// Writes the ranges of settings, which are those that are checked, into what a client writes.
fn limit_settings(schemas: &mut Map<String, Value>) {
    let one = |field, range| vec![(field, range)];
    let tables: [(&[&str], Vec<Limit>); 8] = [
        (&["HyperparametersRequest"], Hyperparameters::LIMITS.to_vec()),
        (&["HyperparametersRequest", "ObjectiveSettings"], ObjectiveSpec::LIMITS.to_vec()),
        (&["LoraRequest"], Lora::LIMITS.to_vec()),
        (&["HpoRequest", "ObjectiveRequest"], HpoSettings::LIMITS.to_vec()),
        (&["ModpoRequest", "ObjectiveSettings"], one("preference_weight", ModpoSettings::PREFERENCE_WEIGHT)),
        (&["SelmRequest"], one("alpha", SelmSettings::ALPHA)),
        (&["ObjectiveSettings"], one("optimism", SelmSettings::ALPHA)),
        (&["TokenLevelRequest"], one("outside_weight", TokenLevelSettings::OUTSIDE_WEIGHT)),
    ];
    for (names, limits) in tables {
        for (field, range) in limits {
            limit(schemas, names, field, &|value| bound(value, range));
        }
    }
    let lists = [
        (["HyperparametersRequest", "ObjectiveSettings"], "loss_weights", (0, Losses::MAX), ObjectiveSpec::LOSS_WEIGHT),
        (
            ["ModpoRequest", "ObjectiveRequest"],
            "margin_weights",
            (1, ExtraField::MAX_REWARDS),
            ModpoSettings::MARGIN_WEIGHT,
        ),
        (["SpoRequest", "ObjectiveRequest"], "lambdas", (0, SpoSettings::MAX_EARLIER), SpoSettings::LAMBDA),
        (
            ["HpoRequest", "ObjectiveRequest"],
            "reward_weights",
            (0, ExtraField::MAX_REWARDS),
            HpoSettings::REWARD_WEIGHT,
        ),
    ];
    for (names, field, (min, max), range) in lists {
        limit(schemas, &names, field, &|value| {
            value.insert("minItems".into(), min.into());
            value.insert("maxItems".into(), max.into());
            bound(object(&mut value["items"]), range);
        });
    }
}

/// Applies a limit to a field of some schemas; to the value beside `"auto"` where that may stand there too.
pub(super) fn limit(
    schemas: &mut Map<String, Value>,
    names: &[&str],
    field: &str,
    apply: &dyn Fn(&mut Map<String, Value>),
) {
    for name in names {
        let Some(schema) = fields_of(&mut schemas[*name]).get(field).cloned() else { continue };
        let mut schema = schema;
        let referred = schema["$ref"].as_str().and_then(|r| r.strip_prefix(SCHEMAS)).map(str::to_owned);
        match referred {
            None => apply(object(&mut schema)),
            Some(referred) => {
                let fields = object(&mut schema);
                fields.remove("$ref");
                let mut either = schemas[&referred]["oneOf"].clone();
                apply(object(&mut either[1]));
                fields.insert("oneOf".into(), either);
            }
        }
        fields_of(&mut schemas[*name]).insert(field.to_owned(), schema);
    }
}

/// Writes a range into a schema of numbers.
pub(super) fn bound(schema: &mut Map<String, Value>, range: Range) {
    // utoipa's own bound, by the type.
    schema.remove("minimum");
    let number = |x: f64| if x.fract() == 0.0 { json!(x as i64) } else { json!(x) };
    match range.min {
        Bound::Open => None,
        Bound::At(min) => schema.insert("minimum".into(), number(min)),
        Bound::Beyond(min) => schema.insert("exclusiveMinimum".into(), number(min)),
    };
    match range.max {
        Bound::Open => None,
        Bound::At(max) => schema.insert("maximum".into(), number(max)),
        Bound::Beyond(max) => schema.insert("exclusiveMaximum".into(), number(max)),
    };
}

/// rustdoc's links (``[`Lora`]``) are words to everybody else, and its line breaks no line breaks.
fn plain_texts(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(plain_texts),
        Value::Object(fields) => {
            if let Some(Value::String(text)) = fields.get_mut("description") {
                let paragraphs = text.replace("[`", "`").replace("`]", "`");
                let joined = paragraphs.split("\n\n").map(|p| p.replace('\n', " "));
                *text = joined.collect::<Vec<_>>().join("\n\n");
            }
            fields.values_mut().for_each(plain_texts);
        }
        _ => {}
    }
}
