//! Which tokens spans of characters fall on, under every kind of tokenizer that is read.
#![expect(clippy::unwrap_used, reason = "files that cannot be set up fail the test")]

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use candle_core::quantized::gguf_file::Value;
use mrpo::{
    dataset::{ExtraFields, PreferencePair, Prompt, spans_of_edit},
    domain::{ModelLocation, Sides, WeightsFormat},
    text::{Codec, EncodedPair},
};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokenizers::Tokenizer;

use crate::tiny::gguf;

const TEXTS: [&str; 7] = ["hello", " hello 12!", "a🙂bé語 c", "🙂", "héllo\n\tx", "c <|tool|> a", "aa  hello hello"];

/// A codec, its name, and the tokenizer alone, which knows what its tokens are called.
struct Case {
    name: &'static str,
    codec: Codec,
    tokenizer: Tokenizer,
}

impl Case {
    fn new(name: &'static str, location: &ModelLocation) -> Self {
        let directory = TempDir::new().unwrap();
        let codec = Codec::load(location).unwrap();
        codec.save(directory.path()).unwrap();
        let tokenizer = Tokenizer::from_file(directory.path().join("tokenizer.json")).unwrap();
        Self { name, codec, tokenizer }
    }
}

fn cases() -> Vec<Case> {
    let directory = TempDir::new().unwrap();
    let byte_level = ["gpt-2", "smollm", "llama-bpe", "qwen2"].map(|pre| {
        let change = ("tokenizer.ggml.pre", Value::String(pre.into()));
        Case::new(pre, &gguf(directory.path(), &[change]))
    });
    let sentence_piece = sentence_piece().map(|(name, normalizer, pre_tokenizer)| {
        Case::new(name, &sentence_piece_model(directory.path(), &normalizer, &pre_tokenizer))
    });
    byte_level.into_iter().chain(sentence_piece).collect()
}

/// How tokenizers made from SentencePiece models write the space in front, and how Gemma's leaves it out.
fn sentence_piece() -> [(&'static str, Json, Json); 4] {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let prepend = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]});
    let metaspace =
        |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
    [
        ("prepend", prepend, Json::Null),
        ("metaspace first", Json::Null, metaspace("first")),
        ("metaspace always", Json::Null, metaspace("always")),
        ("no space in front", replace, Json::Null),
    ]
}

/// A BPE of characters that falls back to bytes, as a Hugging Face directory.
fn sentence_piece_model(directory: &Path, normalizer: &Json, pre_tokenizer: &Json) -> ModelLocation {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(["▁", "h", "e", "l", "o", "a", "c", "x", "he", "ll", "hell", "hello", "▁hello"].map(str::to_owned));
    let vocab: serde_json::Map<String, Json> = tokens.into_iter().zip((0..).map(|id: u32| json!(id))).collect();
    let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if normalizer["type"] != "Replace" {
        decoders.push(strip);
    }
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "post_processor": null,
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": [["h", "e"], ["l", "l"], ["he", "ll"], ["hell", "o"], ["▁", "hello"]],
        },
    });
    std::fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(directory.join("tokenizer_config.json"), json!({"eos_token": "</s>"}).to_string()).unwrap();
    ModelLocation { format: WeightsFormat::Huggingface, weights: directory.to_owned(), adapters: Vec::new() }
}

fn pair(chosen: &str, rejected: &str, spans: Sides<Vec<Range<usize>>>) -> PreferencePair {
    PreferencePair {
        line: 1,
        prompt: Prompt::Text("p".into()),
        chosen: chosen.into(),
        rejected: rejected.into(),
        extra: ExtraFields { spans: Some(spans), ..ExtraFields::default() },
    }
}

/// Which tokens of a completion one span touches, and the tokens.
fn touched(codec: &Codec, text: &str, span: Range<usize>) -> (Vec<bool>, Vec<u32>) {
    let spans = Sides { chosen: vec![span], rejected: vec![] };
    let EncodedPair { chosen, in_spans, .. } = codec.encode_pair(&pair(text, "no", spans)).unwrap();
    (in_spans.unwrap().chosen, chosen)
}

/// Bytes of text that a token of this name stands for: byte-level names have one character for each, bytes that
/// SentencePiece falls back to are `<0x..>`, and its space is `▁`.
fn n_bytes(name: &str, byte_level: bool) -> usize {
    if byte_level {
        name.chars().count()
    } else if name.starts_with("<0x") {
        1
    } else {
        name.replace('▁', " ").len()
    }
}

