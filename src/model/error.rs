//! What can be wrong with a model's files.

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
    /// A computation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl ModelError {
    /// The files are missing, cut off or contradict each other.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }
}
