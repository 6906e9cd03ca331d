//! Causal attention over packed sequences whose segments may share a prefix, without ever keeping a T × T matrix.
//!
//! Queries are taken in blocks; a block's scores live in a scratch buffer only. The backward computes them again from the
//! kept log-sum-exp of each row (the idea of FlashAttention-2, arXiv 2307.08691, on matrix products of ordinary size).

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{
    host::{exp, host, tensor},
    matrix::{Matrix, Target, Threads, product},
};
use crate::model::layout::{Segment, Sequence};

/// Queries per block.
const BLOCK: usize = 64;

/// Numbers and size of attention heads; `query` is a multiple of `key_value` (grouped-query attention, arXiv 2305.13245).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads H.
    pub query: usize,
    /// Key and value heads K.
    pub key_value: usize,
    /// Size S of one head.
    pub size: usize,
}

impl Heads {
    /// Width of all queries, H·S.
    pub fn q_width(self) -> usize {
        self.query * self.size
    }

    /// Width of all keys, K·S.
    pub fn kv_width(self) -> usize {
        self.key_value * self.size
    }

    /// Width of queries, keys and values side by side, (H+2K)·S.
    pub fn joined_width(self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }

    fn group(self) -> usize {
        self.query / self.key_value
    }
}

/// What the forward yields.
#[derive(Debug, Clone)]
pub struct Attention {
    /// (N, H·S).
    pub output: Tensor,
    /// Per query head and token, log Σ exp(score): (H, N), head by head.
    pub log_sums: Vec<f32>,
}

/// One head's part of the joined tensor: where its queries, keys and values start in a row.
#[derive(Clone, Copy)]
struct Place<'a> {
    joined: &'a [f32],
    width: usize,
    size: usize,
    query: usize,
    key: usize,
    value: usize,
}

impl<'a> Place<'a> {
    fn new(joined: &'a [f32], heads: Heads, head: usize) -> Self {
        let kv_head = head / heads.group();
        Self {
            joined,
            width: heads.joined_width(),
            size: heads.size,
            query: head * heads.size,
            key: heads.q_width() + kv_head * heads.size,
            value: heads.q_width() + heads.kv_width() + kv_head * heads.size,
        }
    }

    fn rows(self, column: usize, start: usize, len: usize) -> Matrix<'a> {
        // An empty range may start at the very end.
        let from = (start * self.width + column).min(self.joined.len());
        Matrix::new(&self.joined[from..], len, self.size, self.width)
    }
}

/// A block of queries of one segment, and the keys it sees: the whole prefix, then the segment up to its last query.
#[derive(Clone, Copy)]
struct Block {
    first: usize,
    len: usize,
    prefix: (usize, usize),
    own: (usize, usize),
}

impl Block {
    fn all(segment: &Segment) -> impl Iterator<Item = Self> + '_ {
        (0..segment.len).step_by(BLOCK).map(move |at| {
            let len = BLOCK.min(segment.len - at);
            Self {
                first: segment.start + at,
                len,
                prefix: (segment.prefix.start, segment.prefix.len()),
                own: (segment.start, at + len),
            }
        })
    }

    fn n_keys(self) -> usize {
        self.prefix.1 + self.own.1
    }

    /// Keys that query `i` of the block sees: all before it, and itself.
    fn n_visible(self, i: usize) -> usize {
        self.prefix.1 + (self.first - self.own.0) + i + 1
    }
}

/// Forward. `joined` (N, (H+2K)·S) as made by `join_rotated`; scores are scaled by 1/√S.
pub fn attention(joined: &Tensor, sequences: &[Sequence], heads: Heads) -> Result<Attention> {
    let n = joined.dim(0)?;
    let numbers = host(joined)?;
    let tasks: Vec<(&Sequence, usize)> = sequences.iter().flat_map(|s| (0..heads.query).map(move |h| (s, h))).collect();
    let parts: Vec<(Vec<f32>, Vec<f32>)> = tasks
        .par_iter()
        .map(|(sequence, head)| forward_head(Place::new(numbers.as_slice(), heads, *head), sequence))
        .collect();
    let mut output = vec![0f32; n * heads.q_width()];
    let mut log_sums = vec![0f32; heads.query * n];
    for ((sequence, head), (part, sums)) in tasks.iter().zip(&parts) {
        scatter_columns(part, &mut output, sequence.start(), heads.q_width(), head * heads.size, heads.size);
        log_sums[head * n + sequence.start()..][..sums.len()].copy_from_slice(sums);
    }
    Ok(Attention { output: tensor(output, (n, heads.q_width()))?, log_sums })
}

