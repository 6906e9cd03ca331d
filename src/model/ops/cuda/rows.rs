//! The kernels that go over rows: normalisation, biases, sums over rows.

use candle_core::{DType, Result, Tensor, bail};

use super::launch::{
    Argument::{Address, Float, Int},
    Launch, address, unwritten,
};

/// Rows that one thread adds up of a column's sum.
const ROWS_PER_PART: usize = 64;
/// Threads of a block whose threads have a column each.
const COLUMN_THREADS: usize = 128;

pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let (n, d) = x.dims2()?;
    let y = unwritten((n, d), x.dtype(), x.device())?;
    let inverse = unwritten(n, DType::F32, x.device())?;
    Launch::typed("rms_norm", x)?
        .tensor(x, x.dtype())?
        .tensor(weight, DType::F32)?
        .arguments([Int(d as i32), Float(eps as f32)])
        .tensor(&y, x.dtype())?
        .tensor(&inverse, DType::F32)?
        .rows(n)?;
    Ok((y, inverse))
}

pub(super) fn rms_norm_again(x: &Tensor, weight: &Tensor, inverse: &Tensor) -> Result<Tensor> {
    let (n, d) = x.dims2()?;
    let y = unwritten((n, d), x.dtype(), x.device())?;
    Launch::typed("rms_norm_again", x)?
        .tensor(x, x.dtype())?
        .tensors([weight, inverse], DType::F32)?
        .arguments([Int(d as i32)])
        .tensor(&y, x.dtype())?
        .rows(n)?;
    Ok(y)
}

pub(super) fn rms_norm_backward(
    dy: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    inverse: &Tensor,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (n, d) = x.dims2()?;
    let dx = unwritten((n, d), x.dtype(), x.device())?;
    let residual = optional(residual, x)?;
    Launch::typed("rms_norm_backward", x)?
        .tensors([dy, x], x.dtype())?
        .tensors([weight, inverse], DType::F32)?
        .arguments([Address(residual), Int(d as i32)])
        .tensor(&dx, x.dtype())?
        .rows(n)?;
    Ok(dx)
}

pub(super) fn rms_norm_weight_gradient(dy: &Tensor, x: &Tensor, inverse: &Tensor) -> Result<Tensor> {
    let parts = Launch::typed("rms_norm_weight_parts", x)?.tensors([dy, x], x.dtype())?.tensor(inverse, DType::F32)?;
    sum_by_parts(parts, x)
}

pub(super) fn centred(x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    let (n, d) = x.dims2()?;
    let y = unwritten((n, d), x.dtype(), x.device())?;
    let residual = optional(residual, x)?;
    Launch::typed("centred", x)?
        .tensor(x, x.dtype())?
        .arguments([Address(residual), Int(d as i32)])
        .tensor(&y, x.dtype())?
        .rows(n)?;
    Ok(y)
}

pub(super) fn add_bias(to: &Tensor, bias: &Tensor) -> Result<()> {
    let (n, d) = to.dims2()?;
    if bias.dims() != [d] {
        bail!("a bias of shape {:?} cannot be added to {:?}", bias.shape(), to.shape())
    }
    Launch::typed("add_bias", to)?.tensor(bias, DType::F32)?.arguments([Int(d as i32)]).tensor(to, to.dtype())?.rows(n)
}

pub(super) fn column_sums(x: &Tensor) -> Result<Tensor> {
    sum_by_parts(Launch::typed("column_sum_parts", x)?.tensor(x, x.dtype())?, x)
}

/// Sums over the rows of what `parts` makes of `x`: first over those of each part, then over the parts.
fn sum_by_parts(parts: Launch, x: &Tensor) -> Result<Tensor> {
    let (n, d) = x.dims2()?;
    let (n_parts, blocks) = (n.div_ceil(ROWS_PER_PART), d.div_ceil(COLUMN_THREADS));
    let sums_of_parts = unwritten((n_parts, d), DType::F32, x.device())?;
    parts
        .arguments([Int(n as i32), Int(d as i32), Int(ROWS_PER_PART as i32)])
        .tensor(&sums_of_parts, DType::F32)?
        .blocks((blocks, n_parts), COLUMN_THREADS as u32, 0)?;
    let sums = unwritten(d, DType::F32, x.device())?;
    Launch::new("sum_parts", x)?
        .tensor(&sums_of_parts, DType::F32)?
        .arguments([Int(n_parts as i32), Int(d as i32)])
        .tensor(&sums, DType::F32)?
        .blocks((blocks, 1), COLUMN_THREADS as u32, 0)?;
    Ok(sums)
}

/// Where the numbers of a residual of `x` begin; 0 without one.
fn optional(residual: Option<&Tensor>, x: &Tensor) -> Result<u64> {
    match residual {
        None => Ok(0),
        Some(residual) if residual.shape() == x.shape() => address(residual, x.dtype()),
        Some(residual) => bail!("a residual of shape {:?} does not fit {:?}", residual.shape(), x.shape()),
    }
}
