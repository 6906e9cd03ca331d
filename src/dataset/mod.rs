//! Preference datasets: JSON Lines in one of several formats, read as preference pairs, with every problem named by line.
//!
//! A format is one file here and one word of [`DatasetFormat`](crate::domain::DatasetFormat). It is told from the first line
//! that fits one, unless given, and holds for the whole file. Reading is by line: memory does not grow with the file.

mod anthropic_hh;
mod check;
mod duplicates;
mod edits;
mod extra;
mod field_counts;
mod fields;
mod format;
mod given_scores;
mod lines;
mod messages;
mod openai_preference;
mod reader;
mod rewards;
mod spans;
mod trl_conversational;
mod trl_conversational_implicit;
mod trl_standard;
mod trl_standard_implicit;
mod words;

#[cfg(test)]
mod documented;
#[cfg(test)]
mod properties;

pub use check::check;
pub use edits::spans_of_edit;
pub use extra::ExtraFields;
pub use given_scores::{GivenScore, read_scores};
pub use reader::{DatasetError, PairReader, Row, read_pairs};

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
    /// Its line in the file, counted from 1.
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

/// What a format finds in one line: the pair itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Example {
    prompt: Prompt,
    chosen: String,
    rejected: String,
}
