//! The kernels that go over rows or numbers: normalisation, rotary embedding, SwiGLU, sums of gradients, the optimizer.

use candle_core::{DType, Result, Tensor, bail};

use super::launch::{
    Argument::{self, Count, Float, Int},
    Launch, address, unwritten,
};
use crate::model::ops::{AdamWStep, Heads, RopeTable};

/// Rows whose share of a norm's weight gradient one thread adds up.
const ROWS_PER_PART: usize = 64;
/// Parts of a squared norm: a constant, since the order of the sum depends on it.
const NORM_PARTS: usize = 512;
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
    let residual = residual.map_or(Ok(0), |residual| address(residual, x.dtype()))?;
    Launch::typed("rms_norm_backward", x)?
        .tensors([dy, x], x.dtype())?
        .tensors([weight, inverse], DType::F32)?
        .arguments([Argument::Address(residual), Int(d as i32)])
        .tensor(&dx, x.dtype())?
        .rows(n)?;
    Ok(dx)
}

pub(super) fn rms_norm_weight_gradient(dy: &Tensor, x: &Tensor, inverse: &Tensor) -> Result<Tensor> {
    let (n, d) = x.dims2()?;
    let n_parts = n.div_ceil(ROWS_PER_PART);
    let parts = unwritten((n_parts, d), DType::F32, x.device())?;
    let blocks = d.div_ceil(COLUMN_THREADS);
    Launch::typed("rms_norm_weight_parts", x)?
        .tensors([dy, x], x.dtype())?
        .tensor(inverse, DType::F32)?
        .arguments([Int(n as i32), Int(d as i32), Int(ROWS_PER_PART as i32)])
        .tensor(&parts, DType::F32)?
        .blocks((blocks, n_parts), COLUMN_THREADS as u32, 0)?;
    let sums = unwritten(d, DType::F32, x.device())?;
    Launch::new("sum_parts", x)?
        .tensor(&parts, DType::F32)?
        .arguments([Int(n_parts as i32), Int(d as i32)])
        .tensor(&sums, DType::F32)?
        .blocks((blocks, 1), COLUMN_THREADS as u32, 0)?;
    Ok(sums)
}

pub(super) fn join_rotated(q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads, table: &RopeTable) -> Result<Tensor> {
    let n = q.dim(0)?;
    let joined = unwritten((n, heads.joined_width()), q.dtype(), q.device())?;
    Launch::typed("join_rotated", q)?
        .tensors([q, k, v], q.dtype())?
        .tensors([&table.cos, &table.sin], DType::F32)?
        .arguments(sizes(heads))
        .tensor(&joined, q.dtype())?
        .rows(n)?;
    Ok(joined)
}

pub(super) fn split_rotated_back(
    gradient: &Tensor,
    heads: Heads,
    table: &RopeTable,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (n, dtype) = (gradient.dim(0)?, gradient.dtype());
    let part = |width| unwritten((n, width), dtype, gradient.device());
    let (dq, dk, dv) = (part(heads.q_width())?, part(heads.kv_width())?, part(heads.kv_width())?);
    Launch::typed("split_rotated_back", gradient)?
        .tensor(gradient, dtype)?
        .tensors([&table.cos, &table.sin], DType::F32)?
        .arguments(sizes(heads))
        .tensors([&dq, &dk, &dv], dtype)?
        .rows(n)?;
    Ok((dq, dk, dv))
}

fn sizes(heads: Heads) -> [Argument; 3] {
    [Int(heads.query as i32), Int(heads.key_value as i32), Int(heads.size as i32)]
}

pub(super) fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let (n, dtype) = (gate.elem_count(), gate.dtype());
    let y = unwritten(gate.shape(), dtype, gate.device())?;
    Launch::typed("swiglu", gate)?
        .tensors([gate, up], dtype)?
        .arguments([Count(n as u64)])
        .tensor(&y, dtype)?
        .numbers(n)?;
    Ok(y)
}

pub(super) fn swiglu_backward(dy: &Tensor, gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)> {
    let (n, dtype) = (gate.elem_count(), gate.dtype());
    let d_gate = unwritten(gate.shape(), dtype, gate.device())?;
    let d_up = unwritten(gate.shape(), dtype, gate.device())?;
    Launch::typed("swiglu_backward", gate)?
        .tensors([dy, gate, up], dtype)?
        .arguments([Count(n as u64)])
        .tensors([&d_gate, &d_up], dtype)?
        .numbers(n)?;
    Ok((d_gate, d_up))
}

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
