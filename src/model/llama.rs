//! The Llama family: RMSNorm, rotary grouped-query attention, SwiGLU; forward and backward written out, no graph.

use candle_core::{Result, Tensor};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::{
    LlamaConfig, ModelError, Weights,
    layout::Packed,
    linear::{DropoutKey, Linear, LoraShape},
    ops::{
        Attention, Head, RopeTable, Sum, attention, attention_backward, attention_last, completion_logps,
        head_backward, join_rotated, rms_norm, rms_norm_again, rms_norm_backward, rms_norm_weight_gradient,
        split_rotated_back, swiglu, swiglu_backward,
    },
    parameters::{Gradients, ParameterId, Parameters},
};
use crate::domain::TargetModule;

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

/// Above this many bytes of kept activations a batch's blocks keep their inputs only and compute the rest again.
const ACTIVATION_BUDGET_BYTES: usize = 768 << 20;

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

/// What a forward pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Log-probabilities only.
    Score,
    /// A backward pass follows; dropout is drawn under this key.
    Train(DropoutKey),
}

/// A normalisation's weight.
#[derive(Debug, Clone)]
enum Norm {
    Frozen(Tensor),
    Trained(ParameterId),
}

impl Norm {
    fn weight<'a>(&'a self, parameters: &'a Parameters) -> &'a Tensor {
        match self {
            Self::Frozen(weight) => weight,
            Self::Trained(id) => parameters.get(*id),
        }
    }

    fn backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        inverse: &[f32],
        residual: Option<&Tensor>,
        (parameters, gradients): (&Parameters, &mut Gradients),
    ) -> Result<Tensor> {
        if let Self::Trained(id) = self {
            gradients.add(*id, rms_norm_weight_gradient(dy, x, inverse)?)?;
        }
        rms_norm_backward(dy, x, self.weight(parameters), inverse, residual)
    }
}

