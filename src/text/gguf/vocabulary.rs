//! The tokens of a GGUF file and what each of them is for.

use tokenizers::{
    AddedToken, Tokenizer,
    models::bpe::{Merges, Vocab},
};

use super::{failed, metadata::Metadata};
use crate::text::error::TextError;

/// What a token is for: `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A piece of text.
    Normal,
    /// Has a meaning of its own and is found in templates only.
    Control,
    /// Was added by hand and is found in any text, before anything else.
    UserDefined,
    /// Stands for a byte of a character that has no token.
    Byte,
}

/// Tokens that end a turn. Some files call them text, and a completion could then end its own turn.
const TURN_ENDS: [&str; 6] = ["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>"];
/// The keys that name a token with a meaning of its own.
const SPECIAL_IDS: [&str; 4] = [
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
];

/// The tokens by id.
pub(super) struct Vocabulary<'a> {
    pub(super) tokens: Vec<&'a str>,
    pub(super) kinds: Vec<TokenKind>,
}

impl<'a> Vocabulary<'a> {
    pub(super) fn read(metadata: &Metadata<'a>) -> Result<Self, TextError> {
        let tokens = metadata.texts("tokenizer.ggml.tokens")?;
        let types = metadata.whole_numbers("tokenizer.ggml.token_type")?;
        if types.len() != tokens.len() {
            let (n, m) = (tokens.len(), types.len());
            return Err(TextError::Invalid(format!("the GGUF file has {n} tokens and {m} token types")));
        }
        let special_ids = SPECIAL_IDS.map(|key| metadata.id(key));
        let kind = |(id, (token, kind)): (u32, (&&str, &u64))| match kind {
            _ if special_ids.contains(&Some(id)) || TURN_ENDS.contains(token) => TokenKind::Control,
            // An unknown token is written by templates if by anything.
            2 | 3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            6 => TokenKind::Byte,
            _ => TokenKind::Normal,
        };
        let kinds = (0..).zip(tokens.iter().zip(&types)).map(kind).collect();
        Ok(Self { tokens, kinds })
    }

    /// Id by text.
    pub(super) fn ids(&self) -> Vocab {
        self.tokens.iter().zip(0_u32..).map(|(token, id)| ((*token).to_owned(), id)).collect()
    }

    /// Makes the tokenizer find the special and the added tokens; with `takes_space_after`, nearly all together with the white
    /// space behind them. All are in the vocabulary already, so that adding them gives no new ids.
    pub(super) fn add_to(&self, tokenizer: &mut Tokenizer, takes_space_after: bool) -> Result<(), TextError> {
        let of_kind = |wanted, special| {
            let chosen = self.tokens.iter().zip(&self.kinds).filter(move |(_, kind)| **kind == wanted);
            chosen.map(move |(token, _)| {
                let strips = takes_space_after && !["<s>", "<unk>", "<|endoftext|>"].contains(token);
                AddedToken::from(*token, special).normalized(false).rstrip(strips)
            })
        };
        tokenizer.add_special_tokens(of_kind(TokenKind::Control, true)).map_err(failed)?;
        tokenizer.add_tokens(of_kind(TokenKind::UserDefined, false)).map_err(failed)?;
        Ok(())
    }
}

/// `tokenizer.ggml.merges`: the pairs that become one token, the first first.
pub(super) fn merges(metadata: &Metadata<'_>) -> Result<Merges, TextError> {
    let split = |merge: &str| {
        // The first character may itself be a space.
        let at = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
        at.map(|at| (merge[..at].to_owned(), merge[at + 1..].to_owned()))
            .ok_or_else(|| TextError::Invalid(format!("the GGUF file has a merge without a space: '{merge}'")))
    };
    metadata.texts("tokenizer.ggml.merges")?.into_iter().map(split).collect()
}
