//! Causal attention over packed sequences whose segments may share a prefix, without ever keeping a T × T matrix.
//!
//! Queries are taken in blocks; a block's scores live in a scratch buffer only. The backward computes them again from the
//! kept log-sum-exp of each row (the idea of FlashAttention-2, arXiv 2307.08691, on matrix products of ordinary size).
//! One task is one query head of one sequence.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{
    gemm::{How, Matrix, Target, Threads, product},
    host::{Parts, exp, for_row_chunks, host, lane_sum, max_of, vectorised, write, written, written_pair},
};
use crate::{
    domain::Dtype,
    model::{
        layout::{Segment, Sequence},
        ops::{Attention, Heads},
    },
};

/// Queries per block.
const BLOCK: usize = 64;

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

    fn scale(self) -> f32 {
        (self.size as f32).sqrt().recip()
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

    /// The ranges of keys that are not empty, (first, number), and the column of the scores where each starts.
    fn parts(self) -> impl Iterator<Item = ((usize, usize), usize)> {
        [(self.prefix, 0), (self.own, self.prefix.1)].into_iter().filter(|((_, len), _)| *len > 0)
    }
}

/// A product on this thread.
fn multiply(target: Target<'_>, a: Matrix<'_>, b: Matrix<'_>, scale: f32) {
    product(target, a, b, How { scale, dtype: Dtype::Float32, threads: Threads::One });
}

/// One query head over one sequence.
fn tasks(sequences: &[Sequence], heads: Heads) -> Vec<(&Sequence, usize)> {
    sequences.iter().flat_map(|s| (0..heads.query).map(move |head| (s, head))).collect()
}

/// Output and log-sums.
pub(super) fn forward(joined: &Tensor, sequences: &[Sequence], heads: Heads) -> Result<Attention> {
    let n = joined.dim(0)?;
    let numbers = host::<f32>(joined)?;
    let numbers = numbers.as_slice();
    let (output, log_sums) = written_pair((n, heads.q_width()), (heads.query, n), |output, log_sums| {
        let (output, log_sums) = (Parts::new(output), Parts::new(log_sums));
        tasks(sequences, heads).par_iter().with_max_len(1).for_each(|(sequence, head)| {
            let place = Place::new(numbers, heads, *head);
            let mut scores = Vec::new();
            let mut out = [0f32; BLOCK].repeat(heads.size);
            for block in sequence.segments.iter().flat_map(Block::all) {
                // SAFETY: this task alone writes this head's columns and log-sums of this sequence's tokens.
                let sums = unsafe { log_sums.part(head * n + block.first, block.len) };
                forward_block(place, block, &mut scores, &mut out, sums);
                for (i, row) in out.chunks_exact(heads.size).take(block.len).enumerate() {
                    let start = (block.first + i) * heads.q_width() + head * heads.size;
                    // SAFETY: as above.
                    unsafe { output.part(start, heads.size) }.copy_from_slice(row);
                }
            }
        });
    })?;
    Ok(Attention { output, log_sums })
}

/// The last token of one sequence, (1, H·S).
pub(super) fn last(joined: &Tensor, heads: Heads) -> Result<Tensor> {
    let n = joined.dim(0)?;
    let numbers = host::<f32>(joined)?;
    written((1, heads.q_width()), |output| {
        let mut scores = Vec::new();
        for (head, out) in output.chunks_mut(heads.size).enumerate() {
            let place = Place::new(numbers.as_slice(), heads, head);
            let block = Block { first: n - 1, len: 1, prefix: (0, 0), own: (0, n) };
            forward_block(place, block, &mut scores, out, &mut [0.0]);
        }
    })
}

