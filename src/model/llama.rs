//! The Llama family: embedding, decoder blocks, final norm and head; forward and backward written out, no graph.

use candle_core::{Result, Tensor};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::{
    LlamaConfig, ModelError, Weights,
    block::{Block, BlockTape, Norm, Pass},
    device::activation_budget,
    layout::Packed,
    linear::{DropoutKey, Linear, LoraShape},
    ops::{Compute, Factor, Head, RopeTable, Scoring},
    parameters::{Gradients, Parameters},
};
use crate::domain::{Dtype, TargetModule};

/// A block's weights below `model.layers.{i}.`, norms first.
pub(super) const BLOCK_WEIGHTS: [&str; 9] = [
    "input_layernorm",
    "post_attention_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// What of a model is trained.
#[derive(Debug, Clone, PartialEq)]
pub enum Tuning {
    /// Nothing.
    Frozen,
    /// LoRA pairs beside some layers; A drawn from `seed`.
    Lora {
        /// Rank, scale and dropout.
        shape: LoraShape,
        /// The layers.
        targets: Vec<TargetModule>,
        /// Seed of A's initial values.
        seed: u64,
    },
    /// Every weight.
    Full,
}

impl Tuning {
    /// What the weights are stored in where products are computed in `dtype`: what is trained needs its last bits.
    pub fn stored(&self, dtype: Dtype) -> Dtype {
        match self {
            Self::Full => Dtype::Float32,
            Self::Frozen | Self::Lora { .. } => dtype,
        }
    }
}

/// What a forward pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Log-probabilities only.
    Score,
    /// A backward pass follows; dropout is drawn under this key.
    Train(DropoutKey),
}

/// A whole model.
#[derive(Debug)]
pub struct Decoder {
    compute: Compute,
    config: LlamaConfig,
    frequencies: Vec<f32>,
    embedding: Linear,
    blocks: Vec<Block>,
    norm: Norm,
    /// Absent where the embedding is the head.
    head: Option<Linear>,
    has_trained_head: bool,
    /// Above this many bytes of kept activations a batch's blocks keep their inputs only and compute the rest again.
    activation_budget_bytes: usize,
}

/// A forward pass and what its backward needs.
#[derive(Debug)]
pub struct Forward {
    /// log p per scored token, in nats.
    pub token_logps: Vec<f32>,
    key: Option<DropoutKey>,
    inputs: Vec<Tensor>,
    tapes: Vec<Option<BlockTape>>,
    last: Tensor,
    predicted: Tensor,
    inverse: Tensor,
    d_predicted: Option<Tensor>,
}

impl Decoder {
    /// Builds a model out of its weights. Returns it with what is trained.
    pub fn new(
        mut weights: Weights,
        tuning: &Tuning,
        dtype: Dtype,
    ) -> std::result::Result<(Self, Parameters), ModelError> {
        let config = weights.config.clone();
        let compute = Compute::new(weights.device(), dtype)?;
        let mut build = Builder {
            parameters: Parameters::default(),
            rng: ChaCha8Rng::seed_from_u64(if let Tuning::Lora { seed, .. } = tuning { *seed } else { 0 }),
            tuning,
            compute,
        };
        let (d, v, i) = (config.hidden_size, config.vocab_size, config.intermediate_size);
        let (q, kv) = (config.heads.q_width(), config.heads.kv_width());
        let embedding = build.linear(&mut weights, "model.embed_tokens", (v, d), None)?;
        let mut blocks = Vec::with_capacity(config.n_layers);
        for layer in 0..config.n_layers {
            let name = |part: usize| format!("model.layers.{layer}.{}", BLOCK_WEIGHTS[part]);
            let shapes = [(q, d), (kv, d), (kv, d), (d, q), (i, d), (i, d), (d, i)];
            let mut linear =
                |part: usize| build.linear(&mut weights, &name(part + 2), shapes[part], Some(TargetModule::ALL[part]));
            let (q, k, v, o) = (linear(0)?, linear(1)?, linear(2)?, linear(3)?);
            let (gate, up, down) = (linear(4)?, linear(5)?, linear(6)?);
            let norms = [build.norm(&mut weights, &name(0), d)?, build.norm(&mut weights, &name(1), d)?];
            blocks.push(Block { norms, q, k, v, o, gate, up, down });
        }
        let norm = build.norm(&mut weights, "model.norm", d)?;
        let head = if config.tied { None } else { Some(build.linear(&mut weights, "lm_head", (v, d), None)?) };
        let activation_budget_bytes = activation_budget(build.compute.device())?;
        let decoder = Self {
            frequencies: config.rope.frequencies(config.heads.size),
            compute: build.compute,
            config,
            embedding,
            blocks,
            norm,
            head,
            has_trained_head: *tuning == Tuning::Full,
            activation_budget_bytes,
        };
        Ok((decoder, build.parameters))
    }

