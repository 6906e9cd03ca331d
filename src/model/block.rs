//! One decoder block: RMSNorm, rotary grouped-query attention, RMSNorm, SwiGLU, each added to what went in.

use candle_core::{Result, Tensor};

use super::{
    LlamaConfig,
    layout::Packed,
    linear::{DropoutKey, Linear},
    ops::{Attention, Compute, RopeTable},
    parameters::{Gradients, ParameterId, Parameters},
};

/// What every layer of one pass over a batch reads.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    /// Where and how it is computed.
    pub(super) compute: &'a Compute,
    /// The model's shape.
    pub(super) config: &'a LlamaConfig,
    /// What is trained.
    pub(super) parameters: &'a Parameters,
    /// Who sees whom.
    pub(super) batch: &'a Packed,
    /// The positions' angles.
    pub(super) rope: &'a RopeTable,
    /// Dropout is drawn under this key; without one there is none.
    pub(super) key: Option<DropoutKey>,
}

/// A normalisation's weight.
#[derive(Debug, Clone)]
pub(super) enum Norm {
    Frozen(Tensor),
    Trained(ParameterId),
}

impl Norm {
    pub(super) fn weight<'a>(&'a self, parameters: &'a Parameters) -> &'a Tensor {
        match self {
            Self::Frozen(weight) => weight,
            Self::Trained(id) => parameters.get(*id),
        }
    }

    /// Adds the weight's gradient if it is trained; returns dL/dx, `residual` included.
    pub(super) fn backward(
        &self,
        dy: &Tensor,
        (x, inverse): (&Tensor, &Tensor),
        residual: Option<&Tensor>,
        pass: &Pass<'_>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        if let Self::Trained(id) = self {
            gradients.add(*id, pass.compute.rms_norm_weight_gradient(dy, x, inverse)?)?;
        }
        pass.compute.rms_norm_backward(dy, x, self.weight(pass.parameters), inverse, residual)
    }
}

/// Its weights.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) norms: [Norm; 2],
    pub(super) q: Linear,
    pub(super) k: Linear,
    pub(super) v: Linear,
    pub(super) o: Linear,
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

/// What a block keeps for its backward; norms' outputs and the gated product are cheaper to compute again.
#[derive(Debug)]
pub(super) struct BlockTape {
    inverse: [Tensor; 2],
    joined: Tensor,
    attended: Attention,
    middle: Tensor,
    gate: Tensor,
    up: Tensor,
}

impl BlockTape {
    /// Rotated q, k, v of all tokens: what sampling keeps.
    pub(super) fn into_joined(self) -> Tensor {
        self.joined
    }
}

