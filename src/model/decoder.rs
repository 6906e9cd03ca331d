//! A whole model: embedding, decoder blocks, final norm and head; forward and backward written out, no graph.

mod build;

use candle_core::{Result, Tensor};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use self::build::Builder;
use super::{
    ModelConfig, ModelError, Weights,
    attention::AttentionTape,
    block::{Block, BlockTape, Pass},
    device::activation_budget,
    families::Part,
    layout::Packed,
    linear::{DropoutKey, Linear, LoraShape},
    norm::Norm,
    ops::{Compute, Factor, Head, LogitShape, RopeTable, Scoring},
    parameters::{Gradients, Parameters},
};
use crate::domain::{Dtype, TargetModule};

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
    config: ModelConfig,
    /// Of each of the model's ropes.
    frequencies: Vec<Vec<f32>>,
    embedding: Linear,
    /// Learned embedding of positions.
    positions: Option<Linear>,
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
    tapes: Vec<Option<BlockTape<AttentionTape>>>,
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
            config: &config,
            weights: &mut weights,
        };
        let embedding = build.linear(Part::Embedding, 0)?;
        let positions = if config.has(Part::Positions) { Some(build.linear(Part::Positions, 0)?) } else { None };
        let blocks = (0..config.layers.len()).map(|layer| build.block(layer)).collect::<std::result::Result<_, _>>()?;
        let norm = build.norm(Part::FinalNorm, 0)?;
        let head = if config.tied { None } else { Some(build.linear(Part::Head, 0)?) };
        let Builder { parameters, compute, .. } = build;
        let activation_budget_bytes = activation_budget(compute.device())?;
        let decoder = Self {
            frequencies: config.ropes.iter().map(super::Rope::frequencies).collect(),
            compute,
            config,
            embedding,
            positions,
            blocks,
            norm,
            head,
            has_trained_head: *tuning == Tuning::Full,
            activation_budget_bytes,
        };
        Ok((decoder, parameters))
    }

    /// The shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The weight of the vocabulary head, (V, D).
    pub(super) fn head(&self, parameters: &Parameters) -> Result<Tensor> {
        self.head.as_ref().unwrap_or(&self.embedding).weight(parameters)
    }

    /// Log-probabilities of the batch's scored tokens.
    pub fn forward(&self, batch: &Packed, parameters: &Parameters, purpose: Purpose) -> Result<Forward> {
        let ropes = self.ropes(&batch.positions)?;
        let key = match purpose {
            Purpose::Score => None,
            Purpose::Train(key) => Some(key),
        };
        let pass = Pass { compute: &self.compute, parameters, batch, ropes: &ropes, key };
        let keeps_all =
            key.is_some() && batch.tokens.len() * self.tape_bytes_per_token() <= self.activation_budget_bytes;
        let mut x = self.embed(&batch.tokens, &batch.positions, parameters)?;
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
        let (predicted, inverse) = self.norm.forward(&last, &pass)?;
        let head = match (key, self.has_trained_head) {
            (None, _) => Head::Score,
            (Some(_), false) => Head::Frozen,
            (Some(_), true) => Head::Trained,
        };
        let (weight, logits) = (self.head(parameters)?, self.logit_shape());
        let out = self.compute.completion_logps(&predicted, &weight, &batch.targets(), head, logits)?;
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
        let ropes = self.ropes(&batch.positions)?;
        let pass = Pass { compute: &self.compute, parameters, batch, ropes: &ropes, key: forward.key };
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
            dx = block.backward(&dx, &x, &tape, &pass, gradients)?;
        }
        if let Some(id) = self.positions.as_ref().and_then(Linear::trained_id) {
            self.compute.add_rows(gradients.begun(id, parameters.get(id))?, &batch.positions, &dx)?;
        }
        if let Some(id) = self.embedding.trained_id() {
            let dx = if self.config.embedding_scale == 1.0 { dx } else { (dx * self.config.embedding_scale)? };
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
        let weight = &layer.weight(pass.parameters)?;
        let id = layer.trained_id().expect("only a frozen head has its gradient made ahead");
        let d_weight = gradients.begun(id, weight)?;
        let scored = Scoring { targets: &pass.batch.targets(), d_logps, logits: self.logit_shape() };
        self.compute.head_backward(predicted, weight, scored, d_weight)
    }

    /// Reads a text for sampling: logits (V) of the token after it, and per block the rotated q, k, v of all of it.
    pub(super) fn read(&self, tokens: &[u32], parameters: &Parameters) -> Result<(Tensor, Vec<Tensor>)> {
        let mut batch = Packed::default();
        batch.push(tokens, &[&[0]]);
        let ropes = self.ropes(&batch.positions)?;
        let pass = Pass { compute: &self.compute, parameters, batch: &batch, ropes: &ropes, key: None };
        let mut x = self.embed(&batch.tokens, &batch.positions, parameters)?;
        let mut cache = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let (y, tape) = block.forward(&x, &pass)?;
            cache.push(tape.attention.joined);
            x = y;
        }
        let last = x.narrow(0, tokens.len() - 1, 1)?.contiguous()?;
        Ok((self.logits(&last, &pass)?, cache))
    }

    /// Reads one token more: logits (V) of the one after it.
    pub(super) fn read_on(&self, token: u32, cache: &mut [Tensor], parameters: &Parameters) -> Result<Tensor> {
        let position = cache.first().map_or(Ok(0), |joined| joined.dim(0))? as u32;
        let ropes = self.ropes(&[position])?;
        let batch = Packed::default();
        let pass = Pass { compute: &self.compute, parameters, batch: &batch, ropes: &ropes, key: None };
        let mut x = self.embed(&[token], &[position], parameters)?;
        for (block, joined) in self.blocks.iter().zip(cache) {
            x = block.forward_last(&x, joined, &pass)?;
        }
        self.logits(&x, &pass)
    }

    /// Logits (V) of one hidden state (1, D).
    fn logits(&self, hidden: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let (normed, _) = self.norm.forward(hidden, pass)?;
        let sum = self.compute.float32_sum(1, self.config.vocab_size)?;
        let logits = sum.add(Factor::Plain(&normed), Factor::Transposed(&self.head(pass.parameters)?), 1.0)?;
        let logits = logits.into_tensor()?.squeeze(0)?;
        match self.config.logit_softcap {
            Some(cap) => (logits / cap)?.tanh()? * cap,
            None => Ok(logits),
        }
    }

    fn logit_shape(&self) -> LogitShape {
        LogitShape { softcap: self.config.logit_softcap.map(|cap| cap as f32), dtype: self.compute.dtype() }
    }

    fn embed(&self, tokens: &[u32], positions: &[u32], parameters: &Parameters) -> Result<Tensor> {
        let rows = |layer: &Linear, rows: &[u32]| layer.rows(rows, parameters)?.to_dtype(self.compute.activations());
        let x = rows(&self.embedding, tokens)?;
        let x = if self.config.embedding_scale == 1.0 { x } else { (x * self.config.embedding_scale)? };
        match &self.positions {
            Some(layer) => x + rows(layer, positions)?,
            None => Ok(x),
        }
    }

    fn ropes(&self, positions: &[u32]) -> Result<Vec<RopeTable>> {
        self.frequencies.iter().map(|f| RopeTable::new(positions, f, self.compute.device())).collect()
    }

    fn tape_bytes_per_token(&self) -> usize {
        self.compute.activations().size_in_bytes() * self.config.tape_numbers()
    }
}
