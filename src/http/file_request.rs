//! What a client says of a file it sends: what it is for, its format, and how long it is kept.

use serde::Deserialize;
use utoipa::ToSchema;

use super::{error::ApiError, form::Form};
use crate::domain::{DatasetFormat, FilePurpose, UnknownFormat};

/// The part of a form that says from when a file's time counts.
pub(super) const ANCHOR: &str = "expires_after[anchor]";
/// The part of a form that says how long a file is kept.
pub(super) const SECONDS: &str = "expires_after[seconds]";
/// What a file may be uploaded for.
pub(super) const PURPOSES: [(&str, FilePurpose); 2] =
    [("fine-tune", FilePurpose::FineTune), ("reference-scores", FilePurpose::ReferenceScores)];
/// From when a file's time counts.
pub(super) const COUNTS_FROM: &str = "created_at";
/// How long a file may be kept before it goes by itself, in seconds: an hour to thirty days, as on OpenAI's wire.
pub(super) const KEPT_FOR_S: std::ops::RangeInclusive<u64> = 3600..=2_592_000;

/// What was said, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileRequest {
    /// What it is for.
    pub(super) purpose: FilePurpose,
    /// The format it is said to be in.
    pub(super) format: Option<DatasetFormat>,
    /// How long it is kept, in seconds; until it is deleted, if absent.
    pub(super) kept_for_s: Option<u64>,
}

/// When a file is deleted by itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpiresAfter {
    /// `created_at`: from when the seconds count.
    #[schema(example = "created_at")]
    anchor: String,
    /// 3600 to 2592000.
    #[schema(minimum = 3600, maximum = 2_592_000)]
    seconds: u64,
}

impl FileRequest {
    /// What a form says.
    pub(super) fn of_form(form: &Form) -> Result<Self, ApiError> {
        let text = |name: &str| form.texts.get(name).map(String::as_str);
        let Some(purpose) = text("purpose") else {
            let message = "the form has no part 'purpose': curl -F purpose=fine-tune";
            return Err(ApiError::invalid_at("/purpose", "missing_field", message));
        };
        let expires_after = match (text(ANCHOR), text(SECONDS)) {
            (None, None) => None,
            (Some(anchor), Some(seconds)) => {
                let seconds = seconds.parse().map_err(|_| kept_for_what())?;
                Some(ExpiresAfter { anchor: anchor.to_owned(), seconds })
            }
            (anchor, _) => {
                let missing = if anchor.is_none() { "anchor" } else { "seconds" };
                let message =
                    format!("{ANCHOR} and {SECONDS} go together: -F '{ANCHOR}=created_at' -F '{SECONDS}=86400'");
                return Err(ApiError::invalid_at(&format!("/expires_after/{missing}"), "missing_field", message));
            }
        };
        Self::new(purpose, text("format"), expires_after.as_ref())
    }

    /// What was said, if it may be.
    pub(super) fn new(
        purpose: &str,
        format: Option<&str>,
        expires_after: Option<&ExpiresAfter>,
    ) -> Result<Self, ApiError> {
        let purpose = to_purpose(purpose)?;
        Ok(Self {
            purpose,
            format: to_format(format, purpose)?,
            kept_for_s: expires_after.map(kept_for_s).transpose()?,
        })
    }
}

fn to_purpose(word: &str) -> Result<FilePurpose, ApiError> {
    if let Some((_, purpose)) = PURPOSES.iter().find(|(known, _)| *known == word) {
        return Ok(*purpose);
    }
    let shown: String = word.chars().take(64).collect();
    let message = format!(
        "this server keeps files to fine-tune on: the purpose of an upload is 'fine-tune' or 'reference-scores', got '{shown}'"
    );
    Err(ApiError::invalid_at("/purpose", "invalid_value", message))
}

fn to_format(word: Option<&str>, purpose: FilePurpose) -> Result<Option<DatasetFormat>, ApiError> {
    let Some(word) = word else { return Ok(None) };
    if purpose != FilePurpose::FineTune {
        let message = "only files of preference pairs have a format: leave 'format' out";
        return Err(ApiError::invalid_at("/format", "invalid_value", message));
    }
    let format =
        word.parse().map_err(|e: UnknownFormat| ApiError::invalid_at("/format", "invalid_value", e.to_string()))?;
    Ok(Some(format))
}

fn kept_for_s(expires_after: &ExpiresAfter) -> Result<u64, ApiError> {
    if expires_after.anchor != COUNTS_FROM {
        let message = "the time of a file counts from 'created_at'";
        return Err(ApiError::invalid_at("/expires_after/anchor", "invalid_value", message));
    }
    if KEPT_FOR_S.contains(&expires_after.seconds) { Ok(expires_after.seconds) } else { Err(kept_for_what()) }
}

fn kept_for_what() -> ApiError {
    let (min, max) = (KEPT_FOR_S.start(), KEPT_FOR_S.end());
    let message =
        format!("a file is kept {min} to {max} seconds; leave expires_after out to keep it until you delete it");
    ApiError::invalid_at("/expires_after/seconds", "out_of_range", message)
}