    /// The shape.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// The weight of the vocabulary head, (V, D).
    pub(super) fn head<'a>(&'a self, parameters: &'a Parameters) -> &'a Tensor {
        self.head.as_ref().unwrap_or(&self.embedding).weight(parameters)
    }

    /// Log-probabilities of the batch's scored tokens.
    pub fn forward(&self, batch: &Packed, parameters: &Parameters, purpose: Purpose) -> Result<Forward> {
        let rope = self.rope(&batch.positions)?;
        let key = match purpose {
            Purpose::Score => None,
            Purpose::Train(key) => Some(key),
        };
        let pass = Pass { compute: &self.compute, config: &self.config, parameters, batch, rope: &rope, key };
        let keeps_all =
            key.is_some() && batch.tokens.len() * self.tape_bytes_per_token() <= self.activation_budget_bytes;
        let mut x = self.embed(&batch.tokens, parameters)?;
        let (mut inputs, mut tapes) = (Vec::new(), Vec::new());
        for block in &self.blocks {
            let (y, tape) = block.forward(&x, &pass)?;
            if key.is_some() {
                inputs.push(x);
                tapes.push(keeps_all.then_some(tape));
            }
            x = y;
        }
        let predictors = Tensor::new(batch.predictors(), x.device())?;
        let last = x.index_select(&predictors, 0)?;
        let (predicted, inverse) =
            self.compute.rms_norm(&last, self.norm.weight(parameters), self.config.rms_norm_eps)?;
        let head = match (key, self.has_trained_head) {
            (None, _) => Head::Score,
            (Some(_), false) => Head::Frozen,
            (Some(_), true) => Head::Trained,
        };
        let dtype = self.compute.dtype();
        let out = self.compute.completion_logps(&predicted, self.head(parameters), &batch.targets(), head, dtype)?;
        Ok(Forward { token_logps: out.logps, key, inputs, tapes, last, predicted, inverse, d_predicted: out.d_hidden })
    }

    /// Adds dL/dparameter to `gradients`, given dL/dlogp per scored token.
    pub fn backward(
        &self,
        batch: &Packed,
        forward: Forward,
        d_logps: &[f32],
        parameters: &Parameters,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let rope = self.rope(&batch.positions)?;
        let pass =
            Pass { compute: &self.compute, config: &self.config, parameters, batch, rope: &rope, key: forward.key };
        let d_predicted = match &forward.d_predicted {
            Some(unscaled) => {
                let d_logps = Tensor::new(d_logps, unscaled.device())?.to_dtype(unscaled.dtype())?;
                unscaled.broadcast_mul(&d_logps.unsqueeze(1)?)?
            }
            None => self.head_backward(&forward.predicted, d_logps, &pass, gradients)?,
        };
        let d_last = self.norm.backward(&d_predicted, (&forward.last, &forward.inverse), None, &pass, gradients)?;
        let predictors = Tensor::new(batch.predictors(), d_last.device())?;
        let mut dx = Tensor::zeros((batch.tokens.len(), self.config.hidden_size), d_last.dtype(), d_last.device())?
            .index_add(&predictors, &d_last, 0)?;
        for ((block, x), tape) in self.blocks.iter().zip(forward.inputs).zip(forward.tapes).rev() {
            let tape = match tape {
                Some(tape) => tape,
                None => block.forward(&x, &pass)?.1,
            };
            dx = block.backward(&dx, &x, tape, &pass, gradients)?;
        }
        if let Some(id) = self.embedding.trained_id() {
            self.compute.add_rows(gradients.begun(id, parameters.get(id))?, &batch.tokens, &dx)?;
        }
        Ok(())
    }

    /// The backward of a trained head: returns dL/dhidden.
    fn head_backward(
        &self,
        predicted: &Tensor,
        d_logps: &[f32],
        pass: &Pass<'_>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let layer = self.head.as_ref().unwrap_or(&self.embedding);
        let weight = layer.weight(pass.parameters);
        let id = layer.trained_id().expect("only a frozen head has its gradient made ahead");
        let d_weight = gradients.begun(id, weight)?;
        let scored = Scoring { targets: &pass.batch.targets(), d_logps, dtype: self.compute.dtype() };
        self.compute.head_backward(predicted, weight, scored, d_weight)
    }

