//! Preference datasets in one of several formats, read as preference pairs, with every problem named by line or row.
//!
//! `rows` takes the rows out of what keeps them (JSON Lines, a JSON list, CSV, Parquet) and packs them (gzip, Zstandard);
//! `format` makes pairs of them. A format is one file there and one word of [`DatasetFormat`](crate::domain::DatasetFormat). It
//! is told from the first row that fits one, unless given, and holds for the whole file. Memory does not grow with the file.

mod check;
mod digests;
mod distribution;
mod edits;
mod extra;
mod field_counts;
mod fields;
mod format;
mod given_scores;
mod messages;
mod overlap;
mod reader;
mod rewards;
mod rows;
mod spans;
mod statistics;
mod words;

#[cfg(test)]
mod containers;
#[cfg(test)]
mod documented;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod properties;

pub use check::check;
pub use distribution::Counts;
pub use edits::spans_of_edit;
pub use extra::ExtraFields;
pub use given_scores::{GivenScore, read_scores};
pub use overlap::overlap;
pub use reader::{DatasetError, PairReader, Row, read_pairs};
pub use rows::MAX_ROW_BYTES;

/// What two completions answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Prompt {
    /// A text; where a chat template renders it, it becomes one user message.
    Text(String),
    /// A conversation whose last message is not the assistant's; never empty.
    Messages(Vec<Message>),
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Message {
    /// One of [`Message::ROLES`].
    pub role: String,
    /// Its text.
    pub content: String,
}

impl Message {
    /// The roles a message can have.
    pub const ROLES: [&'static str; 5] = ["system", "user", "assistant", "tool", "developer"];
}

/// A prompt and two completions, of which people like one better. Each completion is the text of one assistant turn.
#[derive(Debug, Clone, PartialEq)]
pub struct PreferencePair {
    /// Where it stands in the file, counted from 1: in JSON Lines and CSV the line it begins on, else the number of its row.
    pub line: u64,
    /// What the completions answer.
    pub prompt: Prompt,
    /// The better completion.
    pub chosen: String,
    /// The worse completion.
    pub rejected: String,
    /// What else its line says.
    pub extra: ExtraFields,
}

/// What a format finds in one row: the pair itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Example {
    prompt: Prompt,
    chosen: String,
    rejected: String,
}
