//! The functions between the two halves of a feed-forward layer.

use candle_core::{Result, Tensor};

use super::launch::{
    Argument::{self, Count, Int},
    Launch, unwritten,
};
use crate::model::ops::Activation;

pub(super) fn activated(x: &Tensor, f: Activation) -> Result<Tensor> {
    let (n, dtype) = (x.elem_count(), x.dtype());
    let y = unwritten(x.shape(), dtype, x.device())?;
    Launch::typed("activated", x)?.tensor(x, dtype)?.arguments(numbers(f, n)).tensor(&y, dtype)?.numbers(n)?;
    Ok(y)
}

pub(super) fn activated_backward(dy: &Tensor, x: &Tensor, f: Activation) -> Result<Tensor> {
    let (n, dtype) = (x.elem_count(), x.dtype());
    let dx = unwritten(x.shape(), dtype, x.device())?;
    Launch::typed("activated_backward", x)?
        .tensors([dy, x], dtype)?
        .arguments(numbers(f, n))
        .tensor(&dx, dtype)?
        .numbers(n)?;
    Ok(dx)
}

pub(super) fn gated(gate: &Tensor, up: &Tensor, f: Activation) -> Result<Tensor> {
    let (n, dtype) = (gate.elem_count(), gate.dtype());
    let y = unwritten(gate.shape(), dtype, gate.device())?;
    Launch::typed("gated", gate)?.tensors([gate, up], dtype)?.arguments(numbers(f, n)).tensor(&y, dtype)?.numbers(n)?;
    Ok(y)
}

pub(super) fn gated_backward(dy: &Tensor, gate: &Tensor, up: &Tensor, f: Activation) -> Result<(Tensor, Tensor)> {
    let (n, dtype) = (gate.elem_count(), gate.dtype());
    let d_gate = unwritten(gate.shape(), dtype, gate.device())?;
    let d_up = unwritten(gate.shape(), dtype, gate.device())?;
    Launch::typed("gated_backward", gate)?
        .tensors([dy, gate, up], dtype)?
        .arguments(numbers(f, n))
        .tensors([&d_gate, &d_up], dtype)?
        .numbers(n)?;
    Ok((d_gate, d_up))
}

/// The kernels' `ActivationKind`, and how many numbers there are.
fn numbers(f: Activation, n: usize) -> [Argument; 2] {
    let kind = match f {
        Activation::Silu => 0,
        Activation::Gelu => 1,
        Activation::GeluTanh => 2,
    };
    [Int(kind), Count(n as u64)]
}
