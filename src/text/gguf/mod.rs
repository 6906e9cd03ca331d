//! The text part of a GGUF file: tokenizer, special tokens and template out of its metadata.

mod byte_level;
mod metadata;
mod pre_tokenizer;
mod sentence_piece;
mod vocabulary;
mod word_patterns;
mod write;

use std::{io::BufReader, path::Path};

use candle_core::quantized::gguf_file::Content;
use tokenizers::Tokenizer;

pub use self::write::tokenizer_keys;

use self::metadata::Metadata;
use super::{
    error::TextError,
    parts::{Parts, SpecialToken},
};

/// Reads the metadata of the file at `path`; its tensors are not read.
pub(super) fn load(path: &Path) -> Result<Parts, TextError> {
    let mut file = BufReader::new(fs_err::File::open(path)?);
    let content = Content::read(&mut file)
        .map_err(|e| TextError::Invalid(format!("{} is not a whole GGUF file: {e}", path.display())))?;
    parts(&Metadata(&content.metadata))
}

/// A tokenizer, and what its kind says where the file says nothing.
struct Kind {
    tokenizer: Tokenizer,
    bos_id: Option<u32>,
    eos_id: Option<u32>,
}

fn parts(metadata: &Metadata<'_>) -> Result<Parts, TextError> {
    let kind = match metadata.text("tokenizer.ggml.model")? {
        "gpt2" if metadata.text_or_empty("tokenizer.ggml.pre") == "gemma4" => sentence_piece::merged(metadata)?,
        "gpt2" => byte_level::tokenizer(metadata)?,
        "llama" => sentence_piece::scored(metadata)?,
        "gemma4" => sentence_piece::merged(metadata)?,
        other => {
            return Err(TextError::Unsupported(format!(
                "the GGUF tokenizer '{other}' is not supported (only gpt2, a byte-level BPE; llama and gemma4, \
                 SentencePiece's BPE): use the model's Hugging Face directory, which has a tokenizer.json"
            )));
        }
    };
    let named = |key: &str, otherwise: Option<u32>| special_token(metadata, key, otherwise, &kind.tokenizer);
    let bos = named("tokenizer.ggml.bos_token_id", kind.bos_id)?;
    let eos = named("tokenizer.ggml.eos_token_id", kind.eos_id)?;
    let mut stop_ids: Vec<u32> = eos.iter().map(|t| t.id).collect();
    for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        stop_ids.extend(named(key, None)?.map(|t| t.id));
    }
    let starts_with_bos = metadata.flag("tokenizer.ggml.add_bos_token").unwrap_or(true);
    let template = match metadata.get("tokenizer.chat_template") {
        Some(_) => Some(metadata.text("tokenizer.chat_template")?.to_owned()),
        None => None,
    };
    Ok(Parts { tokenizer: kind.tokenizer, bos, starts_with_bos, eos, stop_ids, template })
}

/// The token whose id stands under `key`; where no id does, `otherwise`.
fn special_token(
    metadata: &Metadata<'_>,
    key: &str,
    otherwise: Option<u32>,
    tokenizer: &Tokenizer,
) -> Result<Option<SpecialToken>, TextError> {
    let id = match metadata.get(key) {
        None if otherwise.is_none() => return Ok(None),
        None => otherwise,
        Some(_) => metadata.id(key),
    };
    let token = id.and_then(|id| Some(SpecialToken { text: tokenizer.id_to_token(id)?, id }));
    token.map(Some).ok_or_else(|| TextError::Invalid(format!("{key} of the GGUF file names no token")))
}

fn failed(error: tokenizers::Error) -> TextError {
    TextError::Tokenizer(error.to_string())
}
