//! Ids of real tokenizers against those that llama.cpp publishes with them.
//!
//! Needs the folder of `ggml-vocab-*.gguf` files with their `.inp` and `.out` (the source package of PyPI's `llama_cpp_python`
//! has it under `vendor/llama.cpp/models`), named by `$MRPO_GGML_VOCABS`. Without it the test says that it was skipped.

use std::path::Path;

use mrpo::{
    domain::{ModelLocation, WeightsFormat},
    text::{Codec, TextError},
};

/// What is refused, and the word the refusal must have.
const REFUSED: [(&str, &str); 4] = [
    ("aquila", "pre-tokenizer ''"),
    ("bert-bge", "'bert'"),
    ("gpt-neox", "pre-tokenizer ''"),
    ("nomic-bert-moe", "'t5'"),
];

/// How many texts of a tokenizer get other ids, for a reason: these are written with accents apart from their letters, which
/// Qwen's own tokenizer joins first and llama.cpp, where the ids come from, does not.
const EXPLAINED: [(&str, usize); 1] = [("qwen35", 3)];

/// Stands between two texts.
const BETWEEN: &str = "\n__ggml_vocab_test__\n";

#[test]
fn published_tokenizers_give_the_published_ids() {
    let Some(folder) = std::env::var_os("MRPO_GGML_VOCABS") else {
        eprintln!("skipped: MRPO_GGML_VOCABS names no folder");
        return;
    };
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("a readable folder")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "gguf"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "tokenizers");
    let n_wrong: usize = files.iter().map(|file| n_wrong(file)).sum();
    assert_eq!(n_wrong, 0, "texts with other ids, beyond those that are explained");
}

/// How many texts of the file's list get other ids than the list has.
fn n_wrong(file: &Path) -> usize {
    let name = file.file_stem().expect("a name").to_string_lossy().replace("ggml-vocab-", "");
    let start = std::time::Instant::now();
    let location = ModelLocation { format: WeightsFormat::Gguf, weights: file.to_owned(), adapters: Vec::new() };
    let codec = match Codec::load(&location) {
        Ok(codec) => codec,
        Err(TextError::Unsupported(reason)) => {
            eprintln!("{name}: refused: {reason}");
            let word = REFUSED.iter().find(|(refused, _)| *refused == name).expect("a tokenizer that may be refused").1;
            assert!(reason.contains(word), "{reason}");
            return 0;
        }
        Err(error) => panic!("{name}: {error}"),
    };
    let load_ms = start.elapsed().as_millis();
    let beside = |end: &str| std::fs::read_to_string(format!("{}.{end}", file.display()));
    let (Ok(inputs), Ok(outputs)) = (beside("inp"), beside("out")) else {
        eprintln!("{name}: loaded in {load_ms} ms; no ids are published");
        return 0;
    };
    let inputs = inputs.strip_suffix(BETWEEN).unwrap_or(&inputs);
    let inputs: Vec<&str> = inputs.split(BETWEEN).collect();
    let outputs: Vec<&str> = outputs.lines().collect();
    assert_eq!(inputs.len(), outputs.len(), "texts and lines of ids of {name}");
    let mut n_wrong = 0;
    for (text, expected) in inputs.iter().zip(&outputs) {
        let expected: Vec<u32> = expected.split_whitespace().map(|id| id.parse().expect("an id")).collect();
        let mut ids = codec.encode_completion(text).expect("ids");
        ids.pop();
        if ids != expected {
            n_wrong += 1;
            eprintln!("{name}: {text:?}\n  ours     {ids:?}\n  expected {expected:?}");
        }
    }
    eprintln!("{name}: {} of {} agree, loaded in {load_ms} ms", inputs.len() - n_wrong, inputs.len());
    let explained = EXPLAINED.iter().find(|(explained, _)| *explained == name).map_or(0, |(_, n)| *n);
    n_wrong.abs_diff(explained)
}