impl Block {
    /// Forward: y (N, D), and what the backward needs.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<(Tensor, BlockTape)> {
        let Pass { compute, config, batch, .. } = *pass;
        let (normed, inverse_1) = self.norm(0, x, pass)?;
        let joined = self.joined(&normed, pass)?;
        let attended = compute.attention(&joined, &batch.sequences, config.heads, compute.dtype())?;
        let middle = self.o.forward_into(compute.sum_from(x)?, &attended.output, pass)?;
        let (normed, inverse_2) = self.norm(1, &middle, pass)?;
        let [gate, up] = Linear::forward_each([&self.gate, &self.up], &normed, pass)?;
        let product = compute.swiglu(&gate, &up)?;
        let y = self.down.forward_into(compute.sum_from(&middle)?, &product, pass)?;
        Ok((y, BlockTape { inverse: [inverse_1, inverse_2], joined, attended, middle, gate, up }))
    }

    /// Forward of one token (1, D) after those in `joined`, which it is added to.
    pub(super) fn forward_last(&self, x: &Tensor, joined: &mut Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let Pass { compute, config, .. } = *pass;
        let (normed, _) = self.norm(0, x, pass)?;
        *joined = Tensor::cat(&[&*joined, &self.joined(&normed, pass)?], 0)?;
        let attended = compute.attention_last(joined, config.heads, compute.dtype())?;
        let middle = self.o.forward_into(compute.sum_from(x)?, &attended, pass)?;
        let (normed, _) = self.norm(1, &middle, pass)?;
        let [gate, up] = Linear::forward_each([&self.gate, &self.up], &normed, pass)?;
        let product = compute.swiglu(&gate, &up)?;
        self.down.forward_into(compute.sum_from(&middle)?, &product, pass)
    }

    /// Returns dL/dx of the block's input `x`.
    pub(super) fn backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        tape: BlockTape,
        pass: &Pass<'_>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let Pass { compute, config, rope, batch, .. } = *pass;
        let (n, d) = x.dims2()?;
        let BlockTape { inverse: [inverse_1, inverse_2], joined, attended, middle, gate, up } = tape;
        let product = if self.down.has_gradient() { Some(compute.swiglu(&gate, &up)?) } else { None };
        let d_product = compute.sum(n, config.intermediate_size)?;
        let d_product = self.down.backward_into(d_product, dy, product.as_ref(), pass, gradients)?.into_tensor()?;
        let (d_gate, d_up) = compute.swiglu_backward(&d_product, &gate, &up)?;
        let normed = self.norm_again(1, (&middle, &inverse_2), &[&self.gate, &self.up], pass)?;
        let d_normed = self.gate.backward_into(compute.sum(n, d)?, &d_gate, normed.as_ref(), pass, gradients)?;
        let d_normed = self.up.backward_into(d_normed, &d_up, normed.as_ref(), pass, gradients)?.into_tensor()?;
        let d_middle = self.norms[1].backward(&d_normed, (&middle, &inverse_2), Some(dy), pass, gradients)?;

        let d_output = compute.sum(n, config.heads.q_width())?;
        let d_output = self.o.backward_into(d_output, &d_middle, Some(&attended.output), pass, gradients)?;
        let d_output = d_output.into_tensor()?;
        let shape = (config.heads, compute.dtype());
        let d_joined = compute.attention_backward(&d_output, &joined, &attended, &batch.sequences, shape)?;
        let (dq, dk, dv) = compute.split_rotated_back(&d_joined, config.heads, rope)?;
        let normed = self.norm_again(0, (x, &inverse_1), &[&self.q, &self.k, &self.v], pass)?;
        let d_normed = self.q.backward_into(compute.sum(n, d)?, &dq, normed.as_ref(), pass, gradients)?;
        let d_normed = self.k.backward_into(d_normed, &dk, normed.as_ref(), pass, gradients)?;
        let d_normed = self.v.backward_into(d_normed, &dv, normed.as_ref(), pass, gradients)?.into_tensor()?;
        self.norms[0].backward(&d_normed, (x, &inverse_1), Some(&d_middle), pass, gradients)
    }

    /// Rotated q, k, v.
    fn joined(&self, normed: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let [q, k, v] = Linear::forward_each([&self.q, &self.k, &self.v], normed, pass)?;
        pass.compute.join_rotated(&q, &k, &v, pass.config.heads, pass.rope)
    }

    fn norm(&self, i: usize, x: &Tensor, pass: &Pass<'_>) -> Result<(Tensor, Tensor)> {
        pass.compute.rms_norm(x, self.norms[i].weight(pass.parameters), pass.config.rms_norm_eps)
    }

    /// A norm's output once more, if one of the layers behind it has a gradient to make of it.
    fn norm_again(
        &self,
        i: usize,
        (x, inverse): (&Tensor, &Tensor),
        layers: &[&Linear],
        pass: &Pass<'_>,
    ) -> Result<Option<Tensor>> {
        if !layers.iter().any(|layer| layer.has_gradient()) {
            return Ok(None);
        }
        pass.compute.rms_norm_again(x, self.norms[i].weight(pass.parameters), inverse).map(Some)
    }
}