#[derive(Debug, Clone)]
struct Block {
    norms: [Norm; 2],
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// What a block keeps for its backward; norms' outputs and the gated product are cheaper to compute again.
#[derive(Debug)]
struct BlockTape {
    inverse: [Vec<f32>; 2],
    joined: Tensor,
    attended: Attention,
    middle: Tensor,
    gate: Tensor,
    up: Tensor,
}

/// A whole model.
#[derive(Debug)]
pub struct Decoder {
    config: LlamaConfig,
    frequencies: Vec<f32>,
    embedding: Linear,
    blocks: Vec<Block>,
    norm: Norm,
    /// Absent where the embedding is the head.
    head: Option<Linear>,
    has_trained_head: bool,
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
    inverse: Vec<f32>,
    d_predicted: Option<Tensor>,
}

impl Decoder {
    /// Builds a model out of its weights. Returns it with what is trained.
    pub fn new(mut weights: Weights, tuning: &Tuning) -> std::result::Result<(Self, Parameters), ModelError> {
        let config = weights.config.clone();
        let mut build = Builder {
            parameters: Parameters::default(),
            rng: ChaCha8Rng::seed_from_u64(if let Tuning::Lora { seed, .. } = tuning { *seed } else { 0 }),
            tuning,
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
        let decoder = Self {
            frequencies: config.rope.frequencies(config.heads.size),
            config,
            embedding,
            blocks,
            norm,
            head,
            has_trained_head: *tuning == Tuning::Full,
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
        let rope = RopeTable::new(&batch.positions, &self.frequencies);
        let key = match purpose {
            Purpose::Score => None,
            Purpose::Train(key) => Some(key),
        };
        let keeps_all = key.is_some() && batch.tokens.len() * self.tape_bytes_per_token() <= ACTIVATION_BUDGET_BYTES;
        let mut x = self.embed(&batch.tokens, parameters)?;
        let (mut inputs, mut tapes) = (Vec::new(), Vec::new());
        for block in &self.blocks {
            let (y, tape) = block.forward(&x, batch, &self.config, &rope, parameters, key)?;
            if key.is_some() {
                inputs.push(x);
                tapes.push(keeps_all.then_some(tape));
            }
            x = y;
        }
        let predictors = Tensor::new(batch.predictors(), x.device())?;
        let last = x.index_select(&predictors, 0)?;
        let (predicted, inverse) = rms_norm(&last, self.norm.weight(parameters), self.config.rms_norm_eps)?;
        let head = match (key, self.has_trained_head) {
            (None, _) => Head::Score,
            (Some(_), false) => Head::Frozen,
            (Some(_), true) => Head::Trained,
        };
        let out = completion_logps(&predicted, self.head(parameters), &batch.targets(), head)?;
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
        let rope = RopeTable::new(&batch.positions, &self.frequencies);
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        let d_predicted = match &forward.d_predicted {
            Some(unscaled) => unscaled.broadcast_mul(&Tensor::new(d_logps, unscaled.device())?.unsqueeze(1)?)?,
            None => {
                let targets = batch.targets();
                let (d_hidden, d_weight) =
                    head_backward(&forward.predicted, head.weight(parameters), &targets, d_logps)?;
                if let Some(id) = head.trained_id() {
                    gradients.add(id, d_weight)?;
                }
                d_hidden
            }
        };
        let d_last =
            self.norm.backward(&d_predicted, &forward.last, &forward.inverse, None, (parameters, &mut *gradients))?;
        let predictors = Tensor::new(batch.predictors(), d_last.device())?;
        let mut dx = Tensor::zeros((batch.tokens.len(), self.config.hidden_size), d_last.dtype(), d_last.device())?
            .index_add(&predictors, &d_last, 0)?;
        for ((block, x), tape) in self.blocks.iter().zip(forward.inputs).zip(forward.tapes).rev() {
            let tape = match tape {
                Some(tape) => tape,
                None => block.forward(&x, batch, &self.config, &rope, parameters, forward.key)?.1,
            };
            dx = block.backward(
                &dx,
                &x,
                tape,
                &BackwardContext { batch, config: &self.config, rope: &rope, parameters, key: forward.key },
                gradients,
            )?;
        }
        if let Some(id) = self.embedding.trained_id() {
            let tokens = Tensor::new(batch.tokens.as_slice(), dx.device())?;
            let zeros = parameters.get(id).zeros_like()?;
            gradients.add(id, zeros.index_add(&tokens, &dx, 0)?)?;
        }
        Ok(())
    }

    /// Reads a text for sampling: logits (V) of the token after it, and per block the rotated q, k, v of all of it.
    pub(super) fn read(&self, tokens: &[u32], parameters: &Parameters) -> Result<(Tensor, Vec<Tensor>)> {
        let mut batch = Packed::default();
        batch.push(tokens, &[&[0]]);
        let rope = RopeTable::new(&batch.positions, &self.frequencies);
        let mut x = self.embed(&batch.tokens, parameters)?;
        let mut cache = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let (y, tape) = block.forward(&x, &batch, &self.config, &rope, parameters, None)?;
            cache.push(tape.joined);
            x = y;
        }
        let last = x.narrow(0, tokens.len() - 1, 1)?.contiguous()?;
        Ok((self.logits(&last, parameters)?, cache))
    }

    /// Reads one token more: logits (V) of the one after it.
    pub(super) fn read_on(&self, token: u32, cache: &mut [Tensor], parameters: &Parameters) -> Result<Tensor> {
        let position = cache.first().map_or(Ok(0), |joined| joined.dim(0))? as u32;
        let rope = RopeTable::new(&[position], &self.frequencies);
        let mut x = self.embed(&[token], parameters)?;
        for (block, joined) in self.blocks.iter().zip(cache) {
            x = block.forward_last(&x, joined, &self.config, &rope, parameters)?;
        }
        self.logits(&x, parameters)
    }

    /// Logits (V) of one hidden state (1, D).
    fn logits(&self, hidden: &Tensor, parameters: &Parameters) -> Result<Tensor> {
        let (normed, _) = rms_norm(hidden, self.norm.weight(parameters), self.config.rms_norm_eps)?;
        normed.matmul(&self.head(parameters).t()?)?.squeeze(0)
    }

    fn embed(&self, tokens: &[u32], parameters: &Parameters) -> Result<Tensor> {
        let weight = self.embedding.weight(parameters);
        weight.index_select(&Tensor::new(tokens, weight.device())?, 0)
    }

    fn tape_bytes_per_token(&self) -> usize {
        let c = &self.config;
        let floats = 2 * c.hidden_size + c.heads.joined_width() + c.heads.q_width() + 2 * c.intermediate_size;
        4 * c.n_layers * floats
    }
}

/// What a block's backward reads besides its own tape.
struct BackwardContext<'a> {
    batch: &'a Packed,
    config: &'a LlamaConfig,
    rope: &'a RopeTable,
    parameters: &'a Parameters,
    key: Option<DropoutKey>,
}

impl Block {
    fn forward(
        &self,
        x: &Tensor,
        batch: &Packed,
        config: &LlamaConfig,
        rope: &RopeTable,
        parameters: &Parameters,
        key: Option<DropoutKey>,
    ) -> Result<(Tensor, BlockTape)> {
        let (normed, inverse_1) = rms_norm(x, self.norms[0].weight(parameters), config.rms_norm_eps)?;
        let apply = |layer: &Linear, x: &Tensor| layer.forward(x, parameters, key);
        let (q, k, v) = (apply(&self.q, &normed)?, apply(&self.k, &normed)?, apply(&self.v, &normed)?);
        let joined = join_rotated(&q, &k, &v, config.heads, rope)?;
        let attended = attention(&joined, &batch.sequences, config.heads)?;
        let middle = self.o.forward_into(Sum::starting_with(x)?, &attended.output, parameters, key)?.into_tensor()?;
        let (normed, inverse_2) = rms_norm(&middle, self.norms[1].weight(parameters), config.rms_norm_eps)?;
        let (gate, up) = (apply(&self.gate, &normed)?, apply(&self.up, &normed)?);
        let product = swiglu(&gate, &up)?;
        let y = self.down.forward_into(Sum::starting_with(&middle)?, &product, parameters, key)?.into_tensor()?;
        Ok((y, BlockTape { inverse: [inverse_1, inverse_2], joined, attended, middle, gate, up }))
    }

