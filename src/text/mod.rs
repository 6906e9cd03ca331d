//! Text to tokens and back: tokenizers, chat templates, truncation. Sees text and ids, never weights.
//!
//! Every model has its own [`Codec`]: token ids of one model mean nothing to another, so what passes between models is text.

mod codec;
mod encoded_pair;
mod error;
mod fit;
mod gguf;
mod huggingface;
mod in_spans;
#[cfg(test)]
mod parity;
mod parts;
mod render;
mod row_digest;
mod same_text;
mod save;
mod template;

pub use codec::{Codec, TextIdentity};
pub use encoded_pair::EncodedPair;
pub use error::TextError;
pub use fit::{Fit, FitReport, TooLong, cut_prompt_to_chars, fit};
pub use gguf::tokenizer_keys;
pub use render::plain_prompt;
pub use row_digest::{TokenWeighting, row_digest};
pub use same_text::text_fingerprint;
