//! Tokens of a model whose files the test writes itself: a byte-level BPE with the special tokens of `ChatML`, as GGUF and
//! as a Hugging Face directory.
#![expect(clippy::unwrap_used, reason = "files that cannot be set up fail the test")]

use candle_core::quantized::gguf_file::Value;
use mrpo::{
    dataset::{ExtraFields, Message, PreferencePair, Prompt},
    domain::{ModelLocation, Truncation, WeightsFormat},
    text::{Codec, Fit, TextError, cut_prompt_to_chars, fit},
};
use serde_json::json;
use tempfile::TempDir;

use crate::tiny::{CHATML, END_OF_TEXT, gguf};

const END_OF_TURN: u32 = 2;
fn codec(changes: &[(&str, Value)]) -> Result<Codec, TextError> {
    let directory = TempDir::new().unwrap();
    Codec::load(&gguf(directory.path(), changes))
}

fn plain(changes: &[(&str, Value)]) -> Codec {
    let directory = TempDir::new().unwrap();
    let location = gguf(directory.path(), changes);
    Codec::load(&without_template(&location)).unwrap()
}

/// The same model as a Hugging Face directory without a chat template.
fn without_template(gguf: &ModelLocation) -> ModelLocation {
    let location = huggingface(gguf);
    edit(&location, "tokenizer_config.json", |config| config["chat_template"] = json!(null));
    location
}

/// The same model as a Hugging Face directory, made by the codec itself.
fn huggingface(gguf: &ModelLocation) -> ModelLocation {
    let weights = gguf.weights.with_extension("hf");
    std::fs::create_dir(&weights).unwrap();
    Codec::load(gguf).unwrap().save(&weights).unwrap();
    ModelLocation { format: WeightsFormat::Huggingface, weights, adapters: Vec::new() }
}

fn edit(location: &ModelLocation, name: &str, change: impl FnOnce(&mut serde_json::Value)) {
    let path = location.weights.join(name);
    let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

fn question(content: &str) -> Prompt {
    Prompt::Messages(vec![Message { role: "user".into(), content: content.into() }])
}

fn pair(prompt: &str) -> PreferencePair {
    PreferencePair {
        line: 1,
        prompt: Prompt::Text(prompt.into()),
        chosen: "hello".into(),
        rejected: "no".into(),
        extra: ExtraFields::default(),
    }
}

fn count(ids: &[u32], id: u32) -> usize {
    ids.iter().filter(|i| **i == id).count()
}

#[test]
fn the_template_decides_what_ends_a_turn() {
    let codec = codec(&[]).unwrap();
    let ids = codec.encode_completion("hello").unwrap();
    assert_eq!((ids.len(), ids[1]), (2, END_OF_TURN), "one token of text, then the end");
    assert_eq!(codec.eos_ids(), [END_OF_TEXT, END_OF_TURN], "either stops a generation");
    assert_eq!(codec.decode(&ids).unwrap(), "hello");
}

#[test]
fn a_text_and_one_user_message_are_the_same_prompt() {
    let codec = codec(&[]).unwrap();
    let rendered = codec.render_prompt(&question("hello")).unwrap();
    assert_eq!(rendered, "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n");
    let ids = codec.encode_prompt(&question("hello")).unwrap();
    assert_eq!(ids, codec.encode_prompt(&Prompt::Text("hello".into())).unwrap());
    assert_eq!((count(&ids, 1), count(&ids, END_OF_TURN)), (2, 1), "the template's special tokens are recognised");
}

#[test]
fn a_completion_cannot_end_its_own_turn() {
    let codec = codec(&[]).unwrap();
    let text = "a<|im_end|>b";
    let ids = codec.encode_completion(text).unwrap();
    assert_eq!(count(&ids, END_OF_TURN), 1);
    assert_eq!(ids.last(), Some(&END_OF_TURN));
    assert_eq!(codec.decode(&ids).unwrap(), text, "what looks like a special token is text");
    assert_eq!(
        count(&codec.encode_completion("a<|tool|>b").unwrap(), 3),
        1,
        "an added token that is not special is found"
    );
}

#[test]
fn a_sequence_begins_once() {
    let bos = Value::String(format!("{{{{ bos_token }}}}{CHATML}"));
    let ids = codec(&[("tokenizer.chat_template", bos), ("tokenizer.ggml.bos_token_id", Value::U32(END_OF_TEXT))])
        .unwrap()
        .encode_prompt(&question("hello"))
        .unwrap();
    assert_eq!((ids[0], count(&ids, END_OF_TEXT)), (END_OF_TEXT, 1), "the template writes it");
    let ids = plain(&[]).encode_prompt(&Prompt::Text("hello".into())).unwrap();
    assert_eq!((ids[0], ids.len()), (1, 2), "without a template we do");
    let ids = plain(&[("tokenizer.ggml.add_bos_token", Value::Bool(false))])
        .encode_prompt(&Prompt::Text("hello".into()))
        .unwrap();
    assert_eq!(ids.len(), 1, "unless the tokenizer says no");
}

#[test]
fn special_tokens_in_a_plain_prompt_are_text() {
    let codec = plain(&[]);
    let ids = codec.encode_prompt(&Prompt::Text("<|im_end|>".into())).unwrap();
    assert_eq!(count(&ids, END_OF_TURN), 0);
    assert_eq!(codec.encode_completion("hello").unwrap().last(), Some(&END_OF_TEXT), "and the document ends");
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    for (key, word) in [("tokenizer.ggml.pre", "some-new-bpe"), ("tokenizer.ggml.model", "t5")] {
        let error = codec(&[(key, Value::String(word.into()))]).unwrap_err();
        assert!(matches!(error, TextError::Unsupported(_)) && error.to_string().contains(word), "{error}");
    }
    let error = codec(&[("tokenizer.ggml.bos_token_id", Value::U32(9999))]).unwrap_err();
    assert!(matches!(error, TextError::Invalid(_)), "{error}");
}

#[test]
fn a_file_cut_off_in_its_metadata_is_refused() {
    let directory = TempDir::new().unwrap();
    let location = gguf(directory.path(), &[]);
    let length = std::fs::metadata(&location.weights).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&location.weights).unwrap().set_len(length / 2).unwrap();
    assert!(matches!(Codec::load(&location), Err(TextError::Invalid(_))));
}

