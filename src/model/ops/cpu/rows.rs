//! Rows less their means, and biases: what layer normalisation has beside the root mean square.

use candle_core::{DType, Device, Result, Tensor};

use super::{
    host::{Host, for_row_chunks, host, lane_sum, vectorised, write, written},
    rms_norm::add,
};

/// Each row less its mean, plus the residual.
pub(super) fn centred(x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    let (n, d) = x.dims2()?;
    let residual = residual.map(host::<f32>).transpose()?;
    let residual = residual.as_ref().map(Host::as_slice);
    let x = host::<f32>(x)?;
    let x = x.as_slice();
    written((n, d), |y| {
        for_row_chunks(y, d, d, |first, y| {
            centre_rows(y, &x[first * d..], d);
            if let Some(residual) = residual {
                add(y, &residual[first * d..]);
            }
        });
    })
}

vectorised! {
    fn centre_rows(y: &mut [f32], x: &[f32], d: usize) {
        for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
            let mean = lane_sum(d, |j| x[j]) / d as f32;
            y.iter_mut().zip(x).for_each(|(y, x)| *y = x - mean);
        }
    }
}

/// Adds the bias to every row, in place.
pub(super) fn add_bias(to: &Tensor, bias: &Tensor) -> Result<()> {
    let d = to.dim(1)?;
    let bias = host::<f32>(bias)?;
    let bias = bias.as_slice();
    if bias.len() != d {
        candle_core::bail!("a bias of {} numbers cannot be added to rows of {d}", bias.len())
    }
    write(to, |rows| {
        for_row_chunks(rows, d, d, |_, rows| rows.chunks_exact_mut(d).for_each(|row| add(row, bias)));
    })
}

/// Σ over the rows.
pub(super) fn column_sums(x: &Tensor) -> Result<Tensor> {
    let (_, d) = x.dims2()?;
    let x = host::<f32>(x)?;
    let sums = Tensor::zeros(d, DType::F32, &Device::Cpu)?;
    write(&sums, |sums| x.as_slice().chunks_exact(d).for_each(|row| add(sums, row)))?;
    Ok(sums)
}
