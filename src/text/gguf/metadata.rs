//! A GGUF file's key-value pairs, by type.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;

use crate::text::error::TextError;

/// A GGUF file's key-value pairs.
pub(super) struct Metadata<'a>(pub(super) &'a HashMap<String, Value>);

impl<'a> Metadata<'a> {
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key)
    }

    pub(super) fn text(&self, key: &str) -> Result<&'a str, TextError> {
        let value = self.get(key).and_then(|value| value.to_string().ok());
        value.map(String::as_str).ok_or_else(|| TextError::Invalid(format!("the GGUF file has no text '{key}'")))
    }

    /// The text under `key`, empty where there is none.
    pub(super) fn text_or_empty(&self, key: &str) -> &'a str {
        self.text(key).unwrap_or_default()
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(|value| value.to_bool().ok())
    }

    pub(super) fn id(&self, key: &str) -> Option<u32> {
        self.get(key).and_then(whole_number).and_then(|id| u32::try_from(id).ok())
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<&'a str>, TextError> {
        self.list(key, "texts", |value| value.to_string().ok().map(String::as_str))
    }

    pub(super) fn whole_numbers(&self, key: &str) -> Result<Vec<u64>, TextError> {
        self.list(key, "whole numbers", whole_number)
    }

    pub(super) fn numbers(&self, key: &str) -> Result<Vec<f32>, TextError> {
        self.list(key, "numbers", |value| match value {
            Value::F32(v) => Some(*v),
            Value::I32(v) => Some(*v as f32),
            _ => None,
        })
    }

    fn list<T>(&self, key: &str, of: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Vec<T>, TextError> {
        let values = self.get(key).and_then(|value| value.to_vec().ok());
        let values = values.ok_or_else(|| TextError::Invalid(format!("the GGUF file has no list '{key}'")))?;
        let list: Option<Vec<T>> = values.iter().map(read).collect();
        list.ok_or_else(|| TextError::Invalid(format!("'{key}' of the GGUF file is not a list of {of}")))
    }
}

/// A number of any of GGUF's integer types.
fn whole_number(value: &Value) -> Option<u64> {
    match value {
        Value::I8(v) => u64::try_from(*v).ok(),
        Value::I16(v) => u64::try_from(*v).ok(),
        Value::I32(v) => u64::try_from(*v).ok(),
        Value::I64(v) => u64::try_from(*v).ok(),
        other => other.to_u64().ok(),
    }
}
