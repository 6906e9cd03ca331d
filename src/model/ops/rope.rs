//! Rotary position embedding (RoPE, arXiv 2104.09864) on the first and second half of each head, as Hugging Face lays it out.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{
    attention::Heads,
    host::{host, tensor},
};

/// Cosines and sines of the angles of some positions.
#[derive(Debug, Clone)]
pub struct RopeTable {
    /// (N, head size / 2), row by row.
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl RopeTable {
    /// Angles position·frequency, one row for each of `positions`.
    pub fn new(positions: &[u32], frequencies: &[f32]) -> Self {
        let angles = positions.iter().flat_map(|p| frequencies.iter().map(move |f| f64::from(*p as f32 * f)));
        let (cos, sin) = angles.map(|a| (a.cos() as f32, a.sin() as f32)).unzip();
        Self { cos, sin, half: frequencies.len() }
    }

    fn row(&self, i: usize) -> (&[f32], &[f32]) {
        let range = i * self.half..(i + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}

/// Joins q (N, H·S), k (N, K·S) and v (N, K·S) into one tensor (N, (H+2K)·S), q and k turned by their positions' angles.
pub fn join_rotated(q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads, table: &RopeTable) -> Result<Tensor> {
    let n = q.dim(0)?;
    let (q, k, v) = (host(q)?, host(k)?, host(v)?);
    let (q_width, kv_width) = (heads.q_width(), heads.kv_width());
    let mut joined = vec![0f32; n * heads.joined_width()];
    joined.par_chunks_mut(heads.joined_width()).enumerate().for_each(|(i, row)| {
        let (cos, sin) = table.row(i);
        let (q_row, rest) = row.split_at_mut(q_width);
        let (k_row, v_row) = rest.split_at_mut(kv_width);
        rotate(&q.as_slice()[i * q_width..][..q_width], q_row, heads.size, cos, sin, 1.0);
        rotate(&k.as_slice()[i * kv_width..][..kv_width], k_row, heads.size, cos, sin, 1.0);
        v_row.copy_from_slice(&v.as_slice()[i * kv_width..][..kv_width]);
    });
    tensor(joined, (n, heads.joined_width()))
}

/// The backward of [`join_rotated`]: splits the gradient and turns it back.
pub fn split_rotated_back(gradient: &Tensor, heads: Heads, table: &RopeTable) -> Result<(Tensor, Tensor, Tensor)> {
    let n = gradient.dim(0)?;
    let gradient = host(gradient)?;
    let (q_width, kv_width) = (heads.q_width(), heads.kv_width());
    let (mut dq, mut dk, mut dv) = (vec![0f32; n * q_width], vec![0f32; n * kv_width], vec![0f32; n * kv_width]);
    dq.par_chunks_mut(q_width)
        .zip(dk.par_chunks_mut(kv_width))
        .zip(dv.par_chunks_mut(kv_width))
        .zip(gradient.as_slice().par_chunks(heads.joined_width()))
        .enumerate()
        .for_each(|(i, (((dq, dk), dv), row))| {
            let (cos, sin) = table.row(i);
            rotate(&row[..q_width], dq, heads.size, cos, sin, -1.0);
            rotate(&row[q_width..q_width + kv_width], dk, heads.size, cos, sin, -1.0);
            dv.copy_from_slice(&row[q_width + kv_width..]);
        });
    Ok((tensor(dq, (n, q_width))?, tensor(dk, (n, kv_width))?, tensor(dv, (n, kv_width))?))
}

/// Turns every head of one row by +angle or −angle.
fn rotate(from: &[f32], to: &mut [f32], size: usize, cos: &[f32], sin: &[f32], direction: f32) {
    let half = size / 2;
    for (from, to) in from.chunks(size).zip(to.chunks_mut(size)) {
        let (low, high) = from.split_at(half);
        let (to_low, to_high) = to.split_at_mut(half);
        for j in 0..half {
            let sin = direction * sin[j];
            to_low[j] = low[j] * cos[j] - high[j] * sin;
            to_high[j] = high[j] * cos[j] + low[j] * sin;
        }
    }
}
