//! The text part of a GGUF file: tokenizer, special tokens and template out of its metadata.

use std::{collections::HashMap, io::BufReader, path::Path};

use candle_core::quantized::gguf_file::{Content, Value};
use tokenizers::{
    AddedToken, Tokenizer,
    decoders::byte_level::ByteLevel,
    models::bpe::{BPE, Vocab},
};

use super::{
    error::TextError,
    parts::{Parts, SpecialToken},
    pre_tokenizer,
};

/// `tokenizer.ggml.token_type` of a token with a meaning of its own.
const CONTROL: u64 = 3;
/// ... and of one that was added by hand and is found in any text.
const USER_DEFINED: u64 = 4;

/// Reads the metadata of the file at `path`; its tensors are not read.
pub(super) fn load(path: &Path) -> Result<Parts, TextError> {
    let mut file = BufReader::new(fs_err::File::open(path)?);
    let content = Content::read(&mut file)
        .map_err(|e| TextError::Invalid(format!("{} is not a whole GGUF file: {e}", path.display())))?;
    Metadata(&content.metadata).parts()
}

/// A GGUF file's key-value pairs.
struct Metadata<'a>(&'a HashMap<String, Value>);

impl Metadata<'_> {
    fn parts(&self) -> Result<Parts, TextError> {
        let tokenizer = match self.text("tokenizer.ggml.model")? {
            "gpt2" => self.byte_level_bpe()?,
            other => {
                return Err(TextError::Unsupported(format!(
                    "the GGUF tokenizer '{other}' is not supported (only gpt2, a byte-level BPE): use the model's \
                     Hugging Face directory, which has a tokenizer.json"
                )));
            }
        };
        let bos = self.special_token("tokenizer.ggml.bos_token_id", &tokenizer)?;
        let eos = self.special_token("tokenizer.ggml.eos_token_id", &tokenizer)?;
        let mut stop_ids: Vec<u32> = eos.iter().map(|t| t.id).collect();
        for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
            stop_ids.extend(self.special_token(key, &tokenizer)?.map(|t| t.id));
        }
        let starts_with_bos =
            self.0.get("tokenizer.ggml.add_bos_token").is_none_or(|value| value.to_bool().unwrap_or(true));
        let template = match self.0.get("tokenizer.chat_template") {
            Some(_) => Some(self.text("tokenizer.chat_template")?.to_owned()),
            None => None,
        };
        Ok(Parts { tokenizer, bos, starts_with_bos, eos, stop_ids, template })
    }

    fn byte_level_bpe(&self) -> Result<Tokenizer, TextError> {
        let pre = self.0.get("tokenizer.ggml.pre").and_then(|v| v.to_string().ok()).map_or("", String::as_str);
        let rules = pre_tokenizer::by_name(pre)?;
        let tokens = self.texts("tokenizer.ggml.tokens")?;
        let types: Vec<u64> = self.list("tokenizer.ggml.token_type")?.iter().filter_map(whole_number).collect();
        if types.len() != tokens.len() {
            let (n, m) = (tokens.len(), types.len());
            return Err(TextError::Invalid(format!("the GGUF file has {n} tokens and {m} token types")));
        }
        let vocab: Vocab = tokens.iter().zip(0_u32..).map(|(token, id)| ((*token).to_owned(), id)).collect();
        let mut merges = Vec::new();
        for merge in self.texts("tokenizer.ggml.merges")? {
            let (left, right) = merge
                .split_once(' ')
                .ok_or_else(|| TextError::Invalid(format!("the GGUF file has a merge without a space: '{merge}'")))?;
            merges.push((left.to_owned(), right.to_owned()));
        }
        let bpe = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(rules.ignore_merges);
        let mut tokenizer = Tokenizer::new(bpe.build().map_err(|e| TextError::Invalid(e.to_string()))?);
        let failed = |e: tokenizers::Error| TextError::Tokenizer(e.to_string());
        tokenizer.with_normalizer(rules.normalizer).map_err(failed)?;
        tokenizer.with_pre_tokenizer(Some(rules.pre_tokenizer));
        tokenizer.with_decoder(Some(ByteLevel::default()));
        // All are in the vocabulary already, so that adding them gives no new ids.
        let of_type = |wanted, special| {
            let chosen = tokens.iter().zip(&types).filter(move |(_, kind)| **kind == wanted);
            chosen.map(move |(token, _)| AddedToken::from(*token, special).normalized(false))
        };
        tokenizer.add_special_tokens(of_type(CONTROL, true)).map_err(failed)?;
        tokenizer.add_tokens(of_type(USER_DEFINED, false)).map_err(failed)?;
        Ok(tokenizer)
    }

    fn special_token(&self, key: &str, tokenizer: &Tokenizer) -> Result<Option<SpecialToken>, TextError> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        let id = whole_number(value).and_then(|id| u32::try_from(id).ok());
        let token = id.and_then(|id| Some(SpecialToken { text: tokenizer.id_to_token(id)?, id }));
        token.map(Some).ok_or_else(|| TextError::Invalid(format!("{key} of the GGUF file names no token")))
    }

    fn text(&self, key: &str) -> Result<&str, TextError> {
        let value = self.0.get(key).and_then(|value| value.to_string().ok());
        value.map(String::as_str).ok_or_else(|| TextError::Invalid(format!("the GGUF file has no text '{key}'")))
    }

    fn list(&self, key: &str) -> Result<&[Value], TextError> {
        let value = self.0.get(key).and_then(|value| value.to_vec().ok());
        value.map(Vec::as_slice).ok_or_else(|| TextError::Invalid(format!("the GGUF file has no list '{key}'")))
    }

    fn texts(&self, key: &str) -> Result<Vec<&str>, TextError> {
        self.list(key)?
            .iter()
            .map(|value| value.to_string().map(String::as_str))
            .collect::<Result<_, _>>()
            .map_err(|_| TextError::Invalid(format!("'{key}' of the GGUF file is not a list of texts")))
    }
}

/// A number of any of GGUF's integer types.
fn whole_number(value: &Value) -> Option<u64> {
    match value {
        Value::I8(v) => u64::try_from(*v).ok(),
        Value::I16(v) => u64::try_from(*v).ok(),
        Value::I32(v) => u64::try_from(*v).ok(),
        Value::I64(v) => u64::try_from(*v).ok(),
        other => other.to_u64().ok(),
    }
}
