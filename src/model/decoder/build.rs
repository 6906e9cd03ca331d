//! Layers out of a file's weights: which are trained, which stay frozen, and in which precision.

use rand_chacha::ChaCha8Rng;

use super::Tuning;
use crate::model::{
    ModelConfig, ModelError, Weights,
    attention::{AttentionLayers, Qkv},
    block::Block,
    families::Part,
    linear::Linear,
    mlp::{Inner, Mlp},
    norm::{Norm, Vector},
    ops::{AttentionShape, Compute},
    parameters::Parameters,
};

/// Takes weights out of the file's and decides which are trained.
pub(super) struct Builder<'a> {
    pub(super) parameters: Parameters,
    pub(super) rng: ChaCha8Rng,
    pub(super) tuning: &'a Tuning,
    pub(super) compute: Compute,
    pub(super) config: &'a ModelConfig,
    pub(super) weights: &'a mut Weights,
}

impl Builder<'_> {
    pub(super) fn block(&mut self, layer: usize) -> std::result::Result<Block, ModelError> {
        let config = self.config;
        let qkv = if config.family.is_fused() {
            let fused = self.linear(Part::Qkv, layer)?;
            if config.family.is_fused_by_head { Qkv::FusedByHead(fused) } else { Qkv::Fused(fused) }
        } else {
            let [q, k, v] = [Part::Q, Part::K, Part::V].map(|part| self.linear(part, layer));
            Qkv::Separate(Box::new([q?, k?, v?]))
        };
        let o = self.linear(Part::O, layer)?;
        let inner = if config.has(Part::GateUp) {
            Inner::Fused(self.linear(Part::GateUp, layer)?)
        } else if config.has(Part::Gate) {
            Inner::Gated([self.linear(Part::Gate, layer)?, self.linear(Part::Up, layer)?])
        } else {
            Inner::Plain(self.linear(Part::Up, layer)?)
        };
        let down = self.linear(Part::Down, layer)?;
        let norms = match (self.optional_norm(Part::QNorm, layer)?, self.optional_norm(Part::KNorm, layer)?) {
            (Some(q), Some(k)) => Some([q, k]),
            _ => None,
        };
        let shape = AttentionShape {
            heads: config.heads,
            scale: config.attention_scale as f32,
            softcap: config.attention_softcap.map(|cap| cap as f32),
            window: config.layers[layer].window,
            dtype: self.compute.dtype(),
        };
        Ok(Block {
            attention_norm: self.norm(Part::AttentionNorm, layer)?,
            attention: AttentionLayers { qkv, norms, o, shape, rope: config.layers[layer].rope },
            mlp_norm: self.norm(Part::MlpNorm, layer)?,
            mlp: Mlp { inner, down, activation: config.activation },
            post_norms: [
                self.optional_norm(Part::PostAttentionNorm, layer)?,
                self.optional_norm(Part::PostMlpNorm, layer)?,
            ],
            is_parallel: config.is_parallel,
        })
    }

    pub(super) fn linear(&mut self, part: Part, layer: usize) -> std::result::Result<Linear, ModelError> {
        let name = self.config.family.hf_name(part, layer);
        let weight_name = format!("{name}.weight");
        let shape = self.config.shape_of(part);
        let frozen = match self.weights.take_quantised(&weight_name, &shape)? {
            Some(weight) => Linear::quantised(weight),
            None => Linear::frozen(self.weights.take(&weight_name, &shape)?),
        };
        let linear = match self.tuning {
            Tuning::Full => Linear::trained(self.parameters.add(weight_name, frozen.weight(&self.parameters)?)),
            Tuning::Lora { shape, targets, .. }
                if self.config.family.target_of(part).is_some_and(|target| targets.contains(&target)) =>
            {
                let name = format!("base_model.model.{name}");
                frozen.with_lora(&name, *shape, &mut self.parameters, &mut self.rng)?
            }
            _ => frozen,
        };
        Ok(match self.bias(part, layer)? {
            Some(bias) => linear.with_bias(bias),
            None => linear,
        })
    }

    pub(super) fn norm(&mut self, part: Part, layer: usize) -> std::result::Result<Norm, ModelError> {
        let weight = format!("{}.weight", self.config.family.hf_name(part, layer));
        Ok(Norm {
            weight: self.vector(weight, part)?,
            bias: self.bias(part, layer)?,
            kind: self.config.family.norm,
            eps: self.config.norm_eps,
        })
    }

    pub(super) fn optional_norm(&mut self, part: Part, layer: usize) -> std::result::Result<Option<Norm>, ModelError> {
        if self.config.has(part) { self.norm(part, layer).map(Some) } else { Ok(None) }
    }

    pub(super) fn bias(&mut self, part: Part, layer: usize) -> std::result::Result<Option<Vector>, ModelError> {
        if !self.config.has_bias(part) {
            return Ok(None);
        }
        let name = format!("{}.bias", self.config.family.hf_name(part, layer));
        self.vector(name, part).map(Some)
    }

    /// A norm's weight, or a bias.
    pub(super) fn vector(&mut self, name: String, part: Part) -> std::result::Result<Vector, ModelError> {
        let vector = self.weights.take(&name, &self.config.shape_of(part)[..1])?;
        Ok(match self.tuning {
            Tuning::Full => Vector::Trained(self.parameters.add(name, vector)),
            _ => Vector::Frozen(vector),
        })
    }
}
