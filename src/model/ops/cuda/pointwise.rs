//! The kernels that go over numbers: sums of gradients, the optimizer.

use candle_core::{DType, Result, Tensor, bail};

use super::launch::{
    Argument::{Count, Float, Int},
    Launch, unwritten,
};
use crate::model::ops::AdamWStep;

/// Parts of a squared norm: a constant, since the order of the sum depends on it.
const NORM_PARTS: usize = 512;

pub(super) fn add_in_place(to: &Tensor, x: &Tensor) -> Result<()> {
    let (n, dtype) = (to.elem_count(), to.dtype());
    if x.elem_count() != n {
        bail!("{:?} cannot be added to {:?}", x.shape(), to.shape())
    }
    Launch::typed("add_in_place", to)?.tensor(x, dtype)?.arguments([Count(n as u64)]).tensor(to, dtype)?.numbers(n)
}

pub(super) fn add_rows(to: &Tensor, rows: &[u32], x: &Tensor) -> Result<()> {
    let (v, d) = to.dims2()?;
    if x.dims2()? != (rows.len(), d) || rows.iter().any(|row| *row as usize >= v) {
        bail!("{:?} cannot be added to {} rows of {:?}", x.shape(), rows.len(), to.shape())
    }
    // One block per row that something is added to, so that each is added up in order.
    let mut order: Vec<u32> = (0..rows.len() as u32).collect();
    order.sort_by_key(|i| rows[*i as usize]);
    let (mut targets, mut starts) = (Vec::new(), Vec::new());
    for (at, i) in order.iter().enumerate() {
        if targets.last() != Some(&rows[*i as usize]) {
            targets.push(rows[*i as usize]);
            starts.push(at as u32);
        }
    }
    if targets.is_empty() {
        return Ok(());
    }
    starts.push(rows.len() as u32);
    let n_targets = targets.len();
    let put = |numbers: Vec<u32>| Tensor::new(numbers, x.device());
    let (targets, starts, order) = (put(targets)?, put(starts)?, put(order)?);
    Launch::typed("add_rows", x)?
        .tensor(x, x.dtype())?
        .tensors([&targets, &starts, &order], DType::U32)?
        .arguments([Int(d as i32)])
        .tensor(to, DType::F32)?
        .rows(n_targets)
}

pub(super) fn squared_norm(x: &Tensor) -> Result<f64> {
    let parts = unwritten(NORM_PARTS, DType::F64, x.device())?;
    Launch::new("squared_norm_parts", x)?
        .tensor(x, DType::F32)?
        .arguments([Count(x.elem_count() as u64)])
        .tensor(&parts, DType::F64)?
        .rows(NORM_PARTS)?;
    Ok(parts.to_vec1::<f64>()?.into_iter().sum())
}

pub(super) fn adamw(
    parameter: &Tensor,
    gradient: &Tensor,
    (first, second): (&Tensor, &Tensor),
    step: AdamWStep,
) -> Result<()> {
    let n = parameter.elem_count();
    if [gradient, first, second].iter().any(|tensor| tensor.elem_count() != n) {
        bail!("a parameter of shape {:?} got a gradient or moments of another", parameter.shape())
    }
    let AdamWStep { beta1, beta2, epsilon, step_size, root_correction, decay, gradient_scale } = step;
    Launch::new("adamw", parameter)?
        .tensor(gradient, DType::F32)?
        .arguments([Count(n as u64), Float(beta1), Float(beta2), Float(epsilon)])
        .arguments([Float(step_size), Float(root_correction), Float(decay), Float(gradient_scale)])
        .tensors([parameter, first, second], DType::F32)?
        .numbers(n)
}
