//! Rotary embedding while queries, keys and values are joined or split.

use candle_core::{DType, Result, Tensor, bail};

use super::launch::{
    Argument::{self, Int},
    Launch, unwritten,
};
use crate::model::ops::{Heads, RopeTable};

pub(super) fn join_rotated(q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads, table: &RopeTable) -> Result<Tensor> {
    let n = q.dim(0)?;
    let sizes = sizes(n, heads, table)?;
    let joined = unwritten((n, heads.joined_width()), q.dtype(), q.device())?;
    Launch::typed("join_rotated", q)?
        .tensors([q, k, v], q.dtype())?
        .tensors([&table.cos, &table.sin], DType::F32)?
        .arguments(sizes)
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
    let sizes = sizes(n, heads, table)?;
    let part = |width| unwritten((n, width), dtype, gradient.device());
    let (dq, dk, dv) = (part(heads.q_width())?, part(heads.kv_width())?, part(heads.kv_width())?);
    Launch::typed("split_rotated_back", gradient)?
        .tensor(gradient, dtype)?
        .tensors([&table.cos, &table.sin], DType::F32)?
        .arguments(sizes)
        .tensors([&dq, &dk, &dv], dtype)?
        .rows(n)?;
    Ok((dq, dk, dv))
}

/// The heads, and how many pairs of each turn.
fn sizes(n: usize, heads: Heads, table: &RopeTable) -> Result<[Argument; 4]> {
    let (n_positions, half) = table.cos.dims2()?;
    if n_positions != n || 2 * half > heads.size {
        bail!("{n_positions} rows of {half} angles do not fit {n} tokens and heads of {}", heads.size)
    }
    Ok([heads.query, heads.key_value, heads.size, half].map(|x| Int(x as i32)))
}