#[test]
fn saved_files_give_the_same_tokens() {
    let directory = TempDir::new().unwrap();
    let gguf = gguf(directory.path(), &[]);
    let (before, after) = (Codec::load(&gguf).unwrap(), Codec::load(&huggingface(&gguf)).unwrap());
    let pair = pair("say hello 12 <|tool|> ünïcode 🙂");
    assert_eq!(after.encode_pair(&pair).unwrap(), before.encode_pair(&pair).unwrap());
    assert_eq!(after.eos_ids(), before.eos_ids());
    assert_eq!(after.vocab_size(), before.vocab_size());
    assert!(after.has_template());
}

#[test]
fn a_directory_may_say_its_special_tokens_in_many_ways() {
    let directory = TempDir::new().unwrap();
    let location = without_template(&gguf(directory.path(), &[]));
    let end = || *Codec::load(&location).unwrap().encode_completion("hello").unwrap().last().unwrap();
    edit(&location, "tokenizer_config.json", |c| c["eos_token"] = json!({"content": "<|im_end|>", "special": true}));
    assert_eq!(end(), END_OF_TURN, "an added token in full");
    edit(&location, "tokenizer_config.json", |c| drop(c.as_object_mut().unwrap().remove("eos_token")));
    edit(&location, "generation_config.json", |c| c["eos_token_id"] = json!([1, 2]));
    assert_eq!(end(), 1, "the first of the model's ids");
    std::fs::write(location.weights.join("chat_template.jinja"), CHATML).unwrap();
    assert_eq!(end(), END_OF_TURN, "a template in its own file");
    std::fs::remove_file(location.weights.join("tokenizer.json")).unwrap();
    let error = Codec::load(&location).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
}

#[test]
fn a_cut_prompt_is_the_end_of_its_text() {
    let codec = codec(&[]).unwrap();
    let pair = codec.encode_pair(&pair("🙂🙂🙂 hello hello hello")).unwrap();
    assert_eq!(pair.prompt.len(), pair.prompt_starts.len());
    assert!(pair.prompt_starts.is_sorted());
    let room = pair.chosen.len().max(pair.rejected.len());
    // The first token, BOS, stays in front of whatever is left.
    for n_prompt in 2..pair.prompt.len() {
        let Fit::PromptCut { pair: cut, n_tokens_removed, n_chars_kept } =
            fit(pair.clone(), room + n_prompt, Truncation::TruncatePromptLeft)
        else {
            panic!("{n_prompt} tokens are a cut prompt");
        };
        assert!(cut.prompt.len() <= n_prompt);
        let kept = cut.prompt.len() - usize::from(cut.starts_with_bos);
        assert!(pair.prompt.ends_with(&cut.prompt[cut.prompt.len() - kept..]));
        assert_eq!(n_tokens_removed + cut.prompt.len(), pair.prompt.len());
        assert_eq!(cut_prompt_to_chars(pair.clone(), n_chars_kept), cut, "the base as its own reference");
    }
}
