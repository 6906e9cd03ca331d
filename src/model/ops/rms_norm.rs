//! Root-mean-square normalisation: y = w ⊙ x / √(mean(x²) + ε) (Zhang & Sennrich, arXiv 1910.07467).

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::host::{host, tensor};

/// Forward. `x` (N, D), `weight` (D). Returns y (N, D) and 1/√(mean(x²) + ε) per row, which the backward needs.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Vec<f32>)> {
    let (n, d) = x.dims2()?;
    let numbers = host(x)?;
    let inverse: Vec<f32> = numbers
        .as_slice()
        .par_chunks(d)
        .map(|row| {
            let sum: f32 = row.iter().map(|v| v * v).sum();
            (f64::from(sum) / d as f64 + eps).sqrt().recip() as f32
        })
        .collect();
    debug_assert_eq!(inverse.len(), n);
    let y = rms_norm_again(x, weight, &inverse)?;
    Ok((y, inverse))
}

/// y once more, from the kept 1/rms: cheaper to compute than to keep.
pub fn rms_norm_again(x: &Tensor, weight: &Tensor, inverse: &[f32]) -> Result<Tensor> {
    let (n, d) = x.dims2()?;
    let (numbers, weight) = (host(x)?, host(weight)?);
    let weight = weight.as_slice();
    let mut y = vec![0f32; n * d];
    y.par_chunks_mut(d).zip(numbers.as_slice().par_chunks(d)).zip(inverse).for_each(|((y, x), inverse)| {
        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
            *y = w * (x * inverse);
        }
    });
    tensor(y, (n, d))
}

/// Backward. With g = w ⊙ dy: dx = r·(g − x·r²·mean(g ⊙ x)) where r = 1/rms, plus `residual` where the input went on beside
/// the normalisation too. Returns dx (N, D).
pub fn rms_norm_backward(
    dy: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    inverse: &[f32],
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (n, d) = x.dims2()?;
    let mut dx = match residual {
        Some(residual) => host(residual)?.as_slice().to_vec(),
        None => vec![0f32; n * d],
    };
    let (dy, x, weight) = (host(dy)?, host(x)?, host(weight)?);
    let weight = weight.as_slice();
    dx.par_chunks_mut(d).zip(dy.as_slice().par_chunks(d)).zip(x.as_slice().par_chunks(d)).zip(inverse).for_each(
        |(((dx, dy), x), &r)| {
            let dot: f32 = dy.iter().zip(weight).zip(x).map(|((dy, w), x)| dy * w * x).sum();
            let pull = r * r * dot / d as f32;
            for (((dx, dy), w), x) in dx.iter_mut().zip(dy).zip(weight).zip(x) {
                *dx += r * (dy * w - x * pull);
            }
        },
    );
    tensor(dx, (n, d))
}

/// Gradient of the weight: dw = Σ_rows dy ⊙ x·r, shape (D).
pub fn rms_norm_weight_gradient(dy: &Tensor, x: &Tensor, inverse: &[f32]) -> Result<Tensor> {
    let (_, d) = x.dims2()?;
    let (dy, x) = (host(dy)?, host(x)?);
    let mut dw = vec![0f32; d];
    for ((dy, x), r) in dy.as_slice().chunks(d).zip(x.as_slice().chunks(d)).zip(inverse) {
        for ((dw, dy), x) in dw.iter_mut().zip(dy).zip(x) {
            *dw += dy * (x * r);
        }
    }
    Tensor::from_vec(dw, d, &candle_core::Device::Cpu)
}
