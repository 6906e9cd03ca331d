//! The name GGUF files have for the way a tokenizer cuts text into words: found by cutting, whatever words its file says it in.

use tokenizers::{
    NormalizedString, Normalizer, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    PreTokenizerWrapper, Tokenizer,
};

use super::probe;
use crate::text::{error::TextError, gguf::pre_tokenizer::by_name};

/// One name for each set of rules, the most frequent first.
const NAMES: [&str; 28] = [
    "llama-bpe",
    "qwen2",
    "gpt-2",
    "olmo",
    "smollm",
    "tekken",
    "gpt-4o",
    "dbrx",
    "stablelm2",
    "qwen35",
    "deepseek-llm",
    "deepseek-coder",
    "deepseek-v3",
    "falcon",
    "command-r",
    "glm4",
    "bloom",
    "viking",
    "jais-2",
    "minicpm5",
    "laguna",
    "ufakzeka",
    "seed-coder",
    "exaone-moe",
    "spark2_5",
    "tiny_aya",
    "youtu",
    "superbpe",
];

/// The name of a byte-level tokenizer's rules.
///
/// # Errors
/// If there is none: with another one the model would read other tokens.
pub(super) fn name_of(tokenizer: &Tokenizer, ignore_merges: bool) -> Result<&'static str, TextError> {
    let ours = words(tokenizer.get_normalizer(), tokenizer.get_pre_tokenizer())?;
    for name in NAMES {
        let rules = by_name(name)?;
        if rules.ignore_merges == ignore_merges && words(rules.normalizer.as_ref(), Some(&rules.pre_tokenizer))? == ours
        {
            return Ok(name);
        }
    }
    Err(TextError::Unsupported(
        "the tokenizer cuts text into words in a way that llama.cpp has no name for (tokenizer.ggml.pre), and under another \
         name the model would read other tokens: export it as a Hugging Face directory"
            .into(),
    ))
}

/// The probe's words, of byte-level characters.
fn words(
    normalizer: Option<&NormalizerWrapper>,
    pre_tokenizer: Option<&PreTokenizerWrapper>,
) -> Result<Vec<String>, TextError> {
    let mut text = NormalizedString::from(probe());
    if let Some(normalizer) = normalizer {
        normalizer.normalize(&mut text).map_err(super::super::failed)?;
    }
    let mut text = PreTokenizedString::from(text);
    if let Some(pre_tokenizer) = pre_tokenizer {
        pre_tokenizer.pre_tokenize(&mut text).map_err(super::super::failed)?;
    }
    let splits = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
    Ok(splits.into_iter().map(|(word, _, _)| word.to_owned()).filter(|word| !word.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use tokenizers::{models::bpe::BPE, pre_tokenizers::byte_level::ByteLevel};

    use super::*;

    #[test]
    fn every_name_is_told_from_all_others() {
        let mut confused = Vec::new();
        for name in NAMES {
            let rules = by_name(name).unwrap();
            let mut tokenizer = Tokenizer::new(BPE::default());
            tokenizer.with_normalizer(rules.normalizer).unwrap();
            tokenizer.with_pre_tokenizer(Some(rules.pre_tokenizer));
            let found = name_of(&tokenizer, rules.ignore_merges).unwrap();
            if found != name {
                confused.push((name, found));
            }
        }
        // They differ in what they do about the beginning of a text alone, which a file says apart.
        assert_eq!(confused, [("glm4", "llama-bpe")]);
    }

    #[test]
    fn rules_without_a_name_are_refused() {
        let mut tokenizer = Tokenizer::new(BPE::default());
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(true, true, false)));
        let error = name_of(&tokenizer, false).unwrap_err().to_string();
        assert!(error.contains("tokenizer.ggml.pre"), "{error}");
    }
}
