//! The text part of a Hugging Face directory: `tokenizer.json` and the small files beside it.

use std::{io::Read, path::Path};

use serde_json::Value;
use tokenizers::Tokenizer;

use super::{
    error::TextError,
    parts::{Parts, SpecialToken},
};

/// The largest tokenizer or configuration read, in bytes; the largest known one has 35 MB.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Reads the tokenizer, special tokens and template of the model in `directory`.
pub(super) fn load(directory: &Path) -> Result<Parts, TextError> {
    let Some(bytes) = read(&directory.join("tokenizer.json"))? else {
        return Err(TextError::Unsupported(format!(
            "{} has no tokenizer.json, the only tokenizer file read: transformers writes it \
             (AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR))",
            directory.display()
        )));
    };
    let tokenizer = Tokenizer::from_bytes(&bytes)
        .map_err(|e| TextError::Invalid(format!("{}: {e}", directory.join("tokenizer.json").display())))?;
    let files = Files {
        tokenizer_config: read_json(&directory.join("tokenizer_config.json"))?,
        special_tokens_map: read_json(&directory.join("special_tokens_map.json"))?,
        generation_config: read_json(&directory.join("generation_config.json"))?,
        config: read_json(&directory.join("config.json"))?,
    };
    let bos = files.special_token("bos", &tokenizer)?;
    let eos = files.special_token("eos", &tokenizer)?;
    let mut stop_ids: Vec<u32> = eos.iter().map(|t| t.id).collect();
    stop_ids.extend(files.ids("eos_token_id"));
    let template = match read(&directory.join("chat_template.jinja"))? {
        Some(bytes) => Some(String::from_utf8(bytes).map_err(|_| {
            TextError::Invalid(format!("{}: not UTF-8", directory.join("chat_template.jinja").display()))
        })?),
        None => files.template(),
    };
    let starts_with_bos = files.tokenizer_config["add_bos_token"] != Value::Bool(false);
    Ok(Parts { tokenizer, bos, starts_with_bos, eos, stop_ids, template })
}

/// All that [`load`] reads of a directory, in one order; of the model's own configuration only the ids of special tokens.
pub(super) fn parts_of_text(directory: &Path) -> Result<Vec<Vec<u8>>, TextError> {
    let mut parts = Vec::new();
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"] {
        // An absent file is not an empty one.
        parts.push(read(&directory.join(name))?.unwrap_or_else(|| vec![0]));
    }
    for name in ["generation_config.json", "config.json"] {
        let file = read_json(&directory.join(name))?;
        let ids = [&file["bos_token_id"], &file["eos_token_id"]];
        parts.push(serde_json::to_vec(&ids).expect("JSON values are JSON"));
    }
    Ok(parts)
}

/// The small files, `null` where one is absent.
struct Files {
    tokenizer_config: Value,
    special_tokens_map: Value,
    generation_config: Value,
    config: Value,
}

impl Files {
    /// `bos` or `eos`: what the tokenizer's files say, an explicit null included; where they are silent, the model's ids.
    fn special_token(&self, name: &str, tokenizer: &Tokenizer) -> Result<Option<SpecialToken>, TextError> {
        let key = format!("{name}_token");
        for file in [&self.tokenizer_config, &self.special_tokens_map] {
            let Some(value) = file.get(&key) else { continue };
            // A string, or an added token in full.
            let Some(text) = value.as_str().or_else(|| value["content"].as_str()) else { return Ok(None) };
            let id = tokenizer
                .token_to_id(text)
                .ok_or_else(|| TextError::Invalid(format!("the {key} '{text}' is not in tokenizer.json")))?;
            return Ok(Some(SpecialToken { text: text.to_owned(), id }));
        }
        let Some(id) = self.ids(&format!("{name}_token_id")).first().copied() else { return Ok(None) };
        let text = tokenizer
            .id_to_token(id)
            .ok_or_else(|| TextError::Invalid(format!("the {name}_token_id {id} is not in tokenizer.json")))?;
        Ok(Some(SpecialToken { text, id }))
    }

    /// Ids under `key`, one or a list, of `generation_config.json` and then of `config.json`.
    fn ids(&self, key: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        for value in [&self.generation_config[key], &self.config[key]] {
            let one = std::slice::from_ref(value);
            let list = value.as_array().map_or(one, Vec::as_slice);
            ids.extend(list.iter().filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok()));
        }
        ids
    }

    /// `chat_template`: a text, or a list of named ones of which `default` is meant.
    fn template(&self) -> Option<String> {
        let value = &self.tokenizer_config["chat_template"];
        let default = || value.as_array()?.iter().find(|t| t["name"] == "default")?["template"].as_str();
        value.as_str().or_else(default).map(str::to_owned)
    }
}

/// A file's bytes; `None` where there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, TextError> {
    let file = match fs_err::File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(TextError::Invalid(format!("{} is larger than {MAX_FILE_BYTES} bytes", path.display())));
    }
    Ok(Some(bytes))
}

fn read_json(path: &Path) -> Result<Value, TextError> {
    match read(path)? {
        None => Ok(Value::Null),
        Some(bytes) => {
            serde_json::from_slice(&bytes).map_err(|e| TextError::Invalid(format!("{}: {e}", path.display())))
        }
    }
}
