//! Nothing is left out: of any operation, answer, parameter or field. What a test here refuses, a reader would have to guess.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{DOCUMENT, operations, resolve};

/// What has no example: answers that are files, and the document itself.
const NO_EXAMPLE: [&str; 8] = [
    "get_openapi",
    "get_docs",
    "get_file_content",
    "get_checkpoint_file",
    "get_checkpoint_archive",
    "get_tensorboard_files",
    "get_export_content",
    "get_export_file",
];

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn every_operation_says_what_it_is() {
    assert_eq!(DOCUMENT["openapi"], "3.1.0");
    let tags = DOCUMENT["tags"].as_array().expect("tags");
    let tags: BTreeSet<_> =
        tags.iter().filter_map(|tag| tag["description"].as_str().and(tag["name"].as_str())).collect();
    let (mut ids, mut used) = (BTreeSet::new(), BTreeSet::new());
    for (name, operation) in operations() {
        assert!(!name.contains('*'), "{name} is a pattern of the router");
        for field in ["summary", "description", "operationId"] {
            assert!(operation[field].as_str().is_some_and(|text| !text.is_empty()), "{name} has no {field}");
        }
        assert!(ids.insert(operation["operationId"].as_str()), "{name}: its operationId is another's too");
        let own = texts(&operation["tags"]);
        assert!(
            !own.is_empty() && own.iter().all(|tag| tags.contains(tag)),
            "{name}: a tag is not in TAGS of src/http/openapi"
        );
        used.extend(own);
        for part in name.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}')) {
            let parameters = operation["parameters"].as_array().expect(&name);
            let described = parameters.iter().find(|p| p["name"] == part && p["in"] == "path");
            let schema = resolve(&described.unwrap_or_else(|| panic!("{name}: {part} is not described"))["schema"]);
            assert!(
                schema.get("maxLength").is_some(),
                "{name}: {part} is not in PARTS of src/http/openapi/parameters.rs"
            );
        }
    }
    assert_eq!(used, tags, "a tag has no operation");
}

#[test]
fn every_answer_is_described_with_its_codes_and_headers() {
    let table = DOCUMENT["x-error-codes"].as_object().expect("a table");
    let mut told = BTreeSet::new();
    for (name, operation) in operations() {
        let is_public = operation.get("security").is_none();
        let answers = operation["responses"].as_object().expect("answers");
        assert!(answers.contains_key("200") && answers.contains_key("500"), "{name}");
        assert_eq!(answers.contains_key("401"), !is_public, "{name}");
        for (status, answer) in answers {
            assert!(answer["description"].as_str().is_some_and(|text| !text.is_empty()), "{name} {status}");
            assert!(answer["headers"].get("x-request-id").is_some(), "{name} {status}");
            answer["headers"].as_object().expect("headers").values().for_each(|header| {
                let header = resolve(header);
                assert!(
                    header["description"].is_string() && header["example"].is_string(),
                    "{name} {status}: {header}"
                );
            });
            if !status.starts_with(['4', '5']) {
                continue;
            }
            let codes = texts(&answer["x-error-codes"]);
            assert!(!codes.is_empty(), "{name}: name the codes of {status} in its description, in backticks");
            for code in codes {
                assert_eq!(table[code]["status"].to_string(), *status, "{name}: {code}");
                told.insert(code);
            }
            let content = &answer["content"]["application/problem+json"];
            assert_eq!(content["schema"]["$ref"], "#/components/schemas/ErrorBody", "{name} {status}");
            content["examples"].as_object().expect("examples").values().for_each(|example| {
                assert_eq!(resolve(example)["value"]["status"].to_string(), *status, "{name}");
            });
        }
    }
    // What no operation can answer with, because there is none.
    told.insert("method_not_allowed");
    let all: BTreeSet<_> = table.keys().map(String::as_str).collect();
    assert_eq!(told, all, "an error code belongs to no operation");
}

