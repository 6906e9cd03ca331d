//! A model written for other programs: as what, how far, and what came of it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ExportId, Failure, HashedFile, ModelId, ResolvedReference, RunId};

/// What other programs read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    /// A directory of `config.json`, safetensors and the tokenizer's files, for transformers and all that read its files.
    Huggingface,
    /// One file, for llama.cpp and all that is built on it.
    Gguf,
}

impl ExportFormat {
    /// What matrices are stored as where nobody says.
    pub fn default_dtype(self) -> ExportDtype {
        match self {
            Self::Huggingface => ExportDtype::Float32,
            Self::Gguf => ExportDtype::Float16,
        }
    }

    /// Why it has no numbers of this type, if it has none.
    pub fn refusal(self, dtype: ExportDtype) -> Option<&'static str> {
        (self == Self::Huggingface && dtype == ExportDtype::Q8_0).then_some(
            "a Hugging Face directory is written in float32, bfloat16 or float16; q8_0 is a type of GGUF: ask for that format, \
             or for another type",
        )
    }
}

/// The type of an exported model's matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExportDtype {
    /// IEEE 754 single precision: nothing is lost.
    Float32,
    /// IEEE 754 half precision.
    Float16,
    /// The upper half of single precision.
    Bfloat16,
    /// Blocks of 32 numbers of eight bits with one scale (GGUF's `Q8_0`).
    Q8_0,
}

impl ExportDtype {
    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Bfloat16 => "bfloat16",
            Self::Q8_0 => "q8_0",
        }
    }
}

/// An export to be made by a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExportSpec {
    /// What it is for.
    pub export: ExportId,
    /// The model.
    pub model: ResolvedReference,
    /// The format.
    pub format: ExportFormat,
    /// What matrices are stored as.
    pub dtype: ExportDtype,
}

/// What a run has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedFiles {
    /// Its files, by name.
    pub files: Vec<HashedFile>,
    /// What other programs will do otherwise with it, in words.
    pub warnings: Vec<String>,
}

/// How far an export is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExportStatus {
    /// Waiting, or being written.
    Pending,
    /// It can be downloaded.
    Ready,
    /// It could not be made: see `error`.
    Error,
}

/// An export as the service knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportRecord {
    /// Its id.
    pub id: ExportId,
    /// The model.
    pub model: ModelId,
    /// The format.
    pub format: ExportFormat,
    /// What matrices are stored as.
    pub dtype: ExportDtype,
    /// How far it is.
    pub status: ExportStatus,
    /// The run that makes it, once there is one.
    pub run_id: Option<RunId>,
    /// Weights written, and how many there are, once that is known.
    pub progress: Option<(u64, u64)>,
    /// What was made; present when `status` is ready.
    pub result: Option<ExportedFiles>,
    /// Why it could not be made; present when `status` is error.
    pub error: Option<Failure>,
    /// Unix time in seconds.
    pub created_at: i64,
    /// When it was ready or in error: Unix time in seconds.
    pub finished_at: Option<i64>,
}

impl ExportRecord {
    /// What it is called where it is downloaded to: `{model}-{dtype}`, without the `:` that some disks refuse.
    pub fn name(&self) -> String {
        /// With it and a file's name, an entry of a tar archive still has a plain header (155 bytes for folders).
        const MAX_CHARS: usize = 120;
        let model = self.model.as_str().chars().take(MAX_CHARS).map(|c| if c == ':' { '-' } else { c });
        format!("{}-{}", model.collect::<String>(), self.dtype.as_str())
    }

    /// Size of its files, in bytes, once they are there.
    pub fn size_bytes(&self) -> Option<u64> {
        Some(self.result.as_ref()?.files.iter().map(|file| file.size_bytes).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_every_disk_takes() {
        let name = |model: &str| {
            let record = ExportRecord {
                id: ExportId::new(),
                model: model.parse().expect("legal"),
                format: ExportFormat::Gguf,
                dtype: ExportDtype::Q8_0,
                status: ExportStatus::Pending,
                run_id: None,
                progress: None,
                result: None,
                error: None,
                created_at: 0,
                finished_at: None,
            };
            record.name()
        };
        assert_eq!(name("ft:smol:polite:0a1b"), "ft-smol-polite-0a1b-q8_0");
        assert_eq!(name(&"x".repeat(200)).len(), 125);
    }
}
