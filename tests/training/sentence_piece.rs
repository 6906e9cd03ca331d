//! SentencePiece's BPE out of a GGUF file that the test writes itself: pieces with scores, and a token for every byte.
#![expect(clippy::unwrap_used, reason = "files that cannot be set up fail the test")]

use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use mrpo::{
    dataset::Prompt,
    domain::{ModelLocation, WeightsFormat},
    text::{Codec, TextError},
};
use tempfile::TempDir;

const BOS: u32 = 1;
const EOS: u32 = 2;
const FIRST_BYTE: u32 = 3;
/// Text, score, type (1: text, 4: added by hand); ids follow from 259 on.
const PIECES: [(&str, f32, i32); 21] = [
    ("▁", -20.0, 1),
    ("a", -21.0, 1),
    ("b", -22.0, 1),
    ("c", -23.0, 1),
    ("<", -24.0, 1),
    ("/", -25.0, 1),
    ("s", -26.0, 1),
    (">", -27.0, 1),
    ("bc", -1.0, 1),
    ("ab", -2.0, 1),
    ("▁a", -3.0, 1),
    ("abc", -4.0, 1),
    ("</", -5.0, 1),
    ("</s", -6.0, 1),
    ("▁▁", -1e9, 1),
    ("▁▁▁", -1e9, 1),
    ("▁▁▁▁", -1e9, 1),
    ("\n\n", 0.0, 4),
    ("<tag>", 0.0, 4),
    // Files that call the end of a turn text: a completion must not end its own turn all the same.
    ("<end_of_turn>", 0.0, 4),
    ("a b", 0.0, 4),
];

fn id(piece: &str) -> u32 {
    let at = PIECES.iter().position(|(text, _, _)| *text == piece).unwrap();
    FIRST_BYTE + 256 + at as u32
}

/// The tokenizer alone, without ids of special tokens: they have their usual places.
fn write(directory: &Path, changes: &[(&str, Value)]) -> ModelLocation {
    let special = [("<unk>", 2), ("<s>", 3), ("</s>", 3)].map(|(text, kind)| (text.to_owned(), 0.0, kind));
    let bytes = (0..=255).map(|byte: u8| (format!("<0x{byte:02X}>"), 0.0, 6));
    let pieces = PIECES.map(|(text, score, kind)| (text.to_owned(), score, kind));
    let tokens: Vec<(String, f32, i32)> = special.into_iter().chain(bytes).chain(pieces).collect();
    let list = |read: fn(&(String, f32, i32)) -> Value| Value::Array(tokens.iter().map(read).collect());
    let mut metadata = vec![
        ("tokenizer.ggml.model", Value::String("llama".into())),
        ("tokenizer.ggml.tokens", list(|t| Value::String(t.0.clone()))),
        ("tokenizer.ggml.scores", list(|t| Value::F32(t.1))),
        ("tokenizer.ggml.token_type", list(|t| Value::I32(t.2))),
    ];
    for (key, value) in changes {
        metadata.retain(|(k, _)| k != key);
        metadata.push((key, value.clone()));
    }
    let weights = directory.join("pieces.gguf");
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    gguf_file::write(&mut std::fs::File::create(&weights).unwrap(), &metadata, &[]).unwrap();
    ModelLocation { format: WeightsFormat::Gguf, weights, adapters: Vec::new() }
}

fn load(changes: &[(&str, Value)]) -> Result<Codec, TextError> {
    let directory = TempDir::new().unwrap();
    Codec::load(&write(directory.path(), changes))
}

fn without_space_prefix() -> Codec {
    load(&[("tokenizer.ggml.add_space_prefix", Value::Bool(false))]).unwrap()
}

/// A completion's ids without the one that ends it.
fn ids(codec: &Codec, text: &str) -> Vec<u32> {
    let mut ids = codec.encode_completion(text).unwrap();
    assert_eq!(ids.pop(), Some(EOS));
    ids
}

fn byte(byte: u8) -> u32 {
    FIRST_BYTE + u32::from(byte)
}

#[test]
fn the_piece_with_the_highest_score_is_joined_first() {
    let codec = load(&[]).unwrap();
    assert_eq!(ids(&codec, "abc"), [id("▁a"), id("bc")], "bc before ▁a before abc");
    assert_eq!(ids(&codec, "bab"), [id("▁"), id("b"), id("ab")]);
    assert_eq!(ids(&without_space_prefix(), "abc"), [id("abc")]);
}

#[test]
fn a_character_without_a_piece_is_its_bytes() {
    let codec = load(&[]).unwrap();
    assert_eq!(ids(&codec, "aé🙂"), [vec![id("▁a")], "é🙂".bytes().map(byte).collect()].concat());
    assert_eq!(ids(&codec, "a\nb"), [id("▁a"), byte(b'\n'), id("b")]);
    assert_eq!(ids(&codec, "a<0x41>").iter().filter(|id| **id == byte(0x41)).count(), 0, "the name of a byte is text");
}

