//! The tokenizer files of a model of ours: copied from the model it came from, or made where that was a GGUF file.

use std::path::Path;

use fs_err as fs;
use serde_json::json;
use tokenizers::{Tokenizer, processors::template::TemplateProcessing};

use super::{error::TextError, parts::SpecialToken};

/// What a Hugging Face directory can say about its text.
const FILES: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
];

/// What `tokenizer_config.json` says.
pub(super) struct Config<'a> {
    pub(super) bos: Option<&'a SpecialToken>,
    pub(super) starts_with_bos: bool,
    pub(super) eos: Option<&'a SpecialToken>,
    pub(super) stop_ids: &'a [u32],
    pub(super) template: Option<&'a str>,
}

/// Copies the files that `source` has.
pub(super) fn copy(source: &Path, directory: &Path) -> Result<(), TextError> {
    for name in FILES {
        let from = source.join(name);
        if from.is_file() {
            fs::copy(from, directory.join(name))?;
        }
    }
    Ok(())
}

/// Writes `tokenizer.json`, `tokenizer_config.json` and `generation_config.json`.
pub(super) fn write(tokenizer: &Tokenizer, config: &Config<'_>, directory: &Path) -> Result<(), TextError> {
    let mut tokenizer = tokenizer.clone();
    if let (Some(bos), true) = (config.bos, config.starts_with_bos) {
        let failed = |e: &dyn std::fmt::Display| TextError::Tokenizer(e.to_string());
        let mut builder = TemplateProcessing::builder();
        builder.try_single(format!("{} $A", bos.text)).map_err(|e| failed(&e))?;
        builder.special_tokens(vec![(bos.text.clone(), bos.id)]);
        tokenizer.with_post_processor(Some(builder.build().map_err(|e| failed(&e))?));
    }
    let text = tokenizer.to_string(false).map_err(|e| TextError::Tokenizer(e.to_string()))?;
    fs::write(directory.join("tokenizer.json"), text)?;
    let settings = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": false,
        "add_bos_token": config.starts_with_bos,
        "bos_token": config.bos.map(|t| &t.text),
        "eos_token": config.eos.map(|t| &t.text),
        "chat_template": config.template,
    });
    let generation = json!({
        "bos_token_id": config.bos.map(|t| t.id),
        "eos_token_id": config.stop_ids,
    });
    for (name, value) in [("tokenizer_config.json", settings), ("generation_config.json", generation)] {
        fs::write(directory.join(name), serde_json::to_vec_pretty(&value).map_err(std::io::Error::from)?)?;
    }
    Ok(())
}