/// A block's output, in the first rows of `out`, and its log-sums.
fn forward_block(place: Place<'_>, block: Block, scores: &mut Vec<f32>, out: &mut [f32], log_sums: &mut [f32]) {
    let keys = block.n_keys();
    score_block(place, block, scores);
    vectorised(|| {
        for (i, log_sum) in log_sums.iter_mut().enumerate() {
            *log_sum = softmax_row(&mut scores[i * keys..(i + 1) * keys], block.n_visible(i));
        }
    });
    let mut add = false;
    for ((first, len), column) in block.parts() {
        let weights = Matrix::new(&scores[column..], block.len, len, keys);
        let target = Target { numbers: out, row_stride: place.size, add };
        multiply(target, weights, place.rows(place.value, first, len), 1.0);
        add = true;
    }
}

/// The scaled scores of a block, (block, keys); those beyond `n_visible` are computed too and never read.
fn score_block(place: Place<'_>, block: Block, scores: &mut Vec<f32>) {
    let keys = block.n_keys();
    if scores.len() < block.len * keys {
        scores.resize(block.len * keys, 0.0);
    }
    let queries = place.rows(place.query, block.first, block.len);
    for ((first, len), column) in block.parts() {
        let target = Target { numbers: &mut scores[column..], row_stride: keys, add: false };
        multiply(target, queries, place.rows(place.key, first, len).t(), place.scale());
    }
}

/// Softmax of the first `n_visible` scores, zero behind them; returns log Σ exp.
#[inline(always)]
fn softmax_row(row: &mut [f32], n_visible: usize) -> f32 {
    let (visible, hidden) = row.split_at_mut(n_visible);
    let max = max_of(visible);
    visible.iter_mut().for_each(|s| *s = exp(*s - max));
    let sum = lane_sum(n_visible, |i| visible[i]);
    let inverse = 1.0 / sum;
    visible.iter_mut().for_each(|s| *s *= inverse);
    hidden.fill(0.0);
    max + sum.ln()
}

/// The gradient of the joined tensor.
pub(super) fn backward(
    d_output: &Tensor,
    joined: &Tensor,
    kept: &Attention,
    sequences: &[Sequence],
    heads: Heads,
) -> Result<Tensor> {
    let n = joined.dim(0)?;
    let (d_output, joined, output) = (host::<f32>(d_output)?, host::<f32>(joined)?, host::<f32>(&kept.output)?);
    let log_sums = host::<f32>(&kept.log_sums)?;
    let size = heads.size;
    // Heads that share keys and values have a gradient of these each; they are added up below, in the heads' order.
    let mut d_joined = None;
    let (dk, dv) = written_pair((heads.query, n, size), (heads.query, n, size), |dk, dv| {
        let (dk, dv) = (Parts::new(dk), Parts::new(dv));
        d_joined = Some(written((n, heads.joined_width()), |d_joined| {
            let d_joined = Parts::new(d_joined);
            tasks(sequences, heads).par_iter().with_max_len(1).for_each(|(sequence, head)| {
                let rows = HeadRows {
                    d_output: d_output.as_slice(),
                    output: output.as_slice(),
                    log_sums: &log_sums.as_slice()[head * n..(head + 1) * n],
                    width: heads.q_width(),
                    column: head * size,
                };
                let (start, len) = ((head * n + sequence.start()) * size, sequence.len() * size);
                // SAFETY: this task alone writes this head's gradients at this sequence's tokens.
                let (dk, dv) = unsafe { (dk.part(start, len), dv.part(start, len)) };
                dk.fill(0.0);
                dv.fill(0.0);
                let place = Place::new(joined.as_slice(), heads, *head);
                backward_head(place, rows, sequence, HeadGradient { d_joined, dk, dv });
            });
        }));
    })?;
    let d_joined = d_joined.expect("made inside")?;
    let (dk, dv) = (host::<f32>(&dk)?, host::<f32>(&dv)?);
    write(&d_joined, |d_joined| add_up_groups(dk.as_slice(), dv.as_slice(), heads, d_joined))?;
    Ok(d_joined)
}