    /// Reads a text for sampling: logits (V) of the token after it, and per block the rotated q, k, v of all of it.
    pub(super) fn read(&self, tokens: &[u32], parameters: &Parameters) -> Result<(Tensor, Vec<Tensor>)> {
        let mut batch = Packed::default();
        batch.push(tokens, &[&[0]]);
        let rope = self.rope(&batch.positions)?;
        let pass =
            Pass { compute: &self.compute, config: &self.config, parameters, batch: &batch, rope: &rope, key: None };
        let mut x = self.embed(&batch.tokens, parameters)?;
        let mut cache = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let (y, tape) = block.forward(&x, &pass)?;
            cache.push(tape.into_joined());
            x = y;
        }
        let last = x.narrow(0, tokens.len() - 1, 1)?.contiguous()?;
        Ok((self.logits(&last, parameters)?, cache))
    }

    /// Reads one token more: logits (V) of the one after it.
    pub(super) fn read_on(&self, token: u32, cache: &mut [Tensor], parameters: &Parameters) -> Result<Tensor> {
        let position = cache.first().map_or(Ok(0), |joined| joined.dim(0))? as u32;
        let rope = self.rope(&[position])?;
        let batch = Packed::default();
        let pass =
            Pass { compute: &self.compute, config: &self.config, parameters, batch: &batch, rope: &rope, key: None };
        let mut x = self.embed(&[token], parameters)?;
        for (block, joined) in self.blocks.iter().zip(cache) {
            x = block.forward_last(&x, joined, &pass)?;
        }
        self.logits(&x, parameters)
    }

    /// Logits (V) of one hidden state (1, D).
    fn logits(&self, hidden: &Tensor, parameters: &Parameters) -> Result<Tensor> {
        let (normed, _) = self.compute.rms_norm(hidden, self.norm.weight(parameters), self.config.rms_norm_eps)?;
        let sum = self.compute.float32_sum(1, self.config.vocab_size)?;
        sum.add(Factor::Plain(&normed), Factor::Transposed(self.head(parameters)), 1.0)?.into_tensor()?.squeeze(0)
    }

    fn embed(&self, tokens: &[u32], parameters: &Parameters) -> Result<Tensor> {
        let weight = self.embedding.weight(parameters);
        weight.index_select(&Tensor::new(tokens, weight.device())?, 0)?.to_dtype(self.compute.activations())
    }

    fn rope(&self, positions: &[u32]) -> Result<RopeTable> {
        RopeTable::new(positions, &self.frequencies, self.compute.device())
    }

    fn tape_bytes_per_token(&self) -> usize {
        let c = &self.config;
        let floats = 2 * c.hidden_size + c.heads.joined_width() + c.heads.q_width() + 2 * c.intermediate_size;
        self.compute.activations().size_in_bytes() * c.n_layers * floats
    }
}

/// Takes weights out of the file's and decides which are trained.
struct Builder<'a> {
    parameters: Parameters,
    rng: ChaCha8Rng,
    tuning: &'a Tuning,
    compute: Compute,
}

impl Builder<'_> {
    fn linear(
        &mut self,
        weights: &mut Weights,
        name: &str,
        (out, input): (usize, usize),
        module: Option<TargetModule>,
    ) -> std::result::Result<Linear, ModelError> {
        let file_name = format!("{name}.weight");
        let weight = weights.take(&file_name, &[out, input])?;
        Ok(match (self.tuning, module) {
            (Tuning::Full, _) => Linear::trained(self.parameters.add(file_name, weight)),
            (Tuning::Lora { shape, targets, .. }, Some(module)) if targets.contains(&module) => Linear::frozen(weight)
                .with_lora(&format!("base_model.model.{name}"), *shape, &mut self.parameters, &mut self.rng)?,
            _ => Linear::frozen(weight),
        })
    }

    fn norm(&mut self, weights: &mut Weights, name: &str, d: usize) -> std::result::Result<Norm, ModelError> {
        let name = format!("{name}.weight");
        let weight = weights.take(&name, &[d])?;
        Ok(match self.tuning {
            Tuning::Full => Norm::Trained(self.parameters.add(name, weight)),
            _ => Norm::Frozen(weight),
        })
    }
}
