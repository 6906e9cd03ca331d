//! What a model takes in memory, told from its shape: no weight is loaded.

use candle_core::Device;

use super::{
    Matrices, ModelConfig, ModelError, Tuning,
    families::Part,
    weights::{read_config, stored},
};
use crate::domain::{Dtype, ModelLocation};

/// Logits that exist at once, in bytes: what the heads allocate.
const LOGITS_BYTES: u64 = 32 << 20;
/// What a block allocates beside its tape, in tapes of one block: projections and gradients on their way.
const PASSING_TAPES: u64 = 3;

/// The shape of a model and what is trained of it.
#[derive(Debug)]
pub struct Footprint {
    config: ModelConfig,
    tuning: Tuning,
    /// Of a number among the activations.
    activation_bytes: u64,
    weights_bytes: u64,
}

impl Footprint {
    /// Of a model that products are computed with in `dtype`, on the processor or on a GPU.
    pub fn of(location: &ModelLocation, tuning: Tuning, dtype: Dtype, is_on_cpu: bool) -> Result<Self, ModelError> {
        let config = read_config(location)?;
        let bytes_of = |shape: &[usize]| {
            let n: u64 = shape.iter().map(|n| *n as u64).product();
            n * stored(tuning.stored(dtype), shape.len() > 1).size_in_bytes() as u64
        };
        let stays = tuning == Tuning::Frozen
            && is_on_cpu
            && Matrices::for_frozen(location, dtype, &Device::Cpu)? == Matrices::AsStored;
        let weights_bytes = if stays {
            fs_err::metadata(&location.weights)?.len()
        } else {
            config.tensors().iter().map(|(_, shape)| bytes_of(shape)).sum()
        };
        // On the processor only the factors of products are rounded.
        let activation_bytes = if dtype == Dtype::Bfloat16 && !is_on_cpu { 2 } else { 4 };
        Ok(Self { config, tuning, activation_bytes, weights_bytes })
    }

    /// The shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Its weights, in bytes.
    pub fn weights_bytes(&self) -> u64 {
        self.weights_bytes
    }

    /// How many tensors are trained, and how many numbers they hold.
    pub fn n_trained(&self) -> (u64, u64) {
        match &self.tuning {
            Tuning::Frozen => (0, 0),
            Tuning::Full => (self.config.tensors().len() as u64, self.config.n_parameters()),
            Tuning::Lora { shape, targets, .. } => {
                let parts = self.config.family.names.iter().map(|name| name.part);
                let is_target =
                    |part: &Part| self.config.family.target_of(*part).is_some_and(|target| targets.contains(&target));
                let per_layer: usize =
                    parts.clone().filter(is_target).map(|part| self.config.shape_of(part).iter().sum::<usize>()).sum();
                let n_layers = self.config.layers.len();
                let n_tensors = 2 * parts.filter(is_target).count() * n_layers;
                (n_tensors as u64, (per_layer * shape.rank * n_layers) as u64)
            }
        }
    }

    /// Activations of a forward pass that nothing is kept of, in bytes.
    pub fn scoring_bytes(&self, n_tokens: u64) -> u64 {
        n_tokens * self.per_token_of_block() * PASSING_TAPES + self.logits_bytes()
    }

    /// Activations of a forward pass and its backward, in bytes, and whether blocks are computed a second time because more than
    /// `budget_bytes` would be kept.
    pub fn training_bytes(&self, n_tokens: u64, budget_bytes: Option<u64>) -> (u64, bool) {
        let n_layers = self.config.layers.len() as u64;
        let tapes = n_tokens * self.activation_bytes * self.config.tape_numbers() as u64;
        let is_computed_again = budget_bytes.is_some_and(|budget| tapes > budget);
        let inputs = n_tokens * n_layers * self.config.hidden_size as u64 * self.activation_bytes;
        let kept = inputs + if is_computed_again { 0 } else { tapes };
        (kept + self.scoring_bytes(n_tokens), is_computed_again)
    }

    fn per_token_of_block(&self) -> u64 {
        self.activation_bytes * (self.config.tape_numbers() / self.config.layers.len().max(1)) as u64
    }

    fn logits_bytes(&self) -> u64 {
        LOGITS_BYTES.max(16 * 4 * self.config.vocab_size as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{TargetModule, WeightsFormat},
        model::{Decoder, LoraShape, Weights},
    };

    fn llama() -> ModelLocation {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let weights = root.join("tests/fixtures/models/llama");
        ModelLocation { format: WeightsFormat::Huggingface, weights, adapters: Vec::new() }
    }

    /// What is told without the weights is what is there with them.
    #[test]
    fn counts_are_those_of_a_model_that_is_loaded() {
        let shape = LoraShape { rank: 3, scale: 1.0, dropout: 0.0 };
        let targets = vec![TargetModule::QProj, TargetModule::DownProj];
        for tuning in [Tuning::Frozen, Tuning::Full, Tuning::Lora { shape, targets, seed: 1 }] {
            let footprint = Footprint::of(&llama(), tuning.clone(), Dtype::Float32, true).expect("read");
            let weights = Weights::load(&llama(), Dtype::Float32).expect("loaded");
            let (_, parameters) = Decoder::new(weights, &tuning, Dtype::Float32).expect("built");
            let n_numbers: usize = parameters.iter().map(|(_, _, value)| value.elem_count()).sum();
            assert_eq!(footprint.n_trained(), (parameters.len() as u64, n_numbers as u64), "{tuning:?}");
            assert_eq!(footprint.weights_bytes(), 4 * footprint.config().n_parameters());
        }
    }

    #[test]
    fn what_is_stored_as_bfloat16_takes_half() {
        let bytes = |tuning, dtype| Footprint::of(&llama(), tuning, dtype, true).expect("read").weights_bytes();
        let whole = bytes(Tuning::Frozen, Dtype::Float32);
        let half = bytes(Tuning::Frozen, Dtype::Bfloat16);
        assert!(half > whole / 2 && half < whole * 6 / 10, "norms stay whole: {half} of {whole}");
        assert_eq!(bytes(Tuning::Full, Dtype::Bfloat16), whole, "what is trained needs its last bits");
    }

    #[test]
    fn past_the_budget_blocks_keep_their_inputs() {
        let footprint = Footprint::of(&llama(), Tuning::Full, Dtype::Float32, true).expect("read");
        let (kept, again) = footprint.training_bytes(100, None);
        let (fewer, computed_again) = footprint.training_bytes(100, Some(0));
        assert!(!again && computed_again && fewer < kept && fewer > footprint.scoring_bytes(100));
    }
}
