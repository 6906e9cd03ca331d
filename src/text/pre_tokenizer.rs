//! How a byte-level BPE cuts text into words before merging, by the name GGUF files give it (`tokenizer.ggml.pre`).
//!
//! The wrong cut gives other ids and so other log-probabilities, without any error: an unknown name is refused.

use tokenizers::{
    NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior,
    normalizers::NFC,
    pre_tokenizers::{
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use super::error::TextError;

/// Llama 3's words: numbers of up to three digits.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's: the same with single digits.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What happens to a text before the merges.
#[derive(Debug)]
pub(super) struct WordRules {
    /// Applied to the text first.
    pub(super) normalizer: Option<NormalizerWrapper>,
    /// Cuts it into words, of byte-level characters.
    pub(super) pre_tokenizer: PreTokenizerWrapper,
    /// Whether a word that is itself a token is taken as it is, before any merge.
    pub(super) ignore_merges: bool,
}

/// The rules of the name `pre`, as the models' own `tokenizer.json` files write them.
pub(super) fn by_name(pre: &str) -> Result<WordRules, TextError> {
    let rules = |first: PreTokenizerWrapper, use_regex| {
        let bytes = ByteLevel::new(false, true, use_regex).into();
        WordRules { normalizer: None, pre_tokenizer: Sequence::new(vec![first, bytes]).into(), ignore_merges: false }
    };
    Ok(match pre {
        "gpt-2" => WordRules {
            normalizer: None,
            pre_tokenizer: ByteLevel::new(false, true, true).into(),
            ignore_merges: false,
        },
        // Digits one by one, then GPT-2's words.
        "smollm" => rules(Digits::new(true).into(), true),
        "llama-bpe" | "llama3" => WordRules { ignore_merges: true, ..rules(split(LLAMA3)?, false) },
        "qwen2" => WordRules { normalizer: Some(NFC.into()), ..rules(split(QWEN2)?, false) },
        other => {
            return Err(TextError::Unsupported(format!(
                "the pre-tokenizer '{other}' (tokenizer.ggml.pre) is not known here; known are gpt-2, smollm, llama-bpe \
                 and qwen2: use the model's Hugging Face directory, whose tokenizer.json says it in full"
            )));
        }
    })
}

fn split(pattern: &str) -> Result<PreTokenizerWrapper, TextError> {
    Split::new(SplitPattern::Regex(pattern.to_owned()), SplitDelimiterBehavior::Isolated, false)
        .map(Into::into)
        .map_err(|e| TextError::Tokenizer(e.to_string()))
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::*;

    fn words(pre: &str, text: &str) -> Vec<String> {
        let mut pre_tokenized = PreTokenizedString::from(text);
        by_name(pre).unwrap().pre_tokenizer.pre_tokenize(&mut pre_tokenized).unwrap();
        let splits = pre_tokenized.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(word, _, _)| word.replace('Ġ', " ")).collect()
    }

    #[test]
    fn every_name_cuts_numbers_its_own_way() {
        let text = "It's 12345 x";
        assert_eq!(words("gpt-2", text), ["It", "'s", " 12345", " x"]);
        assert_eq!(words("smollm", text), ["It", "'s", " ", "1", "2", "3", "4", "5", " x"]);
        assert_eq!(words("llama-bpe", text), ["It", "'s", " ", "123", "45", " x"]);
        assert_eq!(words("qwen2", text), ["It", "'s", " ", "1", "2", "3", "4", "5", " x"]);
    }

    #[test]
    fn an_unknown_name_is_refused_by_name() {
        let error = by_name("some-new-bpe").unwrap_err().to_string();
        assert!(error.contains("some-new-bpe"), "{error}");
        assert!(by_name("default").is_err(), "'default' means that the converter did not know it either");
    }
}
