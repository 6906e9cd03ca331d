//! A linear layer y = x·Wᵀ whose weight is frozen or trained, with or without LoRA beside it.

use candle_core::{Result, Tensor};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use super::{
    ops::tensor,
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
        let a = parameters.add(format!("{name}.lora_A.weight"), tensor(a, (shape.rank, input))?);
        let b =
            parameters.add(format!("{name}.lora_B.weight"), tensor(vec![0.0; out * shape.rank], (out, shape.rank))?);
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

    /// Forward: x (N, in) to (N, out). Without a key there is no dropout.
    pub(super) fn forward(&self, x: &Tensor, parameters: &Parameters, key: Option<DropoutKey>) -> Result<Tensor> {
        let y = x.matmul(&self.weight(parameters).t()?)?;
        let Some(lora) = self.lora else { return Ok(y) };
        let dropped = lora.drop(x, key)?;
        let inner = dropped.matmul(&parameters.get(lora.a).t()?)?.affine(lora.shape.scale, 0.0)?;
        y + inner.matmul(&parameters.get(lora.b).t()?)?
    }

    /// Backward: adds the gradients of what is trained and returns dx (N, in). `x` is the forward's input.
    pub(super) fn backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        parameters: &Parameters,
        key: Option<DropoutKey>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let dx = dy.matmul(self.weight(parameters))?;
        if let Weight::Trained(id) = self.weight {
            gradients.add(id, dy.t()?.matmul(x)?)?;
        }
        let Some(lora) = self.lora else { return Ok(dx) };
        let (a, b) = (parameters.get(lora.a), parameters.get(lora.b));
        let dropped = lora.drop(x, key)?;
        let scaled = dy.affine(lora.shape.scale, 0.0)?;
        gradients.add(lora.b, scaled.t()?.matmul(&dropped.matmul(&a.t()?)?)?)?;
        let d_inner = scaled.matmul(b)?;
        gradients.add(lora.a, d_inner.t()?.matmul(&dropped)?)?;
        dx + lora.drop(&d_inner.matmul(a)?, key)?
    }
}

impl LoraPair {
    /// x with some of its numbers zeroed and the rest scaled up; its own backward, for the same key.
    fn drop(self, x: &Tensor, key: Option<DropoutKey>) -> Result<Tensor> {
        let Some(key) = key.filter(|_| self.shape.dropout > 0.0) else { return Ok(x.clone()) };
        let mut rng = ChaCha8Rng::seed_from_u64(key.seed);
        // One stream per pass and layer; a parameter's id is below 2^20 in any model we load.
        rng.set_stream(key.pass << 20 | self.a.index() as u64);
        let keep = 1.0 - self.shape.dropout;
        let (n, d) = x.dims2()?;
        let mask = (0..n * d).map(|_| if uniform(&mut rng) < keep { (1.0 / keep) as f32 } else { 0.0 }).collect();
        x * tensor(mask, (n, d))?
    }
}

/// A number in [0, 1) from the upper 53 bits of the next 64.
fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}
