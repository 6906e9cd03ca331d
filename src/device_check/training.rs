//! A small model trained on the device and on the processor.

use candle_core::{Device, Result, Tensor};

use super::{Finding, Outputs, compare};
use crate::{
    domain::{Dtype, TargetModule},
    model::{
        Decoder, DropoutKey, Gradients, LoraShape, ModelConfig, Parameters, Purpose, Tuning, Weights, layout::Packed,
        noise, ops::Heads,
    },
    train::{AdamW, AdamWSettings},
};

/// PyTorch's.
pub(super) const ADAMW: AdamWSettings = AdamWSettings { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };
/// Names the forward passes.
const KEY: DropoutKey = DropoutKey { seed: 1, pass: 0 };

/// A Llama's shape but for its sizes.
pub(super) fn shape(
    n_layers: usize,
    (hidden_size, intermediate_size): (usize, usize),
    heads: Heads,
    vocab_size: usize,
) -> Result<ModelConfig> {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": hidden_size,
        "intermediate_size": intermediate_size, "num_hidden_layers": n_layers, "num_attention_heads": heads.query,
        "num_key_value_heads": heads.key_value, "head_dim": heads.size, "vocab_size": vocab_size, "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0, "tie_word_embeddings": true, "max_position_embeddings": 4096,
    });
    ModelConfig::from_json(config.to_string().as_bytes()).map_err(candle_core::Error::wrap)
}

/// LoRA of rank 8.
pub(super) fn lora(targets: &[TargetModule]) -> Tuning {
    let shape = LoraShape { rank: 8, scale: 2.0, dropout: 0.0 };
    Tuning::Lora { shape, targets: targets.to_vec(), seed: 1 }
}

/// A prompt and its completions, of made-up tokens.
pub(super) fn push_pair(batch: &mut Packed, vocabulary: usize, prompt: usize, completions: [usize; 2]) {
    let text = |n: usize, seed: usize| (0..n).map(|i| ((i * i + seed * 31 + i * 7) % vocabulary) as u32).collect();
    let seed = batch.tokens.len();
    let completions: [Vec<u32>; 2] = [text(completions[0], seed + 1), text(completions[1], seed + 2)];
    batch.push(&text(prompt, seed), &completions.each_ref().map(Vec::as_slice));
}

/// A model being trained.
pub(super) struct Training {
    pub(super) decoder: Decoder,
    pub(super) parameters: Parameters,
    optimizer: AdamW,
}

impl Training {
    pub(super) fn new(config: ModelConfig, tuning: &Tuning, dtype: Dtype, device: &Device) -> Result<Self> {
        let in_words = |error: crate::model::ModelError| candle_core::Error::Msg(error.to_string());
        let weights = Weights::random(config, tuning.stored(dtype), device).map_err(in_words)?;
        let (decoder, mut parameters) = Decoder::new(weights, tuning, dtype).map_err(in_words)?;
        // B of a fresh LoRA pair is zero, and A's gradient with it.
        let zero: Vec<_> = parameters.iter().filter(|(_, name, _)| name.contains("lora_B")).collect();
        let moved = zero
            .into_iter()
            .map(|(id, _, b)| Ok((id, (noise(b.dims(), 100 + id.index() as u64)? * 0.02)?.to_device(device)?)));
        for (id, b) in moved.collect::<Result<Vec<_>>>()? {
            parameters.set(id, b);
        }
        let optimizer = AdamW::new(ADAMW, &parameters)?;
        Ok(Self { decoder, parameters, optimizer })
    }

    /// Log-probabilities of the scored tokens, and the gradients of their weighted sum.
    fn gradients(&self, batch: &Packed) -> Result<(Vec<f32>, Gradients)> {
        let forward = self.decoder.forward(batch, &self.parameters, Purpose::Train(KEY))?;
        let logps = forward.token_logps.clone();
        let d_logps: Vec<f32> = noise(&[logps.len()], 7)?.affine(0.01, 0.0)?.to_vec1()?;
        let mut gradients = Gradients::new(self.parameters.len());
        self.decoder.backward(batch, forward, &d_logps, &self.parameters, &mut gradients)?;
        Ok((logps, gradients))
    }

    /// Forward, backward and optimizer.
    pub(super) fn step(&mut self, batch: &Packed) -> Result<()> {
        let (_, gradients) = self.gradients(batch)?;
        self.optimizer.step(&self.parameters, &gradients, 1e-3, 1.0)
    }

    /// The trained weights as they are now.
    fn bits(&self) -> Result<Vec<u32>> {
        let mut bits = Vec::new();
        for (_, _, value) in self.parameters.iter() {
            bits.extend(value.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits));
        }
        Ok(bits)
    }

    fn outputs(&self, batch: &Packed) -> Result<Outputs> {
        let (logps, gradients) = self.gradients(batch)?;
        let mut outputs = vec![("log p".to_owned(), Tensor::new(logps, &Device::Cpu)?)];
        for (id, name, value) in self.parameters.iter() {
            let gradient = gradients.get(id).cloned().map_or_else(|| value.zeros_like(), Ok)?;
            outputs.push((format!("gradient of {}", name.trim_start_matches("base_model.model.model.")), gradient));
        }
        Ok(outputs)
    }
}

/// Log-probabilities and gradients against the processor's, in LoRA and full fine-tuning; and a short training, twice.
pub(super) fn check(device: &Device, dtype: Dtype, tell: &mut dyn FnMut(&Finding)) -> Result<()> {
    let limit = match dtype {
        Dtype::Float32 => 1e-4,
        // The smallest gradients are differences of much larger numbers.
        Dtype::Bfloat16 => 8e-2,
    };
    let config = shape(2, (96, 200), Heads { query: 6, key_value: 2, size: 16 }, 307)?;
    let mut batch = Packed::default();
    for (prompt, completions) in [(150, [132, 7]), (1, [1, 40])] {
        push_pair(&mut batch, config.vocab_size, prompt, completions);
    }
    for (name, tuning) in [("LoRA", lora(&config.family.targets())), ("full", Tuning::Full)] {
        let expected = Training::new(config.clone(), &tuning, Dtype::Float32, &Device::Cpu)?;
        let found = Training::new(config.clone(), &tuning, dtype, device).and_then(|training| training.outputs(&batch));
        compare((name, dtype, limit), found, &expected.outputs(&batch)?, tell);
    }
    let train = || {
        let mut training = Training::new(config.clone(), &lora(&config.family.targets()), dtype, device)?;
        (0..3).try_for_each(|_| training.step(&batch))?;
        training.bits()
    };
    tell(&Finding::Determinism { dtype, is_same: train()? == train()? });
    Ok(())
}