/// Writes the keys' and values' columns of the gradient: the sum over the query heads that share them.
fn add_up_groups(dk: &[f32], dv: &[f32], heads: Heads, d_joined: &mut [f32]) {
    let (width, size) = (heads.joined_width(), heads.size);
    let n = d_joined.len() / width;
    for_row_chunks(d_joined, width, |first, rows| {
        vectorised(|| {
            for (i, row) in rows.chunks_exact_mut(width).enumerate() {
                let (to_k, to_v) = row[heads.q_width()..].split_at_mut(heads.kv_width());
                for (to, from) in [(to_k, dk), (to_v, dv)] {
                    for (kv_head, to) in to.chunks_exact_mut(size).enumerate() {
                        let of_head =
                            |g: usize| &from[((kv_head * heads.group() + g) * n + first + i) * size..][..size];
                        to.copy_from_slice(of_head(0));
                        for g in 1..heads.group() {
                            to.iter_mut().zip(of_head(g)).for_each(|(to, from)| *to += from);
                        }
                    }
                }
            }
        });
    });
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
    #[inline(always)]
    fn dot(&self, token: usize, size: usize) -> f32 {
        let start = token * self.width + self.column;
        let (d_output, output) = (&self.d_output[start..][..size], &self.output[start..][..size]);
        lane_sum(size, |i| d_output[i] * output[i])
    }
}

/// Where the gradients of one query head go: of its queries into their columns, of the keys and values it sees (T, S).
struct HeadGradient<'a> {
    d_joined: Parts<'a>,
    dk: &'a mut [f32],
    dv: &'a mut [f32],
}

fn backward_head(place: Place<'_>, rows: HeadRows<'_>, sequence: &Sequence, gradient: HeadGradient<'_>) {
    let (start, size) = (sequence.start(), place.size);
    let (mut weights, mut d_scores) = (Vec::new(), Vec::new());
    let mut dq = vec![0f32; BLOCK * size];
    for block in sequence.segments.iter().flat_map(Block::all) {
        let keys = block.n_keys();
        score_block(place, block, &mut weights);
        if d_scores.len() < block.len * keys {
            d_scores.resize(block.len * keys, 0.0);
        }
        let from = block.first * rows.width + rows.column;
        let d_out = Matrix::new(&rows.d_output[from..], block.len, size, rows.width);
        for ((first, len), column) in block.parts() {
            let target = Target { numbers: &mut d_scores[column..], row_stride: keys, add: false };
            multiply(target, d_out, place.rows(place.value, first, len).t(), 1.0);
        }
        vectorised(|| {
            for i in 0..block.len {
                let (log_sum, dot) = (rows.log_sums[block.first + i], rows.dot(block.first + i, size));
                let (visible, all) = (block.n_visible(i), i * keys..(i + 1) * keys);
                let (weights, d_scores) = (&mut weights[all.clone()], &mut d_scores[all]);
                for (w, ds) in weights[..visible].iter_mut().zip(&mut d_scores[..visible]) {
                    *w = exp(*w - log_sum);
                    *ds = *w * (*ds - dot);
                }
                weights[visible..].fill(0.0);
                d_scores[visible..].fill(0.0);
            }
        });
        let queries = place.rows(place.query, block.first, block.len);
        let mut add = false;
        for ((first, len), column) in block.parts() {
            let ds = Matrix::new(&d_scores[column..], block.len, len, keys);
            let w = Matrix::new(&weights[column..], block.len, len, keys);
            let own = (first - start) * size..(first - start + len) * size;
            let into = |numbers, add| Target { numbers, row_stride: size, add };
            multiply(into(&mut dq[..], add), ds, place.rows(place.key, first, len), place.scale());
            multiply(into(&mut gradient.dk[own.clone()], true), ds.t(), queries, place.scale());
            multiply(into(&mut gradient.dv[own], true), w.t(), d_out, 1.0);
            add = true;
        }
        for (i, row) in dq.chunks_exact(size).take(block.len).enumerate() {
            // SAFETY: this task alone writes the columns of this head's queries at this sequence's tokens.
            unsafe { gradient.d_joined.part((block.first + i) * place.width + place.query, size) }.copy_from_slice(row);
        }
    }
}
