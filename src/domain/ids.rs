//! Typed identifiers, so that a job's id can never be passed where a file's is meant.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

/// A text that is not an identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a valid {kind}: {expected}")]
pub struct InvalidId {
    text: String,
    kind: &'static str,
    expected: &'static str,
}

impl InvalidId {
    /// `text`, which is not a `kind`: what was expected, in words.
    pub(super) fn new(text: &str, kind: &'static str, expected: &'static str) -> Self {
        // What somebody else made up may be long.
        Self { text: text.chars().take(80).collect(), kind, expected }
    }

    /// What kind of identifier was expected, in words (`job id`).
    pub fn kind(&self) -> &'static str {
        self.kind
    }
}

macro_rules! generated_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $name(String);

        impl $name {
            /// What every such id starts with.
            pub const PREFIX: &'static str = $prefix;

            /// A new id; ids made later sort later (UUID version 7).
            #[expect(clippy::new_without_default, reason = "two calls give two ids: not a default value")]
            pub fn new() -> Self {
                Self(format!("{}{}", $prefix, Uuid::now_v7().simple()))
            }

            /// The id as it stands in URLs, bodies and the database.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let ok = text.strip_prefix($prefix).is_some_and(|rest| {
                    rest.len() == 32 && rest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
                });
                if ok {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidId::new(text, $kind, concat!("expected '", $prefix, "' and 32 hexadecimal digits")))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

generated_id!(/** An uploaded file. */ FileId, "file id", "file-");
generated_id!(/** A fine-tuning job: what a client asked for. */ JobId, "job id", "ftjob-");
generated_id!(/** A named list of references. */ ReferenceListId, "reference list id", "reflist-");
generated_id!(/** One line of a job's history. */ EventId, "event id", "ftevent-");
generated_id!(/** A saved state of a job. */ CheckpointId, "checkpoint id", "ftckpt-");
generated_id!(/** A question about a model. */ InspectionId, "inspection id", "inspect-");
generated_id!(/** A model written for other programs. */ ExportId, "export id", "export-");
generated_id!(/** A file on its way in. */ UploadId, "upload id", "upload_");
generated_id!(/** One part of an upload. */ PartId, "part id", "part_");
generated_id!(/** A person's key. */ KeyId, "key id", "key-");
generated_id!(/** An address that is told when a job has ended. */ WebhookId, "webhook id", "we_");
generated_id!(/** Something that webhooks are told. */ WebhookEventId, "webhook event id", "evt_");
generated_id!(/** One execution, with its own directory. */ RunId, "run id", "run-");

impl FileId {
    /// The id of a file that a job makes, by what it is: always the same one.
    pub fn made_by(job: &JobId, what: &str) -> Self {
        Self(format!("{}{}", Self::PREFIX, digits_of(job, what)))
    }
}

impl WebhookEventId {
    /// The id of what is told of a job, by what it is: always the same one.
    pub fn about(job: &JobId, what: &str) -> Self {
        Self(format!("{}{}", Self::PREFIX, digits_of(job, what)))
    }
}

/// The digits of an id that follows from a job.
fn digits_of(job: &JobId, what: &str) -> String {
    let digest = Sha256::digest(format!("{job} {what}"));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The name a model is served under: chosen by whoever registers it, or made by a job (`ft:BASE:SUFFIX:ID`).
///
/// Letters, digits, `.`, `_`, `-`, `:`; at most 200 characters; no `/`, so that it is always one path segment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct ModelId(String);

impl ModelId {
    /// The longest name.
    pub const MAX_CHARS: usize = 200;

    /// The name as it stands in URLs and bodies.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of what `job` makes out of `base`: `ft:{base}:{suffix}:{first 12 digits after the time part}`.
    ///
    /// A long base name is cut so that the whole stays a legal name; the job's digits keep it unique.
    pub fn of_job(base: &ModelId, suffix: Option<&str>, job: &JobId) -> Self {
        let unique = &job.as_str()[JobId::PREFIX.len()..];
        // A tuned model as base would otherwise grow "ft:ft:..." without end.
        let root = base.0.strip_prefix("ft:").map_or(base.0.as_str(), |rest| rest.split(':').next().unwrap_or(rest));
        let root: String = root.chars().take(64).collect();
        let clean: String = suffix.unwrap_or("").chars().map(|c| if Self::allowed(c) { c } else { '-' }).collect();
        Self(format!("ft:{root}:{clean}:{unique}"))
    }

    /// The name of one checkpoint of a tuned model: `{model}:ckpt-step-{n}`, as on OpenAI's wire.
    pub fn of_checkpoint(model: &ModelId, step: u64) -> Self {
        Self(format!("{model}:ckpt-step-{step}"))
    }

    fn allowed(c: char) -> bool {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':')
    }
}

impl FromStr for ModelId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let first_ok = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if first_ok && text.len() <= Self::MAX_CHARS && text.chars().all(Self::allowed) {
            Ok(Self(text.to_owned()))
        } else {
            let expected = "expected a letter or digit, then letters, digits, '.', '_', '-' or ':', at most 200 in all";
            Err(InvalidId::new(text, "model id", expected))
        }
    }
}

impl TryFrom<String> for ModelId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<ModelId> for String {
    fn from(id: ModelId) -> String {
        id.0
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_id_parses_and_another_kind_does_not() {
        let job = JobId::new();
        assert_eq!(job.as_str().parse::<JobId>(), Ok(job.clone()));
        assert!(job.as_str().parse::<FileId>().is_err());
        assert!("ftjob-../../etc/passwd".parse::<JobId>().is_err());
    }

    #[test]
    fn a_model_id_is_one_path_segment() {
        assert!("SmolLM2-135M".parse::<ModelId>().is_ok());
        for bad in ["", "a/b", "..", ".hidden", "a b", &"x".repeat(201)] {
            assert!(bad.parse::<ModelId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tuned_model_of_a_tuned_model_keeps_one_prefix() {
        let base: ModelId = "smol".parse().expect("legal");
        let first = ModelId::of_job(&base, Some("polite v1"), &JobId::new());
        let second = ModelId::of_job(&first, None, &JobId::new());
        assert!(first.as_str().starts_with("ft:smol:polite-v1:"));
        assert!(second.as_str().starts_with("ft:smol::"));
        assert!(second.as_str().parse::<ModelId>().is_ok());
    }
}
