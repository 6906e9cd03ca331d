//! The functions between the two halves of a feed-forward layer, with a gate or without.

#![expect(clippy::inline_always, reason = "a loop is compiled for the processor only where all of it is inlined")]

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::host::{CHUNK, exp, for_row_chunks, host, normal, sigmoid, tanh, vectorised, written, written_pair};
use crate::model::ops::Activation;

/// √(2/π).
const ROOT: f32 = 0.797_884_6;
/// The cubic term of GELU's approximation.
const CUBE: f32 = 0.044_715;

/// An [`Activation`], known when its loop is compiled.
trait Function {
    /// f(x) and f′(x).
    fn at(x: f32) -> (f32, f32);
}

struct Silu;
struct Gelu;
struct GeluTanh;

impl Function for Silu {
    #[inline(always)]
    fn at(x: f32) -> (f32, f32) {
        let s = sigmoid(x);
        (x * s, s * (1.0 + x * (1.0 - s)))
    }
}

impl Function for Gelu {
    #[inline(always)]
    fn at(x: f32) -> (f32, f32) {
        // φ(x) = e^(−x²/2)/√(2π).
        let (cumulative, density) = (normal(x), 0.398_942_3 * exp(-0.5 * x * x));
        (x * cumulative, x.mul_add(density, cumulative))
    }
}

impl Function for GeluTanh {
    #[inline(always)]
    fn at(x: f32) -> (f32, f32) {
        let square = x * x;
        let t = tanh(ROOT * x * CUBE.mul_add(square, 1.0));
        let inner = ROOT * (3.0 * CUBE).mul_add(square, 1.0);
        let half = 0.5 * (1.0 + t);
        (x * half, half + 0.5 * x * (1.0 - t * t) * inner)
    }
}

/// Calls a generic function for the activation's type.
macro_rules! for_each_function {
    ($f:expr, $function:ident($($arg:expr),*)) => {
        match $f {
            Activation::Silu => $function::<Silu>($($arg),*),
            Activation::Gelu => $function::<Gelu>($($arg),*),
            Activation::GeluTanh => $function::<GeluTanh>($($arg),*),
        }
    };
}

/// f(x).
pub(super) fn activated(x: &Tensor, f: Activation) -> Result<Tensor> {
    let shape = x.dims2()?;
    let x = host::<f32>(x)?;
    let x = x.as_slice();
    written(shape, |y| {
        for_row_chunks(y, 1, 1, |first, y| for_each_function!(f, values(y, &x[first..])));
    })
}

vectorised! {
    fn values<F: Function>(y: &mut [f32], x: &[f32]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = F::at(*x).0);
    }
}

/// dx.
pub(super) fn activated_backward(dy: &Tensor, x: &Tensor, f: Activation) -> Result<Tensor> {
    let shape = x.dims2()?;
    let (dy, x) = (host::<f32>(dy)?, host::<f32>(x)?);
    let (dy, x) = (dy.as_slice(), x.as_slice());
    written(shape, |dx| {
        for_row_chunks(dx, 1, 1, |first, dx| for_each_function!(f, gradients(dx, &dy[first..], &x[first..])));
    })
}

vectorised! {
    fn gradients<F: Function>(dx: &mut [f32], dy: &[f32], x: &[f32]) {
        for ((dx, dy), x) in dx.iter_mut().zip(dy).zip(x) {
            *dx = dy * F::at(*x).1;
        }
    }
}

/// f(gate)·up.
pub(super) fn gated(gate: &Tensor, up: &Tensor, f: Activation) -> Result<Tensor> {
    let shape = gate.dims2()?;
    let (gate, up) = (host::<f32>(gate)?, host::<f32>(up)?);
    let (gate, up) = (gate.as_slice(), up.as_slice());
    written(shape, |y| {
        for_row_chunks(y, 1, 1, |first, y| for_each_function!(f, gated_values(y, &gate[first..], &up[first..])));
    })
}

vectorised! {
    fn gated_values<F: Function>(y: &mut [f32], gate: &[f32], up: &[f32]) {
        for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
            *y = F::at(*gate).0 * up;
        }
    }
}

/// (dgate, dup).
pub(super) fn gated_backward(dy: &Tensor, gate: &Tensor, up: &Tensor, f: Activation) -> Result<(Tensor, Tensor)> {
    let shape = gate.dims2()?;
    let (dy, gate, up) = (host::<f32>(dy)?, host::<f32>(gate)?, host::<f32>(up)?);
    let (dy, gate, up) = (dy.as_slice(), gate.as_slice(), up.as_slice());
    written_pair(shape, shape, |d_gate, d_up| {
        let chunks = d_gate.par_chunks_mut(CHUNK).zip(d_up.par_chunks_mut(CHUNK)).enumerate();
        chunks.for_each(|(i, (d_gate, d_up))| {
            let first = i * CHUNK;
            for_each_function!(f, gated_gradients((d_gate, d_up), &dy[first..], &gate[first..], &up[first..]));
        });
    })
}

vectorised! {
    fn gated_gradients<F: Function>(gradients: (&mut [f32], &mut [f32]), dy: &[f32], gate: &[f32], up: &[f32]) {
        let (d_gate, d_up) = gradients;
        for ((((d_gate, d_up), dy), gate), up) in d_gate.iter_mut().zip(d_up).zip(dy).zip(gate).zip(up) {
            let (value, slope) = F::at(*gate);
            *d_up = dy * value;
            *d_gate = dy * up * slope;
        }
    }
}
