//! The keys by which a GGUF file says what a model's tokenizer is: copied from the model's own GGUF file, or made of its
//! `tokenizer.json` as llama.cpp's converter makes them.
//!
//! What is made is read again and must give the same ids as the tokenizer it was made of: a wrong vocabulary gives other
//! text, without any error.

mod pre_tokenizer;
mod scores;
mod tokens;

use std::{collections::HashMap, io::BufReader, path::Path};

use candle_core::quantized::gguf_file::{Content, Value};
use serde_json::Value as Json;
use tokenizers::Tokenizer;

use self::tokens::Tokens;
use super::metadata::Metadata;
use crate::{
    domain::{ModelLocation, WeightsFormat},
    text::{error::TextError, huggingface, parts::Parts},
};

/// Text of many kinds, and more spaces than any rule takes at once.
fn probe() -> String {
    [PROBE, &" ".repeat(1200), "x"].concat()
}

/// Most of it llama.cpp's own probe of pre-tokenizers: white space, numbers, scripts, apostrophes. Further a letter written apart
/// from its accent, and what else the rules we know differ in.
const PROBE: &str = "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u{200d}🌫️ (multiple emojis concatenated) ✅ 🦙🦙 \
    3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------======= нещо на \
    Български ''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? 'M not sure I'll make it, \
    'D you like some tea? We'Ve a'lL cafe\u{301} camelCase HTTPServer a/b?!\n\n that'sit  12 Hello, world  and  ";

/// The keys `tokenizer.*` of a GGUF file with an embedding of `n_rows` rows.
///
/// # Errors
/// A tokenizer that GGUF cannot say, by the reason.
pub fn tokenizer_keys(location: &ModelLocation, n_rows: usize) -> Result<Vec<(String, Value)>, TextError> {
    match location.format {
        WeightsFormat::Gguf => copied(&location.weights),
        WeightsFormat::Huggingface => made(&location.weights, n_rows),
        WeightsFormat::Scores | WeightsFormat::Remote => Err(TextError::Invalid(WeightsFormat::NOT_A_MODEL.into())),
    }
}

fn copied(path: &Path) -> Result<Vec<(String, Value)>, TextError> {
    let mut file = BufReader::new(fs_err::File::open(path)?);
    let content = Content::read(&mut file)
        .map_err(|e| TextError::Invalid(format!("{} is not a whole GGUF file: {e}", path.display())))?;
    let mut keys: Vec<_> = content.metadata.into_iter().filter(|(key, _)| key.starts_with("tokenizer.")).collect();
    keys.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(keys)
}

fn made(directory: &Path, n_rows: usize) -> Result<Vec<(String, Value)>, TextError> {
    let parts = huggingface::load(directory)?;
    let read = |name: &str| -> Result<Json, TextError> {
        let path = directory.join(name);
        if !path.is_file() {
            return Ok(Json::Null);
        }
        serde_json::from_slice(&fs_err::read(&path)?)
            .map_err(|e| TextError::Invalid(format!("{}: {e}", path.display())))
    };
    let json = read("tokenizer.json")?;
    if json["model"]["type"] != "BPE" {
        return Err(TextError::Unsupported(format!(
            "the tokenizer is a {}: only BPE can be written to a GGUF file",
            json["model"]["type"].as_str().unwrap_or("kind without a name")
        )));
    }
    let mut keys = Keys::default();
    let tokens = Tokens::of(&parts.tokenizer, &json, n_rows)?;
    if json["model"]["byte_fallback"] == true {
        pieces(&mut keys, &parts, &json, tokens)?;
    } else {
        byte_level(&mut keys, &parts, &json, tokens)?;
    }
    special_tokens(&mut keys, &parts, &json, [&read("tokenizer_config.json")?, &read("special_tokens_map.json")?]);
    check(&keys.0, &parts.tokenizer)?;
    Ok(keys.0)
}

/// The pairs, in the order they are written.
#[derive(Default)]
struct Keys(Vec<(String, Value)>);

