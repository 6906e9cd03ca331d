//! Root-mean-square normalisation; one row is one sum in lanes.

use candle_core::{DType, Device, Result, Tensor};

use super::host::{Host, for_row_chunks, host, lane_sum, vectorised, write, written};

/// y and 1/rms.
pub(super) fn forward(x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let (n, d) = x.dims2()?;
    let numbers = host::<f32>(x)?;
    let rows = numbers.as_slice();
    let inverse = written(n, |inverse| {
        for_row_chunks(inverse, d, 1, |first, inverse| inverse_rows(inverse, &rows[first * d..], d, eps));
    })?;
    let y = again(x, weight, &inverse)?;
    Ok((y, inverse))
}

vectorised! {
    fn inverse_rows(inverse: &mut [f32], x: &[f32], d: usize, eps: f64) {
        for (inverse, row) in inverse.iter_mut().zip(x.chunks_exact(d)) {
            let sum = lane_sum(d, |j| row[j] * row[j]);
            *inverse = (f64::from(sum) / d as f64 + eps).sqrt().recip() as f32;
        }
    }
}

/// y once more.
pub(super) fn again(x: &Tensor, weight: &Tensor, inverse: &Tensor) -> Result<Tensor> {
    let (n, d) = x.dims2()?;
    let (x, weight, inverse) = (host::<f32>(x)?, host::<f32>(weight)?, host::<f32>(inverse)?);
    let (x, weight, inverse) = (x.as_slice(), weight.as_slice(), inverse.as_slice());
    written((n, d), |y| {
        for_row_chunks(y, d, d, |first, y| scale_rows(y, &x[first * d..], weight, &inverse[first..]));
    })
}

vectorised! {
    fn scale_rows(y: &mut [f32], x: &[f32], weight: &[f32], inverse: &[f32]) {
        let d = weight.len();
        for ((y, x), r) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(inverse) {
            for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                *y = w * (x * r);
            }
        }
    }
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
    let residual = residual.as_ref().map(Host::as_slice);
    let (dy, x) = (host::<f32>(dy)?, host::<f32>(x)?);
    let (weight, inverse) = (host::<f32>(weight)?, host::<f32>(inverse)?);
    let (dy, x, weight, inverse) = (dy.as_slice(), x.as_slice(), weight.as_slice(), inverse.as_slice());
    written((n, d), |dx| {
        for_row_chunks(dx, d, d, |first, dx| {
            backward_rows(dx, &dy[first * d..], &x[first * d..], weight, &inverse[first..]);
            if let Some(residual) = residual {
                add(dx, &residual[first * d..]);
            }
        });
    })
}

vectorised! {
    fn backward_rows(dx: &mut [f32], dy: &[f32], x: &[f32], weight: &[f32], inverse: &[f32]) {
        let d = weight.len();
        let rows = dx.chunks_exact_mut(d).zip(dy.chunks_exact(d)).zip(x.chunks_exact(d)).zip(inverse);
        for (((dx, dy), x), &r) in rows {
            let dot = lane_sum(d, |j| dy[j] * weight[j] * x[j]);
            let pull = r * r * dot / d as f32;
            for (((dx, dy), w), x) in dx.iter_mut().zip(dy).zip(weight).zip(x) {
                *dx = r * (dy * w - x * pull);
            }
        }
    }
}

vectorised! {
    /// `to += x`, as far as `to` reaches.
    pub(super) fn add(to: &mut [f32], x: &[f32]) {
        to.iter_mut().zip(x).for_each(|(to, x)| *to += x);
    }
}

/// dw.
pub(super) fn weight_gradient(dy: &Tensor, x: &Tensor, inverse: &Tensor) -> Result<Tensor> {
    let (_, d) = x.dims2()?;
    let (dy, x, inverse) = (host::<f32>(dy)?, host::<f32>(x)?, host::<f32>(inverse)?);
    let dw = Tensor::zeros(d, DType::F32, &Device::Cpu)?;
    write(&dw, |dw| add_weight_gradients(dw, dy.as_slice(), x.as_slice(), inverse.as_slice()))?;
    Ok(dw)
}

vectorised! {
    fn add_weight_gradients(dw: &mut [f32], dy: &[f32], x: &[f32], inverse: &[f32]) {
        let d = dw.len();
        for ((dy, x), r) in dy.chunks_exact(d).zip(x.chunks_exact(d)).zip(inverse) {
            for ((dw, dy), x) in dw.iter_mut().zip(dy).zip(x) {
                *dw += dy * (x * r);
            }
        }
    }
}
