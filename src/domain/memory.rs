//! How much memory a job needs on the processor, as far as that can be told without opening a model: from counts of parameters and
//! the settings. A dry run reads the shapes and knows better; this is for whoever must decide before a process is started.

use super::{Dtype, JobSpec, ModelInfo, WeightsFormat};

/// The program itself, the data and the logits that exist at once.
const BASE_BYTES: u64 = 128 << 20;
/// Activations are kept up to this many bytes; past them, blocks are computed a second time.
const MOST_ACTIVATION_BYTES: u64 = 2 << 30;
/// What is kept of one token, for the square root of the number of parameters: layers × width grows about so over the families read
/// here, from SmolLM2-135M (1.2 MB) to Mistral-7B (9.5 MB).
const BYTES_PER_TOKEN_AND_ROOT: f64 = 120.0;

/// The most that a job takes at once: its policy while it trains, or one of its references while it scores. `references` are those that
/// lie here, the base may be among them.
pub fn needed_bytes(spec: &JobSpec, base: &ModelInfo, references: &[ModelInfo]) -> u64 {
    let settings = &spec.hyperparameters;
    let training = match (&settings.lora, settings.dtype) {
        // Weights, gradients and two moments, all whole.
        (None, _) => base.n_parameters.saturating_mul(16),
        (Some(_), dtype) => base.n_parameters.saturating_mul(number_bytes(dtype)),
    };
    let kept = (base.n_parameters as f64).sqrt() * BYTES_PER_TOKEN_AND_ROOT * settings.micro_batch_tokens as f64;
    let training = training.saturating_add((kept as u64).min(MOST_ACTIVATION_BYTES));
    let scoring = references.iter().map(|model| frozen_bytes(model, settings.dtype)).max().unwrap_or(0);
    training.max(scoring).saturating_add(BASE_BYTES)
}

/// Quantised matrices may stay as their file has them.
fn frozen_bytes(model: &ModelInfo, dtype: Dtype) -> u64 {
    let dense = model.n_parameters.saturating_mul(number_bytes(dtype));
    if model.location.format == WeightsFormat::Gguf { dense.min(model.size_bytes) } else { dense }
}

fn number_bytes(dtype: Dtype) -> u64 {
    match dtype {
        Dtype::Float32 => 4,
        Dtype::Bfloat16 => 2,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_larger_of_training_and_scoring_counts() {
        let (lora, full) = (
            JobSpec::for_tests(json!({"dtype": "float32"})),
            JobSpec::for_tests(json!({"dtype": "float32", "lora": null})),
        );
        let base = ModelInfo::for_tests(100_000_000);
        let of_lora = needed_bytes(&lora, &base, &[]);
        assert!((1_100_000_000..1_200_000_000).contains(&of_lora), "{of_lora}");
        assert_eq!(needed_bytes(&full, &base, &[]) - of_lora, 12 * base.n_parameters);
        let large = ModelInfo::for_tests(7_000_000_000);
        assert_eq!(needed_bytes(&lora, &base, std::slice::from_ref(&large)), BASE_BYTES + 28_000_000_000);
        let mut quantised = ModelInfo { size_bytes: 4_000_000_000, ..large.clone() };
        quantised.location.format = WeightsFormat::Gguf;
        assert_eq!(needed_bytes(&lora, &base, &[quantised, large.clone()]), BASE_BYTES + 28_000_000_000);
        assert!(needed_bytes(&lora, &large, &[]) <= BASE_BYTES + 28_000_000_000 + MOST_ACTIVATION_BYTES);
    }
}
