//! The gated activation of the Llama family: SiLU(gate) ⊙ up (arXiv 2002.05202).

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::host::{exp, host, tensor};

/// Numbers per task: enough that starting the task costs nothing.
const CHUNK: usize = 1 << 14;

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Forward. `gate` and `up` (N, I); returns gate·σ(gate)·up (N, I).
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let shape = gate.dims2()?;
    let (gate, up) = (host(gate)?, host(up)?);
    let mut y = vec![0f32; shape.0 * shape.1];
    y.par_chunks_mut(CHUNK).zip(gate.as_slice().par_chunks(CHUNK)).zip(up.as_slice().par_chunks(CHUNK)).for_each(
        |((y, gate), up)| {
            for ((y, &gate), up) in y.iter_mut().zip(gate).zip(up) {
                *y = gate * sigmoid(gate) * up;
            }
        },
    );
    tensor(y, shape)
}

/// Backward. Returns (dgate, dup), both (N, I); SiLU'(g) = σ(g)·(1 + g·(1 − σ(g))).
pub fn swiglu_backward(dy: &Tensor, gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)> {
    let shape = gate.dims2()?;
    let (dy, gate, up) = (host(dy)?, host(gate)?, host(up)?);
    let (mut dgate, mut dup) = (vec![0f32; shape.0 * shape.1], vec![0f32; shape.0 * shape.1]);
    dgate
        .par_chunks_mut(CHUNK)
        .zip(dup.par_chunks_mut(CHUNK))
        .zip(dy.as_slice().par_chunks(CHUNK))
        .zip(gate.as_slice().par_chunks(CHUNK))
        .zip(up.as_slice().par_chunks(CHUNK))
        .for_each(|((((dgate, dup), dy), gate), up)| {
            for ((((dgate, dup), dy), &gate), up) in dgate.iter_mut().zip(dup).zip(dy).zip(gate).zip(up) {
                let s = sigmoid(gate);
                *dup = dy * gate * s;
                *dgate = dy * up * s * (1.0 + gate * (1.0 - s));
            }
        });
    Ok((tensor(dgate, shape)?, tensor(dup, shape)?))
}
