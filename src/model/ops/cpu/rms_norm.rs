//! Root-mean-square normalisation; one row is one sum in lanes.

use candle_core::{Result, Tensor};

use super::host::{for_row_chunks, host, lane_sum, vectorised, write, written};

/// y and 1/rms.
pub(super) fn forward(x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let (n, d) = x.dims2()?;
    let numbers = host::<f32>(x)?;
    let x_rows = numbers.as_slice();
    let inverse = written(n, |inverse| {
        for_row_chunks(inverse, 1, |first, inverse| {
            vectorised(|| {
                for (i, inverse) in inverse.iter_mut().enumerate() {
                    let row = &x_rows[(first + i) * d..][..d];
                    let sum = lane_sum(d, |j| row[j] * row[j]);
                    *inverse = (f64::from(sum) / d as f64 + eps).sqrt().recip() as f32;
                }
            });
        });
    })?;
    let y = again(x, weight, &inverse)?;
    Ok((y, inverse))
}

/// y once more.
pub(super) fn again(x: &Tensor, weight: &Tensor, inverse: &Tensor) -> Result<Tensor> {
    let (n, d) = x.dims2()?;
    let (x, weight, inverse) = (host::<f32>(x)?, host::<f32>(weight)?, host::<f32>(inverse)?);
    let (x, weight, inverse) = (x.as_slice(), weight.as_slice(), inverse.as_slice());
    written((n, d), |y| {
        for_row_chunks(y, d, |first, y| {
            vectorised(|| {
                for (i, y) in y.chunks_exact_mut(d).enumerate() {
                    let (x, r) = (&x[(first + i) * d..][..d], inverse[first + i]);
                    for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                        *y = w * (x * r);
                    }
                }
            });
        });
    })
}

/// dx, with the residual's gradient added.
pub(super) fn backward(
    dy: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    inverse: &Tensor,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (n, d) = x.dims2()?;
    let residual = residual.map(host::<f32>).transpose()?;
    let residual = residual.as_ref().map(|r| r.as_slice());
    let (dy, x) = (host::<f32>(dy)?, host::<f32>(x)?);
    let (weight, inverse) = (host::<f32>(weight)?, host::<f32>(inverse)?);
    let (dy, x, weight, inverse) = (dy.as_slice(), x.as_slice(), weight.as_slice(), inverse.as_slice());
    written((n, d), |dx| {
        for_row_chunks(dx, d, |first, dx| {
            vectorised(|| {
                for (i, dx) in dx.chunks_exact_mut(d).enumerate() {
                    let (row, r) = ((first + i) * d, inverse[first + i]);
                    let (dy, x) = (&dy[row..][..d], &x[row..][..d]);
                    let dot = lane_sum(d, |j| dy[j] * weight[j] * x[j]);
                    let pull = r * r * dot / d as f32;
                    for (((dx, dy), w), x) in dx.iter_mut().zip(dy).zip(weight).zip(x) {
                        *dx = r * (dy * w - x * pull);
                    }
                    if let Some(residual) = residual {
                        for (dx, residual) in dx.iter_mut().zip(&residual[row..][..d]) {
                            *dx += residual;
                        }
                    }
                }
            });
        });
    })
}

/// dw.
pub(super) fn weight_gradient(dy: &Tensor, x: &Tensor, inverse: &Tensor) -> Result<Tensor> {
    let (_, d) = x.dims2()?;
    let (dy, x, inverse) = (host::<f32>(dy)?, host::<f32>(x)?, host::<f32>(inverse)?);
    let dw = Tensor::zeros(d, candle_core::DType::F32, &candle_core::Device::Cpu)?;
    write(&dw, |dw| {
        vectorised(|| {
            for ((dy, x), r) in dy.as_slice().chunks_exact(d).zip(x.as_slice().chunks_exact(d)).zip(inverse.as_slice())
            {
                for ((dw, dy), x) in dw.iter_mut().zip(dy).zip(x) {
                    *dw += dy * (x * r);
                }
            }
        });
    })?;
    Ok(dw)
}