#[test]
fn every_operation_has_an_example_of_what_is_sent_and_what_comes() {
    for (name, operation) in operations() {
        let id = operation["operationId"].as_str().expect("an id");
        let has_example = |content: &Value| {
            content.as_object().is_some_and(|content| content.values().any(|c| c.get("example").is_some()))
        };
        let body = &operation["requestBody"]["content"];
        if body.get("application/json").is_some() {
            assert!(has_example(body), "{name}: run scripts/openapi_examples.py");
        }
        if !NO_EXAMPLE.contains(&id) {
            assert!(has_example(&operation["responses"]["200"]["content"]), "{name}: run scripts/openapi_examples.py");
        }
    }
}

#[test]
fn every_field_and_parameter_is_described() {
    let mut missing = Vec::new();
    for (name, schema) in DOCUMENT["components"]["schemas"].as_object().expect("schemas") {
        if schema.get("description").is_none() {
            missing.push(name.clone());
        }
        undescribed(schema, name, &mut missing);
    }
    for (name, operation) in operations() {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            if parameter["description"].as_str().is_none_or(str::is_empty) {
                missing.push(format!("{name} {}", parameter["name"]));
            }
        }
    }
    assert!(missing.is_empty(), "no description:\n{}", missing.join("\n"));
}

/// Fields that neither they nor what they refer to say what they are.
fn undescribed(schema: &'static Value, at: &str, missing: &mut Vec<String>) {
    let says = |value: &'static Value| value.get("description").or_else(|| resolve(value).get("description")).is_some();
    for (field, value) in schema["properties"].as_object().into_iter().flatten() {
        let alternatives = value["oneOf"].as_array().into_iter().flatten();
        if !says(value) && !alternatives.into_iter().any(says) {
            missing.push(format!("{at}.{field}"));
        }
        undescribed(value, &format!("{at}.{field}"), missing);
    }
    for parts in ["oneOf", "allOf", "anyOf"] {
        schema[parts].as_array().into_iter().flatten().for_each(|part| undescribed(part, at, missing));
    }
    if schema["items"].is_object() {
        undescribed(&schema["items"], at, missing);
    }
}

#[test]
fn whatever_a_client_sends_has_limits() {
    let mut walk = Walk { seen: BTreeSet::new(), missing: Vec::new() };
    for (name, operation) in operations() {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            // The head of a request is limited as a whole.
            if parameter["in"] != "header" {
                walk.check(&parameter["schema"], &format!("{name} {}", parameter["name"]));
            }
        }
        for content in operation["requestBody"]["content"].as_object().into_iter().flat_map(|c| c.values()) {
            walk.check(&content["schema"], &name);
        }
    }
    assert!(walk.missing.is_empty(), "no limit:\n{}", walk.missing.join("\n"));
}

struct Walk {
    seen: BTreeSet<&'static str>,
    missing: Vec<String>,
}

impl Walk {
    fn check(&mut self, schema: &'static Value, at: &str) {
        if let Some(reference) = schema["$ref"].as_str() {
            if self.seen.insert(reference) {
                self.check(resolve(schema), reference.rsplit('/').next().unwrap_or(at));
            }
            return;
        }
        let is = |word: &str| schema["type"] == word || texts(&schema["type"]).contains(&word);
        let has = |words: &[&str]| words.iter().any(|word| schema.get(*word).is_some());
        let mut needs = |applies: bool, words: &[&str]| {
            if applies && !has(words) && !has(&["enum", "const"]) {
                self.missing.push(format!("{at} has none of {}", words.join(", ")));
            }
        };
        needs(is("string"), &["maxLength", "pattern", "format"]);
        // A format is a limit of its own: int64, double.
        needs(is("integer") || is("number"), &["maximum", "exclusiveMaximum", "format"]);
        needs(is("array"), &["maxItems"]);
        needs(schema["additionalProperties"].is_object(), &["maxProperties"]);
        for part in ["items", "additionalProperties"].into_iter().filter(|part| schema[*part].is_object()) {
            self.check(&schema[part], at);
        }
        for (field, value) in schema["properties"].as_object().into_iter().flatten() {
            self.check(value, &format!("{at}.{field}"));
        }
        for parts in ["oneOf", "allOf", "anyOf"] {
            schema[parts].as_array().into_iter().flatten().for_each(|part| self.check(part, at));
        }
    }
}
