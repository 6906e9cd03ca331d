//! How a byte-level BPE cuts text into words before merging, by the name GGUF files give it (`tokenizer.ggml.pre`).
//!
//! The wrong cut gives other ids and so other log-probabilities, without any error: an unknown name is refused.

use tokenizers::{
    NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior,
    normalizers::NFC,
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use super::word_patterns as words;
use crate::text::error::TextError;

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
    named(pre)
        .ok_or_else(|| {
            TextError::Unsupported(format!(
                "the pre-tokenizer '{pre}' (tokenizer.ggml.pre) is not known here: use the model's Hugging Face directory, \
                 whose tokenizer.json says it in full"
            ))
        })?
        .build()
}

fn named(pre: &str) -> Option<Named> {
    Some(match pre {
        "gpt-2" | "phi-2" | "gigachat" | "a.x-4.0" | "mellum" | "exaone4" | "jais" | "trillion" | "granite-docling" => {
            cut(&[words::GPT2])
        }
        // The family of GPT-NeoX, Pythia among it.
        "olmo" | "mpt" => cut(&[words::GPT2]).composed(),
        "starcoder" | "refact" | "smollm" | "codeshell" | "exaone" | "minerva-7b" | "mellum2" => {
            cut(&[words::DIGIT, words::GPT2])
        }
        "command-r" => cut(&[words::DIGIT, words::GPT2]).composed(),
        "falcon" => cut(&[words::FALCON_PUNCTUATION, words::GPT2, words::THREE_DIGITS]),
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "midm-2.0" | "lfm2" | "glm4" | "glm5" => {
            cut(&[words::LLAMA3]).whole_words()
        }
        "dbrx" | "smaug-bpe" | "chatglm-bpe" => cut(&[words::LLAMA3]),
        "jais-2" => cut(&[words::JAIS2]),
        "minicpm5" => cut(&[words::UP_TO_THREE_DIGITS, words::MINICPM5]).whole_words(),
        "qwen2" | "deepseek-r1-qwen" | "f2llmv2" => cut(&[words::QWEN2]).composed(),
        "kormo" | "megrez" | "stablelm2" | "hunyuan" | "solar-open" | "grok-2" => cut(&[words::QWEN2]),
        "qwen35" => cut(&[words::QWEN35]).composed(),
        "laguna" => cut(&[words::LINES, words::QWEN2]),
        "ufakzeka" => cut(&[words::UFAKZEKA]),
        "seed-coder" => cut(&[words::SEED_CODER]),
        "bailingmoe" | "bailingmoe2" | "llada-moe" => cut(&[words::BAILING]),
        "exaone-moe" => cut(&[words::EXAONE_MOE]),
        "deepseek-llm" => cut(&words::DEEPSEEK_LLM),
        "deepseek-coder" => cut(&words::DEEPSEEK_CODER),
        "deepseek-v3" | "hunyuan-dense" | "joyai-llm" | "hy_v4" => cut(&words::DEEPSEEK_V3),
        "spark2_5" => cut(&words::SPARK),
        "tekken" => cut(&[words::TEKKEN]).whole_words(),
        "gpt-4o" | "llama4" | "kanana2" | "talkie" | "minimax-m2" => cut(&[words::GPT4O]),
        "tiny_aya" | "cohere2moe" => cut(&[words::THREES_FROM_THE_RIGHT, words::GPT4O]),
        "youtu" => cut(&[words::YOUTU_ASIAN, words::YOUTU]).whole_words(),
        "superbpe" => cut(&[words::DIGITS, words::BEFORE_THREES]),
        "bloom" | "gpt3-finnish" | "poro-chat" => cut(&[words::BLOOM]),
        "viking" => cut(&[words::BLOOM, words::DIGIT]),
        _ => return None,
    })
}

/// Rules in the few words in which names differ.
#[derive(Clone, Copy)]
struct Named {
    /// Each cuts what the one before has left, into what it matches and what lies between.
    cuts: &'static [&'static str],
    composed: bool,
    ignore_merges: bool,
}

fn cut(cuts: &'static [&'static str]) -> Named {
    Named { cuts, composed: false, ignore_merges: false }
}

impl Named {
    /// Letters and their accents are joined first (Unicode's NFC).
    fn composed(self) -> Self {
        Self { composed: true, ..self }
    }

    fn whole_words(self) -> Self {
        Self { ignore_merges: true, ..self }
    }

    fn build(self) -> Result<WordRules, TextError> {
        let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
        for pattern in self.cuts {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
            steps.push(split.map_err(super::failed)?.into());
        }
        steps.push(ByteLevel::new(false, true, false).into());
        Ok(WordRules {
            normalizer: self.composed.then(|| NFC.into()),
            pre_tokenizer: Sequence::new(steps).into(),
            ignore_merges: self.ignore_merges,
        })
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::*;

    fn words(pre: &str, text: &str) -> Vec<String> {
        let mut pre_tokenized = PreTokenizedString::from(text);
        by_name(pre).unwrap().pre_tokenizer.pre_tokenize(&mut pre_tokenized).unwrap();
        let splits = pre_tokenized.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(word, _, _)| word.replace('Ġ', " ").replace('Ċ', "\n")).collect()
    }

    #[test]
    fn every_name_cuts_numbers_its_own_way() {
        let text = "It's 12345 x";
        assert_eq!(words("gpt-2", text), ["It", "'s", " 12345", " x"]);
        assert_eq!(words("smollm", text), ["It", "'s", " ", "1", "2", "3", "4", "5", " x"]);
        assert_eq!(words("llama-bpe", text), ["It", "'s", " ", "123", "45", " x"]);
        assert_eq!(words("qwen2", text), ["It", "'s", " ", "1", "2", "3", "4", "5", " x"]);
        assert_eq!(words("falcon", text), ["It", "'", "s", " ", "123", "45", " x"]);
        assert_eq!(words("deepseek-v3", text), ["It", "'s", " ", "123", "45", " x"]);
        assert_eq!(words("tiny_aya", text), ["It's", " ", "12", "345", " x"]);
        assert_eq!(words("superbpe", text), ["It's ", "12", "345", " x"]);
    }

    #[test]
    fn names_differ_in_case_punctuation_and_lines() {
        let text = "camelCase a/b?!\n\n  end";
        assert_eq!(words("tekken", text), ["camel", "Case", " a", "/b", "?!\n\n", " ", " end"]);
        assert_eq!(words("llama-bpe", text), ["camelCase", " a", "/b", "?!\n\n", " ", " end"]);
        assert_eq!(words("gpt-2", text), ["camelCase", " a", "/", "b", "?!", "\n\n ", " end"]);
        assert_eq!(words("bloom", text), ["camelCase", " a/b", "?!\n\n ", " end"]);
        assert_eq!(words("seed-coder", text), ["camelCase", " a", "/b", "?!", "\n\n", " ", " end"]);
    }

    #[test]
    fn an_unknown_name_is_refused_by_name() {
        let error = by_name("some-new-bpe").unwrap_err().to_string();
        assert!(error.contains("some-new-bpe"), "{error}");
        assert!(by_name("default").is_err(), "'default' means that the converter did not know it either");
    }
}
