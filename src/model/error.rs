//! What can be wrong with a model's files.

use crate::domain::FailureCode;

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The files are missing, cut off or contradict each other.
    #[error("{0}")]
    Invalid(String),
    /// The files are whole, but of a kind we do not compute.
    #[error("{0}")]
    Unsupported(String),
    /// A file could not be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Whoever asked does not want it any more.
    #[error("it was asked to stop")]
    Interrupted,
    /// A computation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl ModelError {
    /// The files are missing, cut off or contradict each other.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    /// The same for programs.
    pub fn code(&self) -> FailureCode {
        match self {
            Self::Unsupported(_) => FailureCode::UnsupportedModel,
            Self::Invalid(_) | Self::Io(_) | Self::Interrupted | Self::Tensor(_) => FailureCode::InvalidModel,
        }
    }
}
