//! What a model's files say about its text, whichever format they have: the loaders' result, the codec's start.

use tokenizers::Tokenizer;

/// A token with a meaning of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SpecialToken {
    /// Its text, as a template writes it.
    pub(super) text: String,
    /// Its id.
    pub(super) id: u32,
}

/// Tokenizer, special tokens and template of one model.
#[derive(Debug)]
pub(super) struct Parts {
    /// The tokenizer; truncation and padding are switched off by the codec.
    pub(super) tokenizer: Tokenizer,
    /// The beginning-of-sequence token, where the model has one; templates may write it.
    pub(super) bos: Option<SpecialToken>,
    /// Whether a text without template starts with it.
    pub(super) starts_with_bos: bool,
    /// The end-of-sequence token.
    pub(super) eos: Option<SpecialToken>,
    /// Every token that ends a generation, `eos` and more.
    pub(super) stop_ids: Vec<u32>,
    /// The chat template (Jinja), where the model has one.
    pub(super) template: Option<String>,
}