#[test]
fn spaces_are_kept_and_grow_from_the_left() {
    let codec = load(&[]).unwrap();
    assert_eq!(ids(&codec, ""), [0_u32; 0]);
    assert_eq!(ids(&codec, " "), [id("▁▁")]);
    assert_eq!(ids(&codec, "a "), [id("▁a"), id("▁")]);
    assert_eq!(ids(&codec, "a      b"), [id("▁a"), id("▁▁▁▁"), id("▁▁"), id("b")]);
    assert_eq!(ids(&without_space_prefix(), " a  a"), [id("▁a"), id("▁"), id("▁a")]);
}

#[test]
fn added_tokens_are_found_first_and_the_text_behind_them_starts_anew() {
    let codec = load(&[]).unwrap();
    assert_eq!(ids(&codec, "a\n\nb<tag>"), [id("▁a"), id("\n\n"), id("▁"), id("b"), id("<tag>")]);
    assert_eq!(ids(&codec, "a bc"), [id("a b"), id("▁"), id("c")], "before the normaliser and the merges");
    let bare = without_space_prefix();
    assert_eq!(ids(&bare, "a\n\n\nb"), [id("a"), id("\n\n"), byte(b'\n'), id("b")]);
}

#[test]
fn text_that_spells_a_special_token_stays_text() {
    let bare = without_space_prefix();
    assert_eq!(ids(&bare, "</s>"), [id("</s"), id(">")], "though its parts are pieces");
    assert!(!ids(&bare, "a<end_of_turn>").contains(&id("<end_of_turn>")));
}

#[test]
fn a_plain_prompt_starts_with_bos_unless_the_file_says_no() {
    let prompt = Prompt::Text("a".into());
    assert_eq!(load(&[]).unwrap().encode_prompt(&prompt).unwrap(), [BOS, id("▁a")]);
    let silent = load(&[("tokenizer.ggml.add_bos_token", Value::Bool(false))]).unwrap();
    assert_eq!(silent.encode_prompt(&prompt).unwrap(), [id("▁a")]);
    let other = load(&[("tokenizer.ggml.bos_token_id", Value::U32(0))]).unwrap();
    assert_eq!(other.encode_prompt(&prompt).unwrap(), [0, id("▁a")], "the file's own id goes before the usual one");
}

#[test]
fn a_template_names_special_tokens() {
    let template = "{{ bos_token }}{% for m in messages %}{{ m.content }}</s>{% endfor %}";
    let codec = load(&[("tokenizer.chat_template", Value::String(template.into()))]).unwrap();
    assert_eq!(codec.encode_prompt(&Prompt::Text("a".into())).unwrap(), [BOS, id("▁a"), EOS]);
}

#[test]
fn saved_files_give_the_same_tokens_and_the_text_comes_back() {
    let directory = TempDir::new().unwrap();
    let text = "a  abc\n\n é<tag> b";
    for has_prefix in [true, false] {
        let codec = load(&[("tokenizer.ggml.add_space_prefix", Value::Bool(has_prefix))]).unwrap();
        let weights = directory.path().join(has_prefix.to_string());
        std::fs::create_dir(&weights).unwrap();
        codec.save(&weights).unwrap();
        let saved = ModelLocation { format: WeightsFormat::Huggingface, weights, adapters: Vec::new() };
        let saved = Codec::load(&saved).unwrap();
        assert_eq!(ids(&saved, text), ids(&codec, text));
        let prompt = Prompt::Text(text.into());
        assert_eq!(saved.encode_prompt(&prompt).unwrap(), codec.encode_prompt(&prompt).unwrap());
        let bare = "a  abc é b";
        assert_eq!(codec.decode(&ids(&codec, bare)).unwrap(), bare);
    }
}

#[test]
fn files_that_leave_text_without_tokens_are_refused() {
    let n = 3 + 256 + PIECES.len();
    let error = load(&[("tokenizer.ggml.scores", Value::Array(vec![Value::F32(-1000.0); n]))]).unwrap_err();
    assert!(error.to_string().contains("same score"), "{error}");
    let error = load(&[("tokenizer.ggml.scores", Value::Array(vec![Value::F32(0.0); 3]))]).unwrap_err();
    assert!(error.to_string().contains("3 scores"), "{error}");
    let error = load(&[("tokenizer.ggml.token_type", Value::Array(vec![Value::I32(1); n]))]).unwrap_err();
    assert!(error.to_string().contains("0 tokens for bytes"), "{error}");
}
