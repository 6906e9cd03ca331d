//! What can be wrong with a model's tokenizer or template, or with a text given to them.

use std::io;

use crate::domain::FailureCode;

/// Why text could not be turned into tokens.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The tokenizer's files are missing, cut off or contradict each other.
    #[error("{0}")]
    Invalid(String),
    /// The tokenizer or the template is of a kind that is not supported.
    #[error("{0}")]
    Unsupported(String),
    /// The chat template refused the messages.
    #[error("the chat template refuses this prompt: {0}")]
    Template(String),
    /// The tokenizer failed on a text.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(String),
}

impl TextError {
    /// The same for programs, where a model's files are to blame.
    pub fn code(&self) -> FailureCode {
        match self {
            Self::Unsupported(_) => FailureCode::UnsupportedModel,
            Self::Io(_) | Self::Invalid(_) | Self::Template(_) | Self::Tokenizer(_) => FailureCode::InvalidModel,
        }
    }
}
