//! Why a file is not read on: what it is packed or kept in is damaged, of a kind that is not read, or out of bounds.

use std::io;

/// The end of reading: a code for programs, and what is wrong and the way out for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(in crate::dataset) struct Refusal {
    pub(in crate::dataset) code: &'static str,
    pub(in crate::dataset) message: String,
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// What was read is not what its format says it is.
    pub(super) fn damaged(what: &str) -> Self {
        Self::new("damaged_file", format!("{what} is damaged or cut off: make the file again and upload it anew"))
    }

    /// The refusal that travelled as an error of a reader, or that error itself.
    pub(in crate::dataset) fn of(error: io::Error) -> Result<Self, io::Error> {
        error.downcast::<Self>()
    }
}

/// Refusals travel through readers.
impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(io::ErrorKind::InvalidData, refusal)
    }
}

/// Errors of decoders speak of the content, those with a number of the operating system of the disk.
pub(super) fn of_decoder(error: io::Error, what: &str) -> io::Error {
    let is_refusal = error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Refusal>);
    let is_of_the_system = error.raw_os_error().is_some() || error.kind() == io::ErrorKind::Interrupted;
    if is_refusal || is_of_the_system { error } else { Refusal::damaged(what).into() }
}
