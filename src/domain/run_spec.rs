//! What one process is to do: `spec.json` of its run directory, complete in itself.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    DatasetFormat, ExportSpec, Hyperparameters, InspectSpec, JobId, Method, ModelId, ModelLocation, ModelSource,
    RemoteTokenizer, ScorePrecision, WeightsFormat,
};

/// The work of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RunSpec {
    /// Fine-tune a model.
    Train(Box<TrainSpec>),
    /// Fetch a model and find out what it is.
    Register(Box<RegisterSpec>),
    /// Answer a question about a model.
    Inspect(InspectSpec),
    /// Write a model for other programs.
    Export(ExportSpec),
}

/// A model a run reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResolvedReference {
    /// Its name in metrics: the model's id.
    pub model: ModelId,
    /// Digest of its files as registered; checked against the files on resume.
    pub digest: String,
    /// Where its files lie.
    pub location: ModelLocation,
    /// Its weight under `weighting: fixed`.
    pub weight: Option<f64>,
}

impl ResolvedReference {
    /// What a run with these settings has its scores in; `is_base` is the reference that the policy starts from.
    pub fn precision(&self, settings: &Hyperparameters, is_base: bool) -> ScorePrecision {
        match self.location.format {
            WeightsFormat::Remote => ScorePrecision::AsServed,
            _ => ScorePrecision::of(settings, is_base),
        }
    }
}

/// A fine-tuning run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainSpec {
    /// The job it is for.
    pub job: JobId,
    /// Seed of everything random.
    pub seed: u32,
    /// The references; number 0 is the base, the policy's own start, also under `dpo`.
    pub references: Vec<ResolvedReference>,
    /// The method and its own settings.
    pub method: Method,
    /// The policies of earlier rounds, oldest first (the method `spo`).
    #[serde(default)]
    pub earlier: Vec<ResolvedReference>,
    /// The training pairs.
    pub training_file: PathBuf,
    /// The format they were checked in; absent, it is told from the rows.
    #[serde(default)]
    pub training_format: Option<DatasetFormat>,
    /// The held-out pairs.
    pub validation_file: Option<PathBuf>,
    /// The format of these.
    #[serde(default)]
    pub validation_format: Option<DatasetFormat>,
    /// All settings.
    pub hyperparameters: Hyperparameters,
}

/// A model registration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegisterSpec {
    /// The name it will have.
    pub model: ModelId,
    /// Where it comes from.
    pub source: ModelSource,
    /// Directory for what is fetched (a `path:` source stays where it is).
    pub store_dir: PathBuf,
    /// Directory of the uploaded files, each under its id.
    #[serde(default)]
    pub files_dir: PathBuf,
    /// Of a model on another server: whose template renders its prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<RemoteTokenizer>,
}