/// Attention of the last token of one sequence to all of it, for sampling. `joined` (T, (H+2K)·S); returns (1, H·S).
pub fn attention_last(joined: &Tensor, heads: Heads) -> Result<Tensor> {
    let n = joined.dim(0)?;
    let numbers = host(joined)?;
    let mut output = vec![0f32; heads.q_width()];
    let mut scores = Vec::new();
    for (head, out) in output.chunks_mut(heads.size).enumerate() {
        let place = Place::new(numbers.as_slice(), heads, head);
        let block = Block { first: n - 1, len: 1, prefix: (0, 0), own: (0, n) };
        score_block(place, block, &mut scores);
        softmax_row(&mut scores, n);
        let target = Target { numbers: out, row_stride: heads.size, add: false };
        product(target, Matrix::new(&scores, 1, n, n), place.rows(place.value, 0, n), 1.0, Threads::One);
    }
    tensor(output, (1, heads.q_width()))
}

/// One head over one sequence: its output (T, S) and its T log-sums.
fn forward_head(place: Place<'_>, sequence: &Sequence) -> (Vec<f32>, Vec<f32>) {
    let (start, n, size) = (sequence.start(), sequence.len(), place.size);
    let mut output = vec![0f32; n * size];
    let mut log_sums = vec![0f32; n];
    let mut scores = Vec::new();
    for block in sequence.segments.iter().flat_map(Block::all) {
        let keys = block.n_keys();
        score_block(place, block, &mut scores);
        for i in 0..block.len {
            log_sums[block.first - start + i] = softmax_row(&mut scores[i * keys..(i + 1) * keys], block.n_visible(i));
        }
        let out = &mut output[(block.first - start) * size..][..block.len * size];
        let prefix = Matrix::new(&scores, block.len, block.prefix.1, keys);
        let own = Matrix::new(&scores[block.prefix.1..], block.len, block.own.1, keys);
        let values = place.rows(place.value, block.own.0, block.own.1);
        product(Target { numbers: out, row_stride: size, add: false }, own, values, 1.0, Threads::One);
        let values = place.rows(place.value, block.prefix.0, block.prefix.1);
        if block.prefix.1 > 0 {
            product(Target { numbers: out, row_stride: size, add: true }, prefix, values, 1.0, Threads::One);
        }
    }
    (output, log_sums)
}

/// The scaled scores of a block, (block, keys); those beyond `n_visible` are computed too and never read.
fn score_block(place: Place<'_>, block: Block, scores: &mut Vec<f32>) {
    let keys = block.n_keys();
    scores.clear();
    scores.resize(block.len * keys, 0.0);
    let scale = (place.size as f32).sqrt().recip();
    let queries = place.rows(place.query, block.first, block.len);
    for ((start, len), column) in [(block.prefix, 0), (block.own, block.prefix.1)] {
        if len > 0 {
            let target = Target { numbers: &mut scores[column..], row_stride: keys, add: false };
            product(target, queries, place.rows(place.key, start, len).t(), scale, Threads::One);
        }
    }
}

/// Softmax of the first `n_visible` scores, zero behind them; returns log Σ exp.
fn softmax_row(row: &mut [f32], n_visible: usize) -> f32 {
    let (visible, hidden) = row.split_at_mut(n_visible);
    let max = visible.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0f32;
    for s in visible.iter_mut() {
        *s = exp(*s - max);
        sum += *s;
    }
    let inverse = 1.0 / sum;
    visible.iter_mut().for_each(|s| *s *= inverse);
    hidden.fill(0.0);
    max + sum.ln()
}