/// The same from the tokens' names alone: a token is touched where its bytes and those of the span overlap. A space put in
/// front has no bytes in the text; alone, it goes with the first of them.
fn expected(names: &[String], byte_level: bool, text: &str, span: &Range<usize>) -> Vec<bool> {
    let byte = |char: usize| text.char_indices().nth(char).map_or(text.len(), |(byte, _)| byte);
    let span = byte(span.start)..byte(span.end);
    let lengths: Vec<usize> = names.iter().map(|name| n_bytes(name, byte_level)).collect();
    let n_added = lengths.iter().sum::<usize>() - text.len();
    assert!(n_added <= 1, "{names:?} for {text:?}");
    let mut end = 0;
    let mut touched: Vec<bool> = Vec::new();
    for length in lengths {
        let start = end;
        end += length;
        let (start, end) = (start.saturating_sub(n_added), (end - n_added).max(1));
        touched.push(start < span.end && span.start < end);
    }
    touched.push(span.end == text.len());
    touched
}

#[test]
fn a_span_touches_the_tokens_whose_bytes_it_shares() {
    cases().iter().for_each(compare);
}

/// The same with the tokenizers of real models, which are not part of this package.
#[test]
fn spans_touch_the_right_tokens_of_real_models() {
    let from_env = |variable: &str, otherwise: &str| {
        std::env::var_os(variable)
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(otherwise), PathBuf::from)
    };
    let stories = from_env("MRPO_SHARED", "shared").join("models/stories260k");
    let smollm2 = from_env("MRPO_SMOLLM2_GGUF", "models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let models = [("stories260k", stories, WeightsFormat::Huggingface), ("SmolLM2", smollm2, WeightsFormat::Gguf)];
    for (name, weights, format) in models {
        if weights.exists() {
            compare(&Case::new(name, &ModelLocation { format, weights, adapters: Vec::new() }));
        } else {
            eprintln!("skipped: {} is not here", weights.display());
        }
    }
}

fn compare(Case { name, codec, tokenizer }: &Case) {
    let byte_level = tokenizer.token_to_id("▁").is_none();
    for text in TEXTS {
        let n = text.chars().count();
        for span in (0..n).flat_map(|start| (start + 1..=n).map(move |end| start..end)) {
            let (found, ids) = touched(codec, text, span.clone());
            let of_text = &ids[..ids.len() - 1];
            let names: Vec<String> = of_text.iter().map(|id| tokenizer.id_to_token(*id).unwrap()).collect();
            let expected = expected(&names, byte_level, text, &span);
            assert_eq!(found, expected, "{name}: {span:?} of {text:?} in {names:?}");
        }
    }
}

#[test]
fn a_space_that_is_put_in_front_goes_with_the_first_character() {
    for Case { name, codec, .. } in cases() {
        let n_in_front = usize::from(["prepend", "metaspace first", "metaspace always"].contains(&name));
        let (found, _) = touched(&codec, "🙂a", 0..1);
        let expected = [vec![true; n_in_front + 4], vec![false, false]].concat();
        assert_eq!(found, expected, "{name}: the four bytes of one character, then a and the end");
        assert_eq!(touched(&codec, "hello", 4..5).0, [true, true], "{name}: one token, then the end");
    }
}

#[test]
fn what_a_normaliser_joins_is_still_touched() {
    let directory = TempDir::new().unwrap();
    let codec = Codec::load(&gguf(directory.path(), &[("tokenizer.ggml.pre", Value::String("qwen2".into()))])).unwrap();
    // e and a combining accent, which NFC makes one character of two bytes.
    let text = "ae\u{301}b";
    for span in [1..2, 2..3, 1..3] {
        let (found, _) = touched(&codec, text, span.clone());
        assert_eq!(found, [false, true, true, false, false], "{span:?}");
    }
}

#[test]
fn weights_are_one_on_the_words_of_an_edit() {
    let directory = TempDir::new().unwrap();
    let codec = Codec::load(&gguf(directory.path(), &[])).unwrap();
    let (rejected, edited) = ("a hello", "a c hello");
    let encoded = codec.encode_pair(&pair(edited, rejected, spans_of_edit(rejected, edited))).unwrap();
    let weights = encoded.token_weights(0.25).unwrap();
    assert_eq!(encoded.chosen.len(), 5, "a, a space, c, hello with its space, the end");
    assert_eq!(weights.rejected, [0.25; 3]);
    let n_in_full = weights.chosen.iter().filter(|w| **w == 1.0).count();
    assert_eq!(n_in_full, 2, "{weights:?}");
    let plain = PreferencePair { extra: ExtraFields::default(), ..pair("a", "c", Sides::default()) };
    assert_eq!(codec.encode_pair(&plain).unwrap().token_weights(0.25), None);
}

#[test]
fn a_reference_response_is_encoded_as_a_completion() {
    let directory = TempDir::new().unwrap();
    let codec = Codec::load(&gguf(directory.path(), &[])).unwrap();
    let mut pair = pair("a", "c", Sides::default());
    pair.extra.reference_response = Some("hello <|im_end|>".into());
    let encoded = codec.encode_pair(&pair).unwrap();
    assert_eq!(encoded.reference_response, Some(codec.encode_completion("hello <|im_end|>").unwrap()));
}
