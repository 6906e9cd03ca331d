//! Ids against those of `transformers`, on a real model; needs files that are not part of this package.

use std::path::PathBuf;

use serde_json::Value;

use super::Codec;
use crate::{
    dataset::{ExtraFields, Message, PreferencePair, Prompt},
    domain::{ModelLocation, WeightsFormat},
};

fn from_env(variable: &str, otherwise: &str) -> PathBuf {
    std::env::var_os(variable)
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(otherwise), PathBuf::from)
}

fn rows(path: &std::path::Path) -> Vec<Value> {
    let text = fs_err::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap().to_owned()
}

fn prompt(row: &Value) -> Prompt {
    match row["prompt"].as_array() {
        None => Prompt::Text(text(row, "prompt")),
        Some(messages) => Prompt::Messages(
            messages.iter().map(|m| Message { role: text(m, "role"), content: text(m, "content") }).collect(),
        ),
    }
}

#[test]
fn single_questions_have_the_ids_of_transformers() {
    compare(smollm2(), WeightsFormat::Gguf, "smollm2_chat", "llms_from_scratch_polite");
}

#[test]
fn conversations_have_the_ids_of_transformers() {
    compare(smollm2(), WeightsFormat::Gguf, "smollm2_chat", "hh_rlhf_harmless_base_test");
}

#[test]
fn plain_text_has_the_ids_of_transformers() {
    let weights = from_env("MRPO_SHARED", "shared").join("models/stories260k");
    compare(weights, WeightsFormat::Huggingface, "stories260k_plain", "llms_from_scratch_polite");
}

#[test]
fn plain_text_has_the_ids_of_transformers_from_scores_alone() {
    let weights = from_env("MRPO_GEMMA3_GGUF", "models/gemma-3-270m.Q4_K_M.gguf");
    compare(weights, WeightsFormat::Gguf, "gemma3-270m_plain", "llms_from_scratch_polite");
}

fn smollm2() -> PathBuf {
    from_env("MRPO_SMOLLM2_GGUF", "models/SmolLM2-135M-Instruct.Q4_1.gguf")
}

fn compare(weights: PathBuf, format: WeightsFormat, model: &str, dataset: &str) {
    let shared = from_env("MRPO_SHARED", "shared");
    let golden = shared.join(format!("golden/logps_{model}_{dataset}.jsonl"));
    if !weights.exists() || !golden.is_file() {
        eprintln!("skipped: {} or {} is not here", weights.display(), golden.display());
        return;
    }
    let codec = Codec::load(&ModelLocation { format, weights, adapters: Vec::new() }).unwrap();
    let data = rows(&shared.join(format!("data/preference/{dataset}.jsonl")));
    let golden = rows(&golden);
    assert!(!golden.is_empty());
    for expected in &golden {
        let row = expected["row"].as_u64().unwrap();
        let pair = &data[row as usize];
        let pair = PreferencePair {
            line: row + 1,
            prompt: prompt(pair),
            chosen: text(pair, "chosen"),
            rejected: text(pair, "rejected"),
            extra: ExtraFields::default(),
        };
        let encoded = codec.encode_pair(&pair).unwrap();
        for (side, ids) in [("chosen", &encoded.chosen), ("rejected", &encoded.rejected)] {
            let expected = &expected[side];
            let n_tokens = (encoded.prompt.len() as u64, ids.len() as u64);
            let n_expected =
                (expected["prompt_tokens"].as_u64().unwrap(), expected["completion_tokens"].as_u64().unwrap());
            assert_eq!(n_tokens, n_expected, "row {row}, {side}: prompt and completion tokens");
            let head: Vec<u32> = serde_json::from_value(expected["completion_ids_head"].clone()).unwrap();
            assert_eq!(ids[..head.len()], head[..], "row {row}, {side}");
        }
    }
    eprintln!("{} rows equal", golden.len());
}
