//! A setting that is left to us by the word `"auto"`, or given.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// A setting that is either left to us (`"auto"`) or given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Auto<T> {
    /// Our documented default.
    Auto(AutoWord),
    /// As given.
    Value(T),
}

/// The word `"auto"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AutoWord {
    /// Left to us.
    #[default]
    Auto,
}

impl<T> Auto<T> {
    /// The given value, or `default`.
    pub fn or(self, default: T) -> T {
        self.given().unwrap_or(default)
    }

    /// The given value.
    pub fn given(self) -> Option<T> {
        match self {
            Self::Auto(_) => None,
            Self::Value(value) => Some(value),
        }
    }
}

impl<T> Default for Auto<T> {
    fn default() -> Self {
        Self::Auto(AutoWord::Auto)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Auto<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Through a JSON value, so that the error speaks of the expected type and not of "untagged enum".
        let value = serde_json::Value::deserialize(deserializer)?;
        if value == "auto" || value.is_null() {
            return Ok(Self::default());
        }
        T::deserialize(value).map(Self::Value).map_err(|e| serde::de::Error::custom(format!("{e}, or \"auto\"")))
    }
}
