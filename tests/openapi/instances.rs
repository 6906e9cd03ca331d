//! Examples are instances of the schemas they stand beside. A small validator: of the words of JSON Schema, those the document uses.

use serde_json::Value;

use crate::{operations, resolve};

#[test]
fn every_example_is_what_its_schema_says() {
    let mut wrong = Vec::new();
    for (name, operation) in operations() {
        let answers = operation["responses"].as_object().into_iter().flat_map(|r| r.values());
        for content in answers.chain([&operation["requestBody"]]).filter_map(|part| part["content"].as_object()) {
            for (media_type, content) in content.iter().filter(|(media_type, _)| media_type.ends_with("json")) {
                let examples = content["examples"].as_object().into_iter().flatten();
                let examples = examples.map(|(_, example)| &resolve(example)["value"]);
                for example in examples.chain(content.get("example")) {
                    if let Err(why) = check(example, &content["schema"], "") {
                        wrong.push(format!("{name} ({media_type}): {why}"));
                    }
                }
            }
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            if let Some(Err(why)) = parameter.get("example").map(|example| check(example, &parameter["schema"], "")) {
                wrong.push(format!("{name} {}: {why}", parameter["name"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where and why a value is no instance of a schema.
fn check(value: &Value, schema: &'static Value, at: &str) -> Result<(), String> {
    let schema = resolve(schema);
    let fail = |why: String| Err(format!("{at}: {why}"));
    let types: Vec<&str> = match &schema["type"] {
        Value::String(word) => vec![word],
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|word| is_of_type(value, word)) {
        return fail(format!("{value} is no {}", types.join(" or ")));
    }
    if let Some(words) = schema["enum"].as_array().filter(|words| !words.contains(value)) {
        return fail(format!("{value} is none of {words:?}"));
    }
    let n_fitting = |parts: &'static Value| {
        let parts = parts.as_array().expect("alternatives");
        parts.iter().filter(|part| check(value, part, at).is_ok()).count()
    };
    if schema.get("oneOf").is_some() && n_fitting(&schema["oneOf"]) != 1 {
        return fail(format!("{} of the alternatives fit {value}", n_fitting(&schema["oneOf"])));
    }
    if schema.get("anyOf").is_some() && n_fitting(&schema["anyOf"]) == 0 {
        return fail(format!("no alternative fits {value}"));
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        check(value, part, at)?;
    }
    check_bounds(value, schema).or_else(fail)?;
    check_parts(value, schema, at)
}

fn is_of_type(value: &Value, word: &str) -> bool {
    match word {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("{other} is no type"),
    }
}

fn check_bounds(value: &Value, schema: &Value) -> Result<(), String> {
    let bound = |word: &str| schema[word].as_f64();
    let number = value.as_f64();
    let length = value.as_str().map(|text| text.chars().count()).or(value.as_array().map(Vec::len)).map(|n| n as f64);
    let (min, max) = if value.is_array() { ("minItems", "maxItems") } else { ("minLength", "maxLength") };
    let rules = [
        ("minimum", number, bound("minimum").map(|b| number >= Some(b))),
        ("maximum", number, bound("maximum").map(|b| number <= Some(b))),
        ("exclusiveMinimum", number, bound("exclusiveMinimum").map(|b| number > Some(b))),
        ("exclusiveMaximum", number, bound("exclusiveMaximum").map(|b| number < Some(b))),
        (min, length, bound(min).map(|b| length >= Some(b))),
        (max, length, bound(max).map(|b| length <= Some(b))),
    ];
    match rules.iter().find(|(_, measured, holds)| measured.is_some() && *holds == Some(false)) {
        Some((word, ..)) => Err(format!("{value} breaks {word}")),
        None => Ok(()),
    }
}

fn check_parts(value: &Value, schema: &'static Value, at: &str) -> Result<(), String> {
    if let Some(items) = value.as_array() {
        for (i, item) in items.iter().enumerate().filter(|_| schema["items"].is_object()) {
            check(item, &schema["items"], &format!("{at}/{i}"))?;
        }
    }
    let Some(fields) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            return Err(format!("{at}: {name} is missing"));
        }
    }
    for (name, field) in fields {
        let at = format!("{at}/{name}");
        match (schema["properties"].get(name), &schema["additionalProperties"]) {
            (Some(schema), _) => check(field, schema, &at)?,
            (None, Value::Bool(false)) => return Err(format!("{at}: nobody reads it")),
            (None, more @ Value::Object(_)) => check(field, more, &at)?,
            (None, _) => {}
        }
    }
    Ok(())
}
