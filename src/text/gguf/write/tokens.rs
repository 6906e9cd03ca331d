//! The tokens of a `tokenizer.json` as GGUF lists them, one for each row of the embedding.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;
use serde_json::Value as Json;
use tokenizers::Tokenizer;

use super::Keys;
use crate::text::error::TextError;

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// The tokens by id, and GGUF's number for what each is for.
pub(super) struct Tokens {
    pub(super) texts: Vec<String>,
    kinds: Vec<i32>,
}

impl Tokens {
    pub(super) fn of(tokenizer: &Tokenizer, json: &Json, n_rows: usize) -> Result<Self, TextError> {
        let is_pieces = json["model"]["byte_fallback"] == true;
        let added: HashMap<u32, bool> = tokenizer
            .get_added_tokens_decoder()
            .iter()
            .map(|(id, token)| (*id, token.special || looks_special(&token.content)))
            .collect();
        let unknown = json["model"]["unk_token"].as_str();
        let mut tokens = Self {
            // Rows that no token has: embeddings are often padded to a rounder number.
            texts: (0..n_rows).map(|id| format!("[PAD{id}]")).collect(),
            kinds: vec![UNUSED; n_rows],
        };
        for (text, id) in tokenizer.get_vocab(true) {
            let row = id as usize;
            if row >= n_rows {
                // Gemma's tokenizers have one for images, which models of text alone have no row for.
                if added.contains_key(&id) {
                    continue;
                }
                return Err(TextError::Invalid(format!(
                    "the tokenizer has the token '{text}' with id {id}, the embedding {n_rows} rows: they belong to different \
                     models"
                )));
            }
            (tokens.kinds[row], tokens.texts[row]) = match added.get(&id) {
                Some(_) if is_pieces && Some(text.as_str()) == unknown => (UNKNOWN, text),
                Some(true) => (CONTROL, text),
                // Found in the text before spaces become ▁.
                Some(false) => (USER_DEFINED, if is_pieces { text.replace('▁', " ") } else { text }),
                None if is_pieces && is_byte(&text) => (BYTE, text),
                None if is_pieces && Some(text.as_str()) == unknown => (UNKNOWN, text),
                None => (NORMAL, text),
            };
        }
        Ok(tokens)
    }

    pub(super) fn add_to(self, keys: &mut Keys) {
        keys.add("ggml.tokens", Value::Array(self.texts.into_iter().map(Value::String).collect()));
        keys.add("ggml.token_type", Value::Array(self.kinds.into_iter().map(Value::I32).collect()));
    }
}

/// `<0x0A>`
fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Tokens that some models' files do not call special, and should: as llama.cpp's converter has it.
fn looks_special(text: &str) -> bool {
    let between = |start: &str, end: &str| text.starts_with(start) && text.ends_with(end);
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(&text)
        || between("<|", "|>")
        || between("<｜", "｜>")
        || between("<unused", ">")
}