/// Backward. `d_output` (N, H·S); returns the gradient of `joined` (N, (H+2K)·S).
pub fn attention_backward(
    d_output: &Tensor,
    joined: &Tensor,
    kept: &Attention,
    sequences: &[Sequence],
    heads: Heads,
) -> Result<Tensor> {
    let n = joined.dim(0)?;
    let (d_output, joined, output) = (host(d_output)?, host(joined)?, host(&kept.output)?);
    // One task per key-value head: the queries that share its keys add to the same gradient, in a fixed order.
    let tasks: Vec<(&Sequence, usize)> =
        sequences.iter().flat_map(|s| (0..heads.key_value).map(move |h| (s, h))).collect();
    let parts: Vec<GroupGradient> = tasks
        .par_iter()
        .map(|(sequence, kv_head)| {
            let t = sequence.len();
            let mut gradient = GroupGradient {
                dq: vec![0f32; heads.group() * t * heads.size],
                dk: vec![0f32; t * heads.size],
                dv: vec![0f32; t * heads.size],
            };
            for g in 0..heads.group() {
                let head = kv_head * heads.group() + g;
                let rows = HeadRows {
                    d_output: d_output.as_slice(),
                    output: output.as_slice(),
                    log_sums: &kept.log_sums[head * n..(head + 1) * n],
                    width: heads.q_width(),
                    column: head * heads.size,
                };
                backward_head(Place::new(joined.as_slice(), heads, head), rows, sequence, g, &mut gradient);
            }
            gradient
        })
        .collect();
    let width = heads.joined_width();
    let mut d_joined = vec![0f32; n * width];
    for ((sequence, kv_head), part) in tasks.iter().zip(&parts) {
        let (start, t, size) = (sequence.start(), sequence.len(), heads.size);
        for g in 0..heads.group() {
            let column = (kv_head * heads.group() + g) * size;
            scatter_columns(&part.dq[g * t * size..(g + 1) * t * size], &mut d_joined, start, width, column, size);
        }
        let key = heads.q_width() + kv_head * size;
        scatter_columns(&part.dk, &mut d_joined, start, width, key, size);
        scatter_columns(&part.dv, &mut d_joined, start, width, key + heads.kv_width(), size);
    }
    tensor(d_joined, (n, width))
}

/// Gradients of one key-value head over one sequence: of its queries (G, T, S), its keys and its values (T, S).
struct GroupGradient {
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

/// What the backward reads of one query head.
#[derive(Clone, Copy)]
struct HeadRows<'a> {
    d_output: &'a [f32],
    output: &'a [f32],
    log_sums: &'a [f32],
    width: usize,
    column: usize,
}

impl HeadRows<'_> {
    /// Σ d_output ⊙ output of one token: what the softmax takes off every score's gradient.
    fn dot(&self, token: usize, size: usize) -> f32 {
        let range = token * self.width + self.column..token * self.width + self.column + size;
        self.d_output[range.clone()].iter().zip(&self.output[range]).map(|(a, b)| a * b).sum()
    }
}

fn backward_head(place: Place<'_>, rows: HeadRows<'_>, sequence: &Sequence, g: usize, gradient: &mut GroupGradient) {
    let (start, size, t) = (sequence.start(), place.size, sequence.len());
    let scale = (size as f32).sqrt().recip();
    let (mut weights, mut d_scores) = (Vec::new(), Vec::new());
    for block in sequence.segments.iter().flat_map(Block::all) {
        let keys = block.n_keys();
        score_block(place, block, &mut weights);
        d_scores.clear();
        d_scores.resize(block.len * keys, 0.0);
        let from = block.first * rows.width + rows.column;
        let d_out = Matrix::new(&rows.d_output[from..], block.len, size, rows.width);
        let parts = [(block.prefix, 0), (block.own, block.prefix.1)].into_iter().filter(|((_, len), _)| *len > 0);
        for ((first, len), column) in parts.clone() {
            let target = Target { numbers: &mut d_scores[column..], row_stride: keys, add: false };
            product(target, d_out, place.rows(place.value, first, len).t(), 1.0, Threads::One);
        }
        for i in 0..block.len {
            let (log_sum, dot) = (rows.log_sums[block.first + i], rows.dot(block.first + i, size));
            let visible = i * keys..i * keys + block.n_visible(i);
            for (w, ds) in weights[visible.clone()].iter_mut().zip(&mut d_scores[visible.clone()]) {
                *w = exp(*w - log_sum);
                *ds = *w * (*ds - dot);
            }
            weights[visible.end..(i + 1) * keys].fill(0.0);
            d_scores[visible.end..(i + 1) * keys].fill(0.0);
        }
        let dq = &mut gradient.dq[(g * t + block.first - start) * size..][..block.len * size];
        let queries = place.rows(place.query, block.first, block.len);
        for ((first, len), column) in parts {
            let ds = Matrix::new(&d_scores[column..], block.len, len, keys);
            let w = Matrix::new(&weights[column..], block.len, len, keys);
            let at = (first - start) * size;
            let into = |numbers| Target { numbers, row_stride: size, add: true };
            product(into(dq), ds, place.rows(place.key, first, len), scale, Threads::One);
            product(into(&mut gradient.dk[at..at + len * size]), ds.t(), queries, scale, Threads::One);
            product(into(&mut gradient.dv[at..at + len * size]), w.t(), d_out, 1.0, Threads::One);
        }
    }
}

/// Copies a (T, S) part into columns `column..column+size` of rows `start..`.
fn scatter_columns(part: &[f32], to: &mut [f32], start: usize, width: usize, column: usize, size: usize) {
    for (i, row) in part.chunks(size).enumerate() {
        to[(start + i) * width + column..][..size].copy_from_slice(row);
    }
}
