//! The optimizer's arithmetic and the sums of gradients, on float32 tensors in place.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{
    host::{CHUNK, LANES, for_row_chunks, host, vectorised, write},
    rms_norm::add,
};
use crate::model::ops::AdamWStep;

/// Σ x² in f64: a sum per chunk, then the chunks' sums in order.
pub(super) fn squared_norm(x: &Tensor) -> Result<f64> {
    let x = host::<f32>(x)?;
    let sums: Vec<f64> = x.as_slice().par_chunks(CHUNK).map(square_sum).collect();
    Ok(sums.into_iter().sum())
}

vectorised! {
    fn square_sum(numbers: &[f32]) -> f64 {
        let mut sums = [0f64; LANES];
        let chunks = numbers.chunks_exact(LANES);
        let rest: f64 = chunks.remainder().iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        for chunk in chunks {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                *sum += f64::from(*x) * f64::from(*x);
            }
        }
        rest + sums.iter().sum::<f64>()
    }
}

/// `to += x`.
pub(super) fn add_in_place(to: &Tensor, x: &Tensor) -> Result<()> {
    let x = host::<f32>(x)?;
    let x = x.as_slice();
    write(to, |to| for_row_chunks(to, 1, 1, |first, to| add(to, &x[first..])))
}

/// `to[rows[i]] += x[i]`, one after the other.
pub(super) fn add_rows(to: &Tensor, rows: &[u32], x: &Tensor) -> Result<()> {
    let (_, d) = x.dims2()?;
    let x = host::<f32>(x)?;
    write(to, |to| {
        for (row, x) in rows.iter().zip(x.as_slice().chunks_exact(d)) {
            add(&mut to[*row as usize * d..][..d], x);
        }
    })
}

/// One step of one parameter.
pub(super) fn step(
    parameter: &Tensor,
    gradient: &Tensor,
    (first, second): (&Tensor, &Tensor),
    step: AdamWStep,
) -> Result<()> {
    let gradient = host::<f32>(gradient)?;
    let gradient = gradient.as_slice();
    write(parameter, |values| {
        write(first, |m| {
            write(second, |v| {
                values
                    .par_chunks_mut(CHUNK)
                    .zip(m.par_chunks_mut(CHUNK))
                    .zip(v.par_chunks_mut(CHUNK))
                    .zip(gradient.par_chunks(CHUNK))
                    .for_each(|(((values, m), v), gradient)| chunk(values, (m, v), gradient, step));
            })
        })
    })???;
    Ok(())
}

vectorised! {
    fn chunk(values: &mut [f32], moments: (&mut [f32], &mut [f32]), gradient: &[f32], step: AdamWStep) {
        for (((value, gradient), m), v) in values.iter_mut().zip(gradient).zip(moments.0).zip(moments.1) {
            let g = gradient * step.gradient_scale;
            *m += (1.0 - step.beta1) * (g - *m);
            *v = step.beta2 * *v + (1.0 - step.beta2) * g * g;
            let denominator = v.sqrt() / step.root_correction + step.epsilon;
            *value = *value * step.decay - step.step_size * *m / denominator;
        }
    }
}
