//! The attention half of a block: queries, keys and values out of one layer or three, normalised or not, turned by their positions.

use candle_core::{Result, Tensor};

use super::{
    block::Pass,
    linear::Linear,
    norm::Norm,
    ops::{Attention, AttentionShape, Heads, Sum},
    parameters::Gradients,
};

/// The layers that make queries, keys and values.
#[derive(Debug, Clone)]
pub(super) enum Qkv {
    /// One each.
    Separate(Box<[Linear; 3]>),
    /// One for all: all queries, all keys, all values.
    Fused(Linear),
    /// One for all: head by head.
    FusedByHead(Linear),
}

/// Attention's layers.
#[derive(Debug, Clone)]
pub(super) struct AttentionLayers {
    pub(super) qkv: Qkv,
    /// Of each head's query and key.
    pub(super) norms: Option<[Norm; 2]>,
    pub(super) o: Linear,
    pub(super) shape: AttentionShape,
    /// Which of the model's ropes.
    pub(super) rope: usize,
}

/// What the backward needs.
#[derive(Debug)]
pub(super) struct AttentionTape {
    pub(super) joined: Tensor,
    attended: Attention,
    normed: Option<NormedHeads>,
}

/// Queries and keys as they were before their norms, (N·heads, S), and what those need of them.
#[derive(Debug)]
struct NormedHeads {
    raw: [Tensor; 2],
    inverse: [Tensor; 2],
}

impl AttentionLayers {
    /// Adds attention of all to all that each sees to `into`, (N, D). `x` (N, D) is normalised.
    pub(super) fn forward(&self, x: &Tensor, into: Sum, pass: &Pass<'_>) -> Result<(Tensor, AttentionTape)> {
        let (joined, normed) = self.joined(x, pass)?;
        let attended = pass.compute.attention(&joined, &pass.batch.sequences, self.shape)?;
        let y = self.o.forward_into(into, &attended.output, pass)?;
        Ok((y, AttentionTape { joined, attended, normed }))
    }

    /// The same of one token (1, D) after those in `before`, which it is added to.
    pub(super) fn forward_last(&self, x: &Tensor, into: Sum, before: &mut Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        *before = Tensor::cat(&[&*before, &self.joined(x, pass)?.0], 0)?;
        let attended = pass.compute.attention_last(before, self.shape)?;
        self.o.forward_into(into, &attended, pass)
    }

    /// Whether the backward reads the forward's input.
    pub(super) fn has_gradient(&self) -> bool {
        match &self.qkv {
            Qkv::Separate(layers) => layers.iter().any(Linear::has_gradient),
            Qkv::Fused(layer) | Qkv::FusedByHead(layer) => layer.has_gradient(),
        }
    }

    /// Returns dL/dx of the input `x`, (N, D), which is needed where [`Self::has_gradient`].
    pub(super) fn backward(
        &self,
        dy: &Tensor,
        x: Option<&Tensor>,
        tape: &AttentionTape,
        pass: &Pass<'_>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let (compute, heads) = (pass.compute, self.shape.heads);
        let n = dy.dim(0)?;
        let d_output = compute.sum(n, heads.q_width())?;
        let d_output = self.o.backward_into(d_output, dy, Some(&tape.attended.output), pass, gradients)?;
        let d_output = d_output.into_tensor()?;
        let sequences = &pass.batch.sequences;
        let d_joined = compute.attention_backward(&d_output, &tape.joined, &tape.attended, sequences, self.shape)?;
        let (mut dq, mut dk, dv) = compute.split_rotated_back(&d_joined, heads, &pass.ropes[self.rope])?;
        if let (Some(norms), Some(NormedHeads { raw, inverse })) = (&self.norms, &tape.normed) {
            for (i, gradient) in [&mut dq, &mut dk].into_iter().enumerate() {
                let by_head = gradient.reshape(((), heads.size))?;
                let d_raw = norms[i].backward(&by_head, (&raw[i], &inverse[i]), None, pass, gradients)?;
                *gradient = d_raw.reshape(gradient.shape())?;
            }
        }
        let mut dx = compute.sum(n, dy.dim(1)?)?;
        match &self.qkv {
            Qkv::Separate(layers) => {
                for (layer, gradient) in layers.iter().zip([&dq, &dk, &dv]) {
                    dx = layer.backward_into(dx, gradient, x, pass, gradients)?;
                }
            }
            Qkv::Fused(layer) => {
                dx = layer.backward_into(dx, &Tensor::cat(&[dq, dk, dv], 1)?, x, pass, gradients)?;
            }
            Qkv::FusedByHead(layer) => {
                dx = layer.backward_into(dx, &side_by_side([dq, dk, dv], heads)?, x, pass, gradients)?;
            }
        }
        dx.into_tensor()
    }

    /// Queries, keys and values in one tensor, turned.
    fn joined(&self, x: &Tensor, pass: &Pass<'_>) -> Result<(Tensor, Option<NormedHeads>)> {
        let heads = self.shape.heads;
        let [mut q, mut k, v] = match &self.qkv {
            Qkv::Separate(layers) => Linear::forward_each(layers.each_ref(), x, pass)?,
            Qkv::Fused(layer) => columns(&one(layer, x, pass)?, heads)?,
            Qkv::FusedByHead(layer) => head_columns(&one(layer, x, pass)?, heads)?,
        };
        let mut kept = None;
        if let Some(norms) = &self.norms {
            let raw = [q.reshape(((), heads.size))?, k.reshape(((), heads.size))?];
            let (normed_q, inverse_q) = norms[0].forward(&raw[0], pass)?;
            let (normed_k, inverse_k) = norms[1].forward(&raw[1], pass)?;
            (q, k) = (normed_q.reshape(q.shape())?, normed_k.reshape(k.shape())?);
            kept = Some(NormedHeads { raw, inverse: [inverse_q, inverse_k] });
        }
        Ok((pass.compute.join_rotated(&q, &k, &v, heads, &pass.ropes[self.rope])?, kept))
    }
}

fn one(layer: &Linear, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
    let [y] = Linear::forward_each([layer], x, pass)?;
    Ok(y)
}

/// Queries, keys and values out of (N, (H+2K)·S).
fn columns(fused: &Tensor, heads: Heads) -> Result<[Tensor; 3]> {
    let (q, kv) = (heads.q_width(), heads.kv_width());
    let part = |first, width| fused.narrow(1, first, width)?.contiguous();
    Ok([part(0, q)?, part(q, kv)?, part(q + kv, kv)?])
}

/// Queries, keys and values out of (N, H·3·S).
fn head_columns(fused: &Tensor, heads: Heads) -> Result<[Tensor; 3]> {
    let n = fused.dim(0)?;
    let by_head = fused.reshape((n, heads.query, 3, heads.size))?;
    let part = |i| by_head.narrow(2, i, 1)?.contiguous()?.reshape((n, heads.q_width()));
    Ok([part(0)?, part(1)?, part(2)?])
}

/// The inverse of [`head_columns`].
fn side_by_side(parts: [Tensor; 3], heads: Heads) -> Result<Tensor> {
    let n = parts[0].dim(0)?;
    let parts = parts.map(|part| part.reshape((n, heads.query, 1, heads.size)));
    let [q, k, v] = parts;
    Tensor::cat(&[q?, k?, v?], 2)?.reshape((n, 3 * heads.q_width()))
}
