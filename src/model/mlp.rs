//! The feed-forward half of a block: with a gate, from two layers or one, or without.

use candle_core::{Result, Tensor};

use super::{
    block::Pass,
    linear::Linear,
    ops::{Activation, Sum},
    parameters::Gradients,
};

/// The layers before the activation.
#[derive(Debug, Clone)]
pub(super) enum Inner {
    /// f(gate) ⊙ up.
    Gated([Linear; 2]),
    /// Both from one layer, the gate's numbers first.
    Fused(Linear),
    /// f(up).
    Plain(Linear),
}

/// Its layers.
#[derive(Debug, Clone)]
pub(super) struct Mlp {
    pub(super) inner: Inner,
    pub(super) down: Linear,
    pub(super) activation: Activation,
}

/// What the backward needs.
#[derive(Debug)]
pub(super) enum MlpTape {
    /// Gate and up, (N, I) each.
    Gated(Tensor, Tensor),
    /// Up.
    Plain(Tensor),
}

impl Mlp {
    /// Adds to `into`, (N, D). `x` (N, D) is normalised.
    pub(super) fn forward(&self, x: &Tensor, into: Sum, pass: &Pass<'_>) -> Result<(Tensor, MlpTape)> {
        let tape = match &self.inner {
            Inner::Gated([gate, up]) => {
                let [gate, up] = Linear::forward_each([gate, up], x, pass)?;
                MlpTape::Gated(gate, up)
            }
            Inner::Fused(layer) => {
                let [both] = Linear::forward_each([layer], x, pass)?;
                let width = both.dim(1)? / 2;
                MlpTape::Gated(both.narrow(1, 0, width)?.contiguous()?, both.narrow(1, width, width)?.contiguous()?)
            }
            Inner::Plain(layer) => {
                let [up] = Linear::forward_each([layer], x, pass)?;
                MlpTape::Plain(up)
            }
        };
        let y = self.down.forward_into(into, &self.activated(&tape, pass)?, pass)?;
        Ok((y, tape))
    }

    /// Whether the backward reads the forward's input.
    pub(super) fn has_gradient(&self) -> bool {
        match &self.inner {
            Inner::Gated(layers) => layers.iter().any(Linear::has_gradient),
            Inner::Fused(layer) | Inner::Plain(layer) => layer.has_gradient(),
        }
    }

    /// Returns dL/dx of the input `x`, (N, D), which is needed where [`Self::has_gradient`].
    pub(super) fn backward(
        &self,
        dy: &Tensor,
        x: Option<&Tensor>,
        tape: &MlpTape,
        pass: &Pass<'_>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let compute = pass.compute;
        let (MlpTape::Gated(kept, _) | MlpTape::Plain(kept)) = tape;
        let (n, width) = kept.dims2()?;
        let activated = if self.down.has_gradient() { Some(self.activated(tape, pass)?) } else { None };
        let d_activated = compute.sum(n, width)?;
        let d_activated = self.down.backward_into(d_activated, dy, activated.as_ref(), pass, gradients)?;
        let d_activated = d_activated.into_tensor()?;
        let dx = compute.sum(n, dy.dim(1)?)?;
        let dx = match tape {
            MlpTape::Gated(gate, up) => {
                let (d_gate, d_up) = compute.gated_backward(&d_activated, gate, up, self.activation)?;
                match &self.inner {
                    Inner::Gated([gate, up]) => {
                        let dx = gate.backward_into(dx, &d_gate, x, pass, gradients)?;
                        up.backward_into(dx, &d_up, x, pass, gradients)?
                    }
                    Inner::Fused(layer) | Inner::Plain(layer) => {
                        layer.backward_into(dx, &Tensor::cat(&[d_gate, d_up], 1)?, x, pass, gradients)?
                    }
                }
            }
            MlpTape::Plain(up) => {
                let d_up = compute.activated_backward(&d_activated, up, self.activation)?;
                let (Inner::Plain(layer) | Inner::Fused(layer) | Inner::Gated([_, layer])) = &self.inner;
                layer.backward_into(dx, &d_up, x, pass, gradients)?
            }
        };
        dx.into_tensor()
    }

    fn activated(&self, tape: &MlpTape, pass: &Pass<'_>) -> Result<Tensor> {
        match tape {
            MlpTape::Gated(gate, up) => pass.compute.gated(gate, up, self.activation),
            MlpTape::Plain(up) => pass.compute.activated(up, self.activation),
        }
    }
}
