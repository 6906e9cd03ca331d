//! Access to a row's fields that notes what is wrong with them.

use serde_json::{Map, Value};

use crate::domain::Problem;

/// The problems of one line.
#[derive(Debug)]
pub(super) struct Notes {
    line: u64,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl Notes {
    pub(super) fn new(line: u64) -> Self {
        Self { line, problems: Vec::new(), warnings: Vec::new() }
    }

    /// The line, counted from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Something wrong at `pointer`; an empty pointer is the whole line.
    pub(super) fn problem(&mut self, pointer: impl Into<String>, code: &str, message: impl Into<String>) {
        let problem = self.note(pointer, code, message);
        self.problems.push(problem);
    }

    /// Something odd at `pointer`.
    pub(super) fn warning(&mut self, pointer: impl Into<String>, code: &str, message: impl Into<String>) {
        let warning = self.note(pointer, code, message);
        self.warnings.push(warning);
    }

    fn note(&self, pointer: impl Into<String>, code: &str, message: impl Into<String>) -> Problem {
        let pointer = Some(pointer.into()).filter(|p| !p.is_empty());
        Problem { line: Some(self.line), pointer, code: code.to_owned(), message: message.into() }
    }

    /// The field `name` of a row.
    pub(super) fn field<'a>(&mut self, row: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
        let value = row.get(name);
        if value.is_none() {
            self.problem(format!("/{name}"), "missing_field", format!("the field `{name}` is missing"));
        }
        value
    }

    /// `value` as a text.
    pub(super) fn text<'a>(&mut self, value: &'a Value, pointer: &str) -> Option<&'a str> {
        let text = value.as_str();
        if text.is_none() {
            self.wrong_type(value, pointer, "a text");
        }
        text
    }

    /// The text field `name` of a row.
    pub(super) fn text_field<'a>(&mut self, row: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
        let value = self.field(row, name)?;
        self.text(value, &format!("/{name}"))
    }

    /// `value` is not what stands in `expected`.
    pub(super) fn wrong_type(&mut self, value: &Value, pointer: &str, expected: &str) {
        let message = format!("expected {expected}, found {}", kind(value));
        self.problem(pointer, "wrong_type", message);
    }
}

/// The word for a value's type.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
