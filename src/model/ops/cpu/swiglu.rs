//! The gated activation of the Llama family.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::host::{CHUNK, for_row_chunks, host, sigmoid, vectorised, written, written_pair};

/// gate·σ(gate)·up.
pub(super) fn forward(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let shape = gate.dims2()?;
    let (gate, up) = (host::<f32>(gate)?, host::<f32>(up)?);
    let (gate, up) = (gate.as_slice(), up.as_slice());
    written(shape, |y| {
        for_row_chunks(y, 1, 1, |first, y| multiply(y, &gate[first..], &up[first..]));
    })
}

vectorised! {
    fn multiply(y: &mut [f32], gate: &[f32], up: &[f32]) {
        for ((y, &gate), up) in y.iter_mut().zip(gate).zip(up) {
            *y = gate * sigmoid(gate) * up;
        }
    }
}

/// (dgate, dup).
pub(super) fn backward(dy: &Tensor, gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)> {
    let shape = gate.dims2()?;
    let (dy, gate, up) = (host::<f32>(dy)?, host::<f32>(gate)?, host::<f32>(up)?);
    let (dy, gate, up) = (dy.as_slice(), gate.as_slice(), up.as_slice());
    written_pair(shape, shape, |d_gate, d_up| {
        let chunks = d_gate.par_chunks_mut(CHUNK).zip(d_up.par_chunks_mut(CHUNK)).enumerate();
        chunks.for_each(|(i, (d_gate, d_up))| {
            let first = i * CHUNK;
            gradients(d_gate, d_up, &dy[first..], &gate[first..], &up[first..]);
        });
    })
}

vectorised! {
    fn gradients(d_gate: &mut [f32], d_up: &mut [f32], dy: &[f32], gate: &[f32], up: &[f32]) {
        for ((((d_gate, d_up), dy), &gate), up) in d_gate.iter_mut().zip(d_up).zip(dy).zip(gate).zip(up) {
            let s = sigmoid(gate);
            *d_up = dy * gate * s;
            *d_gate = dy * up * s * (1.0 + gate * (1.0 - s));
        }
    }
}
