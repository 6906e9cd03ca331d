//! A linear layer y = x·Wᵀ + b whose weight is frozen or trained, with or without LoRA beside it.

use candle_core::{DType, Device, Result, Tensor};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use super::{
    block::Pass,
    norm::Vector,
    ops::{
        Factor::{self, Plain, Transposed},
        Sum,
    },
    parameters::{Gradients, ParameterId, Parameters},
    quantised::Quantised,
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
    Quantised(Quantised),
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
    bias: Option<Vector>,
    lora: Option<LoraPair>,
}

impl Linear {
    /// A frozen weight (out, in).
    pub(super) fn frozen(weight: Tensor) -> Self {
        Self { weight: Weight::Frozen(weight), bias: None, lora: None }
    }

    /// A frozen weight that stays quantised.
    pub(super) fn quantised(weight: Quantised) -> Self {
        Self { weight: Weight::Quantised(weight), bias: None, lora: None }
    }

    /// A trained weight.
    pub(super) fn trained(id: ParameterId) -> Self {
        Self { weight: Weight::Trained(id), bias: None, lora: None }
    }

    /// Adds a bias (out).
    pub(super) fn with_bias(self, bias: Vector) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// Adds a LoRA pair: A (r, in) uniform as PEFT draws it (Kaiming with a = √5: ±1/√in), B (out, r) zero.
    pub(super) fn with_lora(
        self,
        name: &str,
        shape: LoraShape,
        parameters: &mut Parameters,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self> {
        let ((out, input), device) = match &self.weight {
            Weight::Frozen(weight) => (weight.dims2()?, weight.device().clone()),
            Weight::Quantised(weight) => (weight.shape().into(), Device::Cpu),
            Weight::Trained(_) => return Ok(self),
        };
        let bound = 1.0 / (input as f64).sqrt();
        let a = (0..shape.rank * input).map(|_| ((uniform(rng) * 2.0 - 1.0) * bound) as f32).collect();
        let a = parameters.add(format!("{name}.lora_A.weight"), Tensor::from_vec(a, (shape.rank, input), &device)?);
        let b = parameters.add(format!("{name}.lora_B.weight"), Tensor::zeros((out, shape.rank), DType::F32, &device)?);
        Ok(Self { lora: Some(LoraPair { a, b, shape }), ..self })
    }

    /// The weight (out, in); unpacked, if it is kept quantised.
    pub(super) fn weight(&self, parameters: &Parameters) -> Result<Tensor> {
        match &self.weight {
            Weight::Frozen(weight) => Ok(weight.clone()),
            Weight::Quantised(weight) => weight.unpack(),
            Weight::Trained(id) => Ok(parameters.get(*id).clone()),
        }
    }

    /// Some rows of the weight: of an embedding.
    pub(super) fn rows(&self, rows: &[u32], parameters: &Parameters) -> Result<Tensor> {
        match &self.weight {
            Weight::Quantised(weight) => weight.rows(rows),
            Weight::Frozen(_) | Weight::Trained(_) => {
                let weight = self.weight(parameters)?;
                weight.index_select(&Tensor::new(rows, weight.device())?, 0)
            }
        }
    }

    /// Rows of the weight: numbers of an output.
    fn n_out(&self, parameters: &Parameters) -> Result<usize> {
        match &self.weight {
            Weight::Frozen(weight) => weight.dim(0),
            Weight::Quantised(weight) => Ok(weight.shape()[0]),
            Weight::Trained(id) => parameters.get(*id).dim(0),
        }
    }

    /// Where the weight's gradient goes, if it is trained.
    pub(super) fn trained_id(&self) -> Option<ParameterId> {
        match &self.weight {
            Weight::Frozen(_) | Weight::Quantised(_) => None,
            Weight::Trained(id) => Some(*id),
        }
    }

    /// Forward: adds x·Wᵀ + b (and the LoRA update) to `into`, (N, out). Without a key there is no dropout.
    pub(super) fn forward_into(&self, into: Sum, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let [y] = Self::forward_sums([self], [into], x, pass)?;
        Ok(y)
    }

    /// Forward of several layers with the same input: x (N, in) to (N, out) each.
    pub(super) fn forward_each<const N: usize>(layers: [&Self; N], x: &Tensor, pass: &Pass<'_>) -> Result<[Tensor; N]> {
        let n = x.dim(0)?;
        let sums = layers.iter().map(|layer| pass.compute.sum(n, layer.n_out(pass.parameters)?));
        let sums: [Sum; N] = sums.collect::<Result<Vec<_>>>()?.try_into().expect("as many as layers");
        Self::forward_sums(layers, sums, x, pass)
    }

    fn forward_sums<const N: usize>(
        layers: [&Self; N],
        mut sums: [Sum; N],
        x: &Tensor,
        pass: &Pass<'_>,
    ) -> Result<[Tensor; N]> {
        let Pass { compute, parameters, .. } = *pass;
        // x·Wᵀ and x·Aᵀ in one go; A has an input of its own where some of it is dropped.
        let mut inner = Vec::new();
        for layer in layers {
            inner.push(match layer.lora {
                Some(lora) if !lora.drops(pass) => Some(compute.sum(x.dim(0)?, lora.shape.rank)?),
                _ => None,
            });
        }
        let mut into: Vec<&mut Sum> = sums.iter_mut().collect();
        let weights = layers.iter().map(|layer| layer.weight(parameters)).collect::<Result<Vec<_>>>()?;
        let mut factors: Vec<Factor<'_>> = weights.iter().map(Transposed).collect();
        for (layer, inner) in layers.iter().zip(&mut inner) {
            if let (Some(lora), Some(inner)) = (layer.lora, inner) {
                into.push(inner);
                factors.push(Transposed(parameters.get(lora.a)));
            }
        }
        compute.add_each(&mut into, Plain(x), &factors)?;
        let mut outputs = Vec::with_capacity(N);
        for ((layer, sum), inner) in layers.iter().zip(sums).zip(inner) {
            let sum = match layer.lora {
                None => sum,
                Some(lora) => {
                    let inner = match inner {
                        Some(inner) => inner.into_tensor()?,
                        None => lora.inner(&lora.drop(x, pass.key)?, pass)?,
                    };
                    sum.add(Plain(&inner), Transposed(parameters.get(lora.b)), lora.shape.scale)?
                }
            };
            let y = sum.into_tensor()?;
            if let Some(bias) = &layer.bias {
                compute.add_bias(&y, bias.get(parameters))?;
            }
            outputs.push(y);
        }
        Ok(outputs.try_into().expect("as many as layers"))
    }

    /// Whether its backward reads the forward's input.
    pub(super) fn has_gradient(&self) -> bool {
        self.lora.is_some() || self.trained_id().is_some()
    }

    /// Backward: adds the gradients of what is trained, and dx to `into`, (N, in). `x` is the forward's input, needed where
    /// [`Linear::has_gradient`].
    pub(super) fn backward_into(
        &self,
        mut into: Sum,
        dy: &Tensor,
        x: Option<&Tensor>,
        pass: &Pass<'_>,
        gradients: &mut Gradients,
    ) -> Result<Sum> {
        let Pass { compute, parameters, .. } = *pass;
        let weight = &self.weight(parameters)?;
        if let Some(bias) = &self.bias {
            bias.add_gradient(gradients, || compute.column_sums(dy))?;
        }
        if let (Some(x), Weight::Trained(id)) = (x, &self.weight) {
            gradients.add_product(*id, compute, (Transposed(dy), Plain(x)), 1.0)?;
        }
        let (Some(x), Some(lora)) = (x, self.lora) else { return into.add(Plain(dy), Plain(weight), 1.0) };
        let (a, b, scale) = (parameters.get(lora.a), parameters.get(lora.b), lora.shape.scale);
        let mut d_inner = compute.sum(x.dim(0)?, lora.shape.rank)?;
        compute.add_each(&mut [&mut into, &mut d_inner], Plain(dy), &[Plain(weight), Plain(b)])?;
        let d_inner = d_inner.into_tensor()?;
        let dropped = lora.drop(x, pass.key)?;
        let inner = lora.inner(&dropped, pass)?;
        gradients.add_product(lora.b, compute, (Transposed(dy), Plain(&inner)), scale)?;
        gradients.add_product(lora.a, compute, (Transposed(&d_inner), Plain(&dropped)), scale)?;
        if lora.drops(pass) {
            let (n, d) = x.dims2()?;
            let masked = compute.sum(n, d)?.add(Plain(&d_inner), Plain(a), scale)?.into_tensor()?;
            let sum = into.into_tensor()?;
            compute.add_in_place(&sum, &lora.drop(&masked, pass.key)?)?;
            return Ok(compute.sum_onto(sum));
        }
        into.add(Plain(&d_inner), Plain(a), scale)
    }
}

impl LoraPair {
    /// Whether some of its input is dropped in this pass.
    fn drops(self, pass: &Pass<'_>) -> bool {
        pass.key.is_some() && self.shape.dropout > 0.0
    }

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
