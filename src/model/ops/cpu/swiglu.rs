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
        for_row_chunks(y, 1, |first, y| {
            let (gate, up) = (&gate[first..][..y.len()], &up[first..][..y.len()]);
            vectorised(|| {
                for ((y, &gate), up) in y.iter_mut().zip(gate).zip(up) {
                    *y = gate * sigmoid(gate) * up;
                }
            });
        });
    })
}

/// (dgate, dup).
pub(super) fn backward(dy: &Tensor, gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)> {
    let shape = gate.dims2()?;
    let (dy, gate, up) = (host::<f32>(dy)?, host::<f32>(gate)?, host::<f32>(up)?);
    let (dy, gate, up) = (dy.as_slice(), gate.as_slice(), up.as_slice());
    written_pair(shape, shape, |d_gate, d_up| {
        d_gate.par_chunks_mut(CHUNK).zip(d_up.par_chunks_mut(CHUNK)).enumerate().for_each(|(i, (d_gate, d_up))| {
            let range = i * CHUNK..i * CHUNK + d_gate.len();
            let (dy, gate, up) = (&dy[range.clone()], &gate[range.clone()], &up[range]);
            vectorised(|| {
                for ((((d_gate, d_up), dy), &gate), up) in d_gate.iter_mut().zip(d_up).zip(dy).zip(gate).zip(up) {
                    let s = sigmoid(gate);
                    *d_up = dy * gate * s;
                    *d_gate = dy * up * s * (1.0 + gate * (1.0 - s));
                }
            });
        });
    })
}
