//! Log-probabilities of real models against those of `transformers` in float32.
//!
//! Needs files that are not part of this package: `$MRPO_SHARED` (else `../shared`) with the stored log-probabilities, and
//! `$MRPO_SMOLLM2_GGUF` (else `../models/SmolLM2-135M-Instruct.Q4_1.gguf`). Without them a test says that it was skipped.

use std::path::{Path, PathBuf};

use mrpo::{
    dataset::read_pairs,
    domain::{Dtype, ModelLocation, WeightsFormat},
    model::{Decoder, Tuning, Weights},
    score::{ScoringCompletion, ScoringRow, score},
    text::{Codec, EncodedPair},
};
use serde::Deserialize;

/// Nats that sums over a completion may differ by: the sum's own rounding grows with its size.
fn tolerance(logp: f64) -> f64 {
    0.02 + 1e-4 * logp.abs()
}

#[derive(Deserialize)]
struct Row {
    /// Line of the data file, from 0.
    #[serde(rename = "row")]
    index: usize,
    chosen: Side,
    rejected: Side,
}

#[derive(Deserialize)]
struct Side {
    prompt_tokens: usize,
    completion_tokens: usize,
    logp: f64,
}

#[test]
fn plain_text_has_the_log_probabilities_of_transformers() {
    let weights = from_env("MRPO_SHARED", "shared").join("models/stories260k");
    compare(weights, WeightsFormat::Huggingface, "stories260k_plain", "llms_from_scratch_polite", 24);
}

#[test]
fn single_questions_have_the_log_probabilities_of_transformers() {
    compare(smollm2(), WeightsFormat::Gguf, "smollm2_chat", "llms_from_scratch_polite", 4);
}

#[test]
fn conversations_have_the_log_probabilities_of_transformers() {
    compare(smollm2(), WeightsFormat::Gguf, "smollm2_chat", "hh_rlhf_harmless_base_test", 2);
}

fn from_env(variable: &str, otherwise: &str) -> PathBuf {
    std::env::var_os(variable)
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(otherwise), PathBuf::from)
}

fn smollm2() -> PathBuf {
    from_env("MRPO_SMOLLM2_GGUF", "models/SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// Scores the first `n_rows` stored rows and holds every completion to the tolerance.
fn compare(weights: PathBuf, format: WeightsFormat, model: &str, dataset: &str, n_rows: usize) {
    let shared = from_env("MRPO_SHARED", "shared");
    let golden = shared.join(format!("golden/logps_{model}_{dataset}.jsonl"));
    if !weights.exists() || !golden.is_file() {
        eprintln!("skipped: {} or {} is not here", weights.display(), golden.display());
        return;
    }
    let text = std::fs::read_to_string(golden).expect("readable log-probabilities");
    let rows: Vec<Row> = text.lines().take(n_rows).map(|l| serde_json::from_str(l).expect("a row")).collect();
    assert_eq!(rows.len(), n_rows, "stored rows");
    let data = read_pairs(&shared.join(format!("data/preference/{dataset}.jsonl")), None).expect("readable pairs");

    let location = ModelLocation { format, weights, adapters: Vec::new() };
    let codec = Codec::load(&location).expect("a tokenizer");
    let (decoder, parameters) =
        Decoder::new(Weights::load(&location, Dtype::Float32).expect("weights"), &Tuning::Frozen, Dtype::Float32)
            .expect("a model");
    let mut largest: f64 = 0.0;
    for row in &rows {
        let encoded = codec.encode_pair(&data[row.index]).expect("a pair in tokens");
        let EncodedPair { prompt, chosen, rejected, .. } = encoded;
        let n_prompt_tokens = prompt.len();
        let completions = [chosen, rejected].map(|tokens| ScoringCompletion { tokens, weights: None }).into();
        let asked = ScoringRow { prompt, completions };
        let logps = score(&decoder, &parameters, std::slice::from_ref(&asked)).expect("scores").remove(0);
        for ((completion, ours), theirs) in asked.completions.iter().zip(logps).zip([&row.chosen, &row.rejected]) {
            let n_tokens = (n_prompt_tokens, completion.tokens.len());
            assert_eq!(n_tokens, (theirs.prompt_tokens, theirs.completion_tokens), "tokens of row {}", row.index);
            let difference = (ours - theirs.logp).abs();
            // Written so that a NaN fails too.
            let is_close = difference <= tolerance(theirs.logp);
            assert!(is_close, "row {}: {ours}, not {}", row.index, theirs.logp);
            largest = largest.max(difference);
        }
    }
    eprintln!("{model}, {dataset}: {n_rows} pairs, largest difference {largest:.1e} nats");
}
