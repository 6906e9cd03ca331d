//! How the records of `domain` stand in columns: ids and words as text, everything with parts as JSON.

use std::str::FromStr;

use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row, sqlite::SqliteRow};

use super::{Result, StoreError};

/// A record as JSON.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("domain records have text keys and serialize without errors")
}

/// A unit enum as the word it has on the wire.
pub(super) fn word<T: Serialize>(value: &T) -> String {
    json(value).trim_matches('"').to_owned()
}

fn decode(what: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Decode { what, source: Box::new(source) }
}

/// Reads a JSON column.
pub(super) fn from_json<T: DeserializeOwned>(row: &SqliteRow, column: &'static str) -> Result<T> {
    let text: &str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|e| decode(column, e))
}

/// Reads a JSON column that may be null.
pub(super) fn from_json_opt<T: DeserializeOwned>(row: &SqliteRow, column: &'static str) -> Result<Option<T>> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|t| serde_json::from_str(t).map_err(|e| decode(column, e))).transpose()
}

/// Reads a column that holds the word of a unit enum.
pub(super) fn from_word<T: DeserializeOwned>(row: &SqliteRow, column: &'static str) -> Result<T> {
    let text: &str = row.try_get(column)?;
    serde_json::from_value(serde_json::Value::from(text)).map_err(|e| decode(column, e))
}

/// Reads a column that holds an id or another text with a form.
pub(super) fn parsed<T>(row: &SqliteRow, column: &'static str) -> Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    row.try_get::<&str, _>(column)?.parse().map_err(|e| decode(column, e))
}

/// The same for a column that may be null.
pub(super) fn parsed_opt<T>(row: &SqliteRow, column: &'static str) -> Result<Option<T>>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text: Option<&str> = row.try_get(column)?;
    text.map(|t| t.parse().map_err(|e| decode(column, e))).transpose()
}

/// Reads a count. Counts are stored as `SQLite` integers, which have a sign.
pub(super) fn count(row: &SqliteRow, column: &'static str) -> Result<u64> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|e| decode(column, e))
}

/// The same for a column that may be null.
pub(super) fn count_opt(row: &SqliteRow, column: &'static str) -> Result<Option<u64>> {
    row.try_get::<Option<i64>, _>(column)?.map(|n| u64::try_from(n).map_err(|e| decode(column, e))).transpose()
}