impl Keys {
    fn add(&mut self, key: &str, value: Value) {
        self.0.push((format!("tokenizer.{key}"), value));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.add(key, Value::String(value.to_owned()));
    }
}

/// A byte-level BPE.
fn byte_level(keys: &mut Keys, parts: &Parts, json: &Json, tokens: Tokens) -> Result<(), TextError> {
    let name = pre_tokenizer::name_of(&parts.tokenizer, json["model"]["ignore_merges"] == true)?;
    keys.text("ggml.model", "gpt2");
    keys.text("ggml.pre", name);
    tokens.add_to(keys);
    // Such a file separates the two halves by a space, so that a space inside is written as the byte's letter.
    let written =
        scores::merges(json)?.into_iter().map(|(a, b)| format!("{} {}", a.replace(' ', "Ġ"), b.replace(' ', "Ġ")));
    keys.add("ggml.merges", Value::Array(written.map(Value::String).collect()));
    Ok(())
}

/// SentencePiece's BPE.
fn pieces(keys: &mut Keys, parts: &Parts, json: &Json, tokens: Tokens) -> Result<(), TextError> {
    let scores = scores::of(&tokens, &scores::merges(json)?);
    keys.text("ggml.model", "llama");
    keys.text("ggml.pre", "default");
    tokens.add_to(keys);
    keys.add("ggml.scores", Value::Array(scores.into_iter().map(Value::F32).collect()));
    let first = parts.tokenizer.encode("a", false).map_err(super::failed)?;
    let has_prefix = first.get_tokens().first().is_some_and(|token| token.starts_with('▁'));
    keys.add("ggml.add_space_prefix", Value::Bool(has_prefix));
    Ok(())
}

/// The tokens with a meaning of their own, and the chat template.
fn special_tokens(keys: &mut Keys, parts: &Parts, json: &Json, files: [&Json; 2]) {
    let named = |name: &str| {
        let value = files.iter().map(|file| &file[name]).find(|value| !value.is_null())?;
        parts.tokenizer.token_to_id(value.as_str().or_else(|| value["content"].as_str())?)
    };
    let eos = parts.eos.as_ref().map(|token| token.id);
    let mut others = parts.stop_ids.iter().copied().filter(|id| Some(*id) != eos);
    let ids = [
        ("bos", parts.bos.as_ref().map(|token| token.id)),
        ("eos", eos),
        ("eot", others.next()),
        ("eom", others.next()),
        ("unknown", named("unk_token")),
        ("padding", named("pad_token")),
    ];
    for (name, id) in ids {
        if let Some(id) = id {
            keys.add(&format!("ggml.{name}_token_id"), Value::U32(id));
        }
    }
    if let Some(bos) = &parts.bos {
        let starts_with_bos = match json["post_processor"] {
            Json::Null => files[0]["add_bos_token"] == true,
            _ => parts.tokenizer.encode("a", true).is_ok_and(|encoding| encoding.get_ids().first() == Some(&bos.id)),
        };
        keys.add("ggml.add_bos_token", Value::Bool(starts_with_bos));
    }
    if let Some(template) = &parts.template {
        keys.text("chat_template", template);
    }
}

/// Reads the keys and compares the ids.
fn check(keys: &[(String, Value)], tokenizer: &Tokenizer) -> Result<(), TextError> {
    let by_name: HashMap<String, Value> = keys.iter().cloned().collect();
    let read = super::parts(&Metadata(&by_name))?.tokenizer;
    let probe = probe();
    let ids = |tokenizer: &Tokenizer| {
        let encoding = tokenizer.encode(probe.as_str(), false).map_err(super::failed)?;
        Ok::<_, TextError>(encoding.get_ids().to_vec())
    };
    if ids(&read)? != ids(tokenizer)? {
        return Err(TextError::Unsupported(
            "the tokenizer does more than a GGUF file can say: llama.cpp would give other ids for the same text".into(),
        ));
    }
    Ok(())
}
