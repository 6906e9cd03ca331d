//! The query string of a list of jobs: a page of them, and a filter by their metadata, which has keys of the client's own.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    error::{ApiError, ErrorCode},
    paging,
};
use crate::{
    domain::JobRequest,
    store::{JobQuery, MetadataFilter},
};

/// What the query string asks for; whoever asks is not in it.
///
/// # Errors
/// A parameter that is unknown, stands twice or cannot be.
pub(super) fn read(pairs: Vec<(String, String)>) -> Result<JobQuery, ApiError> {
    let invalid = |param: &str, message: String| ApiError::new(ErrorCode::InvalidQuery, message).param(param);
    let (mut after, mut limit, mut absent, mut metadata) = (None, None, false, BTreeMap::new());
    let mut seen = BTreeSet::new();
    for (key, value) in pairs {
        if !seen.insert(key.clone()) {
            let shown: String = key.chars().take(64).collect();
            return Err(invalid(&shown, format!("duplicate field `{shown}`: give it once")));
        }
        match key.as_str() {
            "after" => after = Some(value.parse().map_err(|_| paging::unknown_cursor(&value))?),
            "limit" => {
                let number = value.parse().map_err(|_| invalid("limit", "limit is a number, 1 to 100".to_owned()))?;
                limit = Some(number);
            }
            "metadata" if value == "null" => absent = true,
            _ => match key.strip_prefix("metadata[").and_then(|rest| rest.strip_suffix(']')) {
                Some(entry) if !entry.is_empty() => {
                    check_entry(entry, &value)?;
                    metadata.insert(entry.to_owned(), value);
                }
                _ => {
                    let shown: String = key.chars().take(64).collect();
                    let expected = "expected after, limit, metadata[key]=value or metadata=null";
                    return Err(invalid(&shown, format!("there is no parameter '{shown}': {expected}")));
                }
            },
        }
    }
    if metadata.len() > JobRequest::MAX_METADATA {
        let message = format!("a job has at most {} entries: ask for fewer", JobRequest::MAX_METADATA);
        return Err(invalid("metadata", message));
    }
    let metadata = match (absent, metadata.is_empty()) {
        (false, true) => MetadataFilter::Any,
        (false, false) => MetadataFilter::Has(metadata),
        (true, true) => MetadataFilter::Absent,
        (true, false) => {
            return Err(invalid("metadata", "metadata=null excludes every metadata[key]=value".to_owned()));
        }
    };
    Ok(JobQuery { after, limit: paging::limit(limit, 20, paging::MAX_PAGE)?, metadata, ..JobQuery::default() })
}

/// What no job's metadata can hold is asked for by mistake.
fn check_entry(key: &str, value: &str) -> Result<(), ApiError> {
    let (max_key, max_value) = (JobRequest::MAX_METADATA_KEY_CHARS, JobRequest::MAX_METADATA_VALUE_CHARS);
    if key.chars().count() <= max_key && value.chars().count() <= max_value {
        return Ok(());
    }
    let message = format!("a key of metadata has at most {max_key} characters, a value at most {max_value}");
    Err(ApiError::new(ErrorCode::InvalidQuery, message).param("metadata"))
}
