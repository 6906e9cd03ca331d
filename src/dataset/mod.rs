//! Preference pairs.

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// What the completions answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// A text.
    Text(String),
    /// A conversation.
    Messages(Vec<Message>),
}

/// One preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreferencePair {
    /// Line in the file, from 1.
    pub line: u64,
    /// What is answered.
    pub prompt: Prompt,
    /// The better answer.
    pub chosen: String,
    /// The worse answer.
    pub rejected: String,
}
