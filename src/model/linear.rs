//! A linear layer y = x·Wᵀ whose weight is frozen or trained, with or without LoRA beside it.

use candle_core::{DType, Device, Result, Tensor};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use super::{
    block::Pass,
    ops::{
        Factor::{Plain, Transposed},
        Sum,
    },
    parameters::{Gradients, ParameterId, Parameters},
};

/// Rank, scale and dropout of a LoRA update (PEFT's semantics).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraShape {
    /// Rank r.
    pub rank: usize,
    /// alpha / rank.
    pub scale: f64,
    /// Probability that an input of A is dropped.
    pub dropout: f64,
}

/// Names one forward pass, so that its backward draws the same dropout masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutKey {
    /// Seed of the run.
    pub seed: u64,
    /// A number no other forward pass of the run has.
    pub pass: u64,
}

#[derive(Debug, Clone)]
enum Weight {
    Frozen(Tensor),
    Trained(ParameterId),
}

#[derive(Debug, Clone, Copy)]
struct LoraPair {
    a: ParameterId,
    b: ParameterId,
    shape: LoraShape,
}

/// A linear layer.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    weight: Weight,
    lora: Option<LoraPair>,
}

impl Linear {
    /// A frozen weight (out, in).
    pub(super) fn frozen(weight: Tensor) -> Self {
        Self { weight: Weight::Frozen(weight), lora: None }
    }

    /// A trained weight.
    pub(super) fn trained(id: ParameterId) -> Self {
        Self { weight: Weight::Trained(id), lora: None }
    }

    /// Adds a LoRA pair: A (r, in) uniform as PEFT draws it (Kaiming with a = √5: ±1/√in), B (out, r) zero.
    pub(super) fn with_lora(
        self,
        name: &str,
        shape: LoraShape,
        parameters: &mut Parameters,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self> {
        let Weight::Frozen(weight) = &self.weight else { return Ok(self) };
        let (out, input) = weight.dims2()?;
        let bound = 1.0 / (input as f64).sqrt();
        let a = (0..shape.rank * input).map(|_| ((uniform(rng) * 2.0 - 1.0) * bound) as f32).collect();
        let a =
            parameters.add(format!("{name}.lora_A.weight"), Tensor::from_vec(a, (shape.rank, input), &Device::Cpu)?);
        let b = parameters
            .add(format!("{name}.lora_B.weight"), Tensor::zeros((out, shape.rank), DType::F32, &Device::Cpu)?);
        Ok(Self { lora: Some(LoraPair { a, b, shape }), ..self })
    }

    /// The weight (out, in).
    pub(super) fn weight<'a>(&'a self, parameters: &'a Parameters) -> &'a Tensor {
        match &self.weight {
            Weight::Frozen(weight) => weight,
            Weight::Trained(id) => parameters.get(*id),
        }
    }

    /// Where the weight's gradient goes, if it is trained.
    pub(super) fn trained_id(&self) -> Option<ParameterId> {
        match self.weight {
            Weight::Frozen(_) => None,
            Weight::Trained(id) => Some(id),
        }
    }

    /// Forward: adds x·Wᵀ (and the LoRA update) to `into`, (N, out). Without a key there is no dropout.
    pub(super) fn forward_into(&self, into: Sum, x: &Tensor, pass: &Pass<'_>) -> Result<Sum> {
        let sum = into.add(Plain(x), Transposed(self.weight(pass.parameters)), 1.0)?;
        let Some(lora) = self.lora else { return Ok(sum) };
        let dropped = lora.drop(x, pass.key)?;
        let inner = lora.inner(&dropped, pass)?;
        sum.add(Plain(&inner), Transposed(pass.parameters.get(lora.b)), lora.shape.scale)
    }

    /// Forward: x (N, in) to (N, out).
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let out = self.weight(pass.parameters).dim(0)?;
        self.forward_into(pass.compute.sum(x.dim(0)?, out)?, x, pass)?.into_tensor()
    }

    /// Whether its backward reads the forward's input.
    pub(super) fn has_gradient(&self) -> bool {
        self.lora.is_some() || self.trained_id().is_some()
    }

    /// Backward: adds the gradients of what is trained, and dx to `into`, (N, in). `x` is the forward's input, needed where
    /// [`Linear::has_gradient`].
    pub(super) fn backward_into(
        &self,
        into: Sum,
        dy: &Tensor,
        x: Option<&Tensor>,
        pass: &Pass<'_>,
        gradients: &mut Gradients,
    ) -> Result<Sum> {
        let Pass { compute, parameters, key, .. } = *pass;
        let weight = self.weight(parameters);
        let sum = into.add(Plain(dy), Plain(weight), 1.0)?;
        let Some(x) = x.filter(|_| self.has_gradient()) else { return Ok(sum) };
        if let Weight::Trained(id) = self.weight {
            gradients.add_product(id, compute, (Transposed(dy), Plain(x)), 1.0)?;
        }
        let Some(lora) = self.lora else { return Ok(sum) };
        let (a, b) = (parameters.get(lora.a), parameters.get(lora.b));
        let dropped = lora.drop(x, key)?;
        let inner = lora.inner(&dropped, pass)?;
        gradients.add_product(lora.b, compute, (Transposed(dy), Plain(&inner)), lora.shape.scale)?;
        let d_inner = compute.sum(x.dim(0)?, lora.shape.rank)?;
        let d_inner = d_inner.add(Plain(dy), Plain(b), lora.shape.scale)?.into_tensor()?;
        gradients.add_product(lora.a, compute, (Transposed(&d_inner), Plain(&dropped)), 1.0)?;
        if key.is_some() && lora.shape.dropout > 0.0 {
            let (n, d) = x.dims2()?;
            let masked = compute.sum(n, d)?.add(Plain(&d_inner), Plain(a), 1.0)?.into_tensor()?;
            return compute.sum_from(&(sum.into_tensor()? + lora.drop(&masked, key)?)?);
        }
        sum.add(Plain(&d_inner), Plain(a), 1.0)
    }
}

impl LoraPair {
    /// x·Aᵀ, (N, r).
    fn inner(self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let sum = pass.compute.sum(x.dim(0)?, self.shape.rank)?;
        sum.add(Plain(x), Transposed(pass.parameters.get(self.a)), 1.0)?.into_tensor()
    }

    /// x with some of its numbers zeroed and the rest scaled up; its own backward, for the same key.
    fn drop(self, x: &Tensor, key: Option<DropoutKey>) -> Result<Tensor> {
        let Some(key) = key.filter(|_| self.shape.dropout > 0.0) else { return Ok(x.clone()) };
        let mut rng = ChaCha8Rng::seed_from_u64(key.seed);
        // One stream per pass and layer; a parameter's id is below 2^20 in any model we load.
        rng.set_stream(key.pass << 20 | self.a.index() as u64);
        let keep = 1.0 - self.shape.dropout;
        let (n, d) = x.dims2()?;
        let mask = (0..n * d).map(|_| if uniform(&mut rng) < keep { (1.0 / keep) as f32 } else { 0.0 }).collect();
        x * Tensor::from_vec(mask, (n, d), x.device())?.to_dtype(x.dtype())?
    }
}

/// A number in [0, 1) from the upper 53 bits of the next 64.
fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}