    /// Forward of one token (1, D) after those in `joined`, which it is added to.
    fn forward_last(
        &self,
        x: &Tensor,
        joined: &mut Tensor,
        config: &LlamaConfig,
        rope: &RopeTable,
        parameters: &Parameters,
    ) -> Result<Tensor> {
        let apply = |layer: &Linear, x: &Tensor| layer.forward(x, parameters, None);
        let (normed, _) = rms_norm(x, self.norms[0].weight(parameters), config.rms_norm_eps)?;
        let (q, k, v) = (apply(&self.q, &normed)?, apply(&self.k, &normed)?, apply(&self.v, &normed)?);
        *joined = Tensor::cat(&[&*joined, &join_rotated(&q, &k, &v, config.heads, rope)?], 0)?;
        let attended = attention_last(joined, config.heads)?;
        let middle = self.o.forward_into(Sum::starting_with(x)?, &attended, parameters, None)?.into_tensor()?;
        let (normed, _) = rms_norm(&middle, self.norms[1].weight(parameters), config.rms_norm_eps)?;
        let product = swiglu(&apply(&self.gate, &normed)?, &apply(&self.up, &normed)?)?;
        self.down.forward_into(Sum::starting_with(&middle)?, &product, parameters, None)?.into_tensor()
    }

    /// Returns dL/dx of the block's input `x`.
    fn backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        tape: BlockTape,
        context: &BackwardContext<'_>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let BackwardContext { batch, config, rope, parameters, key } = *context;
        let trained = (parameters, key);
        let (n, d) = x.dims2()?;
        let product = swiglu(&tape.gate, &tape.up)?;
        let d_product = Sum::new(n, config.intermediate_size);
        let d_product = self.down.backward_into(d_product, dy, &product, trained, gradients)?.into_tensor()?;
        let (d_gate, d_up) = swiglu_backward(&d_product, &tape.gate, &tape.up)?;
        let normed = rms_norm_again(&tape.middle, self.norms[1].weight(parameters), &tape.inverse[1])?;
        let d_normed = self.gate.backward_into(Sum::new(n, d), &d_gate, &normed, trained, gradients)?;
        let d_normed = self.up.backward_into(d_normed, &d_up, &normed, trained, gradients)?.into_tensor()?;
        let sinks = (parameters, &mut *gradients);
        let d_middle = self.norms[1].backward(&d_normed, &tape.middle, &tape.inverse[1], Some(dy), sinks)?;

        let d_output = Sum::new(n, config.heads.q_width());
        let d_output =
            self.o.backward_into(d_output, &d_middle, &tape.attended.output, trained, gradients)?.into_tensor()?;
        let d_joined = attention_backward(&d_output, &tape.joined, &tape.attended, &batch.sequences, config.heads)?;
        let (dq, dk, dv) = split_rotated_back(&d_joined, config.heads, rope)?;
        let normed = rms_norm_again(x, self.norms[0].weight(parameters), &tape.inverse[0])?;
        let d_normed = self.q.backward_into(Sum::new(n, d), &dq, &normed, trained, gradients)?;
        let d_normed = self.k.backward_into(d_normed, &dk, &normed, trained, gradients)?;
        let d_normed = self.v.backward_into(d_normed, &dv, &normed, trained, gradients)?.into_tensor()?;
        self.norms[0].backward(&d_normed, x, &tape.inverse[0], Some(&d_middle), (parameters, gradients))
    }
}

/// Takes weights out of the file's and decides which are trained.
struct Builder<'a> {
    parameters: Parameters,
    rng: ChaCha8Rng,
    tuning: &'a Tuning,
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
