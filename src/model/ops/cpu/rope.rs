//! Rotary position embedding on the first and second half of each head.

#![expect(clippy::inline_always, reason = "a loop is compiled for the processor only where all of it is inlined")]

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::host::{for_row_chunks, host, vectorised, written, written_pair};
use crate::model::ops::{Heads, RopeTable};

/// Tokens per task.
const ROWS: usize = 8;

/// q, k and v in one tensor, q and k turned.
pub(super) fn join(q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads, table: &RopeTable) -> Result<Tensor> {
    let n = q.dim(0)?;
    let (q, k, v) = (host::<f32>(q)?, host::<f32>(k)?, host::<f32>(v)?);
    let (q, k, v) = (q.as_slice(), k.as_slice(), v.as_slice());
    let (cos, sin) = (host::<f32>(&table.cos)?, host::<f32>(&table.sin)?);
    let angles = Angles { cos: cos.as_slice(), sin: sin.as_slice(), half: table.cos.dim(1)?, size: heads.size };
    let (q_width, kv_width, width) = (heads.q_width(), heads.kv_width(), heads.joined_width());
    written((n, width), |joined| {
        for_row_chunks(joined, width, width, |first, rows| {
            let (q, k, v) = (&q[first * q_width..], &k[first * kv_width..], &v[first * kv_width..]);
            join_rows(rows, (q, k, v), heads, angles.from(first));
        });
    })
}

vectorised! {
    fn join_rows(rows: &mut [f32], parts: (&[f32], &[f32], &[f32]), heads: Heads, angles: Angles<'_>) {
        let ((q, k, v), q_width, kv_width) = (parts, heads.q_width(), heads.kv_width());
        for (i, row) in rows.chunks_exact_mut(heads.joined_width()).enumerate() {
            let (q_row, rest) = row.split_at_mut(q_width);
            let (k_row, v_row) = rest.split_at_mut(kv_width);
            angles.turn(i, &q[i * q_width..][..q_width], q_row, 1.0);
            angles.turn(i, &k[i * kv_width..][..kv_width], k_row, 1.0);
            v_row.copy_from_slice(&v[i * kv_width..][..kv_width]);
        }
    }
}

/// The gradients of q, k and v.
pub(super) fn split_back(gradient: &Tensor, heads: Heads, table: &RopeTable) -> Result<(Tensor, Tensor, Tensor)> {
    let n = gradient.dim(0)?;
    let gradient = host::<f32>(gradient)?;
    let gradient = gradient.as_slice();
    let (cos, sin) = (host::<f32>(&table.cos)?, host::<f32>(&table.sin)?);
    let angles = Angles { cos: cos.as_slice(), sin: sin.as_slice(), half: table.cos.dim(1)?, size: heads.size };
    let (q_width, kv_width, width) = (heads.q_width(), heads.kv_width(), heads.joined_width());
    let mut of_keys = None;
    let dq = written((n, q_width), |dq| {
        of_keys = Some(written_pair((n, kv_width), (n, kv_width), |dk, dv| {
            dq.par_chunks_mut(ROWS * q_width)
                .zip(dk.par_chunks_mut(ROWS * kv_width))
                .zip(dv.par_chunks_mut(ROWS * kv_width))
                .enumerate()
                .for_each(|(task, ((dq, dk), dv))| {
                    let first = task * ROWS;
                    split_rows(&gradient[first * width..], (dq, dk, dv), heads, angles.from(first));
                });
        }));
    })?;
    let (dk, dv) = of_keys.expect("made inside")?;
    Ok((dq, dk, dv))
}

vectorised! {
    fn split_rows(rows: &[f32], parts: (&mut [f32], &mut [f32], &mut [f32]), heads: Heads, angles: Angles<'_>) {
        let ((dq, dk, dv), q_width, kv_width) = (parts, heads.q_width(), heads.kv_width());
        let of_token = dq.chunks_exact_mut(q_width).zip(dk.chunks_exact_mut(kv_width)).zip(dv.chunks_exact_mut(kv_width));
        for (i, (((dq, dk), dv), row)) in of_token.zip(rows.chunks_exact(heads.joined_width())).enumerate() {
            angles.turn(i, &row[..q_width], dq, -1.0);
            angles.turn(i, &row[q_width..q_width + kv_width], dk, -1.0);
            dv.copy_from_slice(&row[q_width + kv_width..]);
        }
    }
}

/// Cosines and sines, (N, half), for heads of `size`.
#[derive(Clone, Copy)]
struct Angles<'a> {
    cos: &'a [f32],
    sin: &'a [f32],
    half: usize,
    size: usize,
}

impl Angles<'_> {
    /// Those of the rows from `first`.
    fn from(self, first: usize) -> Self {
        Self { cos: &self.cos[first * self.half..], sin: &self.sin[first * self.half..], ..self }
    }

    /// Turns every head of row `i` by +angle or −angle, as much of it as there are angles for.
    #[inline(always)]
    fn turn(self, i: usize, from: &[f32], to: &mut [f32], direction: f32) {
        let half = self.half;
        let (cos, sin) = (&self.cos[i * half..][..half], &self.sin[i * half..][..half]);
        for (from, to) in from.chunks_exact(self.size).zip(to.chunks_exact_mut(self.size)) {
            to[2 * half..].copy_from_slice(&from[2 * half..]);
            let (low, high) = from[..2 * half].split_at(half);
            let (to_low, to_high) = to[..2 * half].split_at_mut(half);
            for j in 0..half {
                let sin = direction * sin[j];
                to_low[j] = low[j] * cos[j] - high[j] * sin;
                to_high[j] = high[j] * cos[j] + low[j] * sin;
            }
        }
    }
}
