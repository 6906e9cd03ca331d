//! Causal attention over packed sequences whose segments may share a prefix, without ever keeping a T × T matrix.
//!
//! Queries are taken in blocks; a block's scores live in a scratch buffer only. The backward computes them again from the
//! kept log-sum-exp of each row (the idea of FlashAttention-2, arXiv 2307.08691, on matrix products of ordinary size). Query heads
//! that share keys and values are stacked, so that these are read once for all of them.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{
    gemm::{How, Matrix, Start, Target, Threads, product},
    host::{
        Parts, exp, exp_in_place, for_row_chunks, host, lane_sum, max_of, vectorised, write, written, written_pair,
    },
    rms_norm::add,
};
use crate::{
    domain::Dtype,
    model::{
        layout::{Segment, Sequence},
        ops::{Attention, Heads},
    },
};

/// Rows of stacked queries in a block: nine panels of the product's kernel.
const STACKED_ROWS: usize = 126;
/// Most queries in a block: the scores behind the diagonal are computed for nothing.
const MAX_BLOCK: usize = 70;

/// Query heads that are computed together: those of one key and value head. Of a model with one such head, each by itself, so that
/// there is work for several threads. Depends on the model alone, and so do the results.
#[derive(Clone, Copy)]
struct Stack {
    first: usize,
    n: usize,
    kv_head: usize,
}

impl Stack {
    fn all(heads: Heads) -> impl Iterator<Item = Self> {
        let n = Self::size(heads);
        (0..heads.query).step_by(n).map(move |first| Self { first, n, kv_head: first / heads.group() })
    }

    fn size(heads: Heads) -> usize {
        if heads.key_value > 1 { heads.group() } else { 1 }
    }

    /// Queries per block.
    fn block(self) -> usize {
        (STACKED_ROWS / self.n).clamp(14, MAX_BLOCK)
    }
}

/// One stack of heads in the joined tensor: where its queries, keys and values start in a row.
#[derive(Clone, Copy)]
struct Place<'a> {
    joined: &'a [f32],
    width: usize,
    size: usize,
    n_heads: usize,
    query: usize,
    key: usize,
    value: usize,
}

impl<'a> Place<'a> {
    fn new(joined: &'a [f32], heads: Heads, stack: Stack) -> Self {
        Self {
            joined,
            width: heads.joined_width(),
            size: heads.size,
            n_heads: stack.n,
            query: stack.first * heads.size,
            key: heads.q_width() + stack.kv_head * heads.size,
            value: heads.q_width() + heads.kv_width() + stack.kv_head * heads.size,
        }
    }

    fn rows(self, column: usize, (start, len): (usize, usize)) -> Matrix<'a> {
        // An empty range may start at the very end.
        let from = (start * self.width + column).min(self.joined.len());
        Matrix::new(&self.joined[from..], len, self.size, self.width)
    }

    fn scale(self) -> f32 {
        (self.size as f32).sqrt().recip()
    }
}

/// Stacks some columns of some rows of `from`: head by head, row by row, `size` numbers each.
fn stack_rows(from: &[f32], width: usize, column: usize, block: Block, place: Place<'_>, to: &mut Vec<f32>) {
    to.clear();
    for head in 0..place.n_heads {
        for i in 0..block.len {
            let start = (block.first + i) * width + column + head * place.size;
            to.extend_from_slice(&from[start..start + place.size]);
        }
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
    fn all(sequence: &Sequence, n_at_once: usize) -> impl Iterator<Item = Self> + '_ {
        sequence.segments.iter().flat_map(move |segment| Self::of(segment, n_at_once))
    }

    fn of(segment: &Segment, n_at_once: usize) -> impl Iterator<Item = Self> + '_ {
        (0..segment.len).step_by(n_at_once).map(move |at| {
            let len = n_at_once.min(segment.len - at);
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
fn multiply<'a>(target: Target<'a>, a: Matrix<'_>, b: Matrix<'a>, scale: f32) {
    product(target, a, b, How { scale, dtype: Dtype::Float32, threads: Threads::One });
}

/// The first of several products writes, the others add.
fn first_over(numbers: &mut [f32], row_stride: usize, is_first: bool) -> Target<'_> {
    Target { numbers, row_stride, start: if is_first { Start::Nothing } else { Start::Target } }
}

/// One stack of heads over one sequence.
fn tasks(sequences: &[Sequence], heads: Heads) -> Vec<(&Sequence, Stack)> {
    sequences.iter().flat_map(|s| Stack::all(heads).map(move |stack| (s, stack))).collect()
}

/// Buffers of one task; stacked rows are (heads, queries), head by head.
#[derive(Default)]
struct Scratch {
    /// (rows, S).
    queries: Vec<f32>,
    /// (rows, keys).
    scores: Vec<f32>,
    /// (rows, S).
    out: Vec<f32>,
    /// Per row log Σ exp.
    log_sums: Vec<f32>,
    /// Per row 1 / Σ exp(score − largest).
    inverses: Vec<f32>,
}

/// Output and log-sums.
pub(super) fn forward(joined: &Tensor, sequences: &[Sequence], heads: Heads) -> Result<Attention> {
    let n = joined.dim(0)?;
    let numbers = host::<f32>(joined)?;
    let numbers = numbers.as_slice();
    let (output, log_sums) = written_pair((n, heads.q_width()), (heads.query, n), |output, log_sums| {
        let (output, log_sums) = (Parts::new(output), Parts::new(log_sums));
        tasks(sequences, heads).par_iter().with_max_len(1).for_each(|(sequence, stack)| {
            let place = Place::new(numbers, heads, *stack);
            let mut scratch = Scratch::default();
            for block in Block::all(sequence, stack.block()) {
                forward_block(place, block, &mut scratch);
                for (head, i) in (0..stack.n).flat_map(|head| (0..block.len).map(move |i| (head, i))) {
                    let (row, token) = (head * block.len + i, block.first + i);
                    let start = token * heads.q_width() + place.query + head * heads.size;
                    // SAFETY: this task alone writes its heads' columns and log-sums of this sequence's tokens.
                    let (output, log_sum) =
                        unsafe { (output.part(start, heads.size), log_sums.part((stack.first + head) * n + token, 1)) };
                    output.copy_from_slice(&scratch.out[row * heads.size..][..heads.size]);
                    log_sum[0] = scratch.log_sums[row];
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
        let mut scratch = Scratch::default();
        let block = Block { first: n - 1, len: 1, prefix: (0, 0), own: (0, n) };
        for stack in Stack::all(heads) {
            forward_block(Place::new(numbers.as_slice(), heads, stack), block, &mut scratch);
            output[stack.first * heads.size..][..stack.n * heads.size].copy_from_slice(&scratch.out);
        }
    })
}

/// A block's output and log-sums, left in `scratch`.
fn forward_block(place: Place<'_>, block: Block, scratch: &mut Scratch) {
    let (rows, keys, size) = (place.n_heads * block.len, block.n_keys(), place.size);
    score_block(place, block, scratch);
    let Scratch { scores, out, log_sums, inverses, .. } = scratch;
    log_sums.resize(rows, 0.0);
    inverses.resize(rows, 0.0);
    out.resize(rows * size, 0.0);
    softmax_rows(scores, block, log_sums, inverses);
    for (i, (range, column)) in block.parts().enumerate() {
        let weights = Matrix::new(&scores[column..], rows, range.1, keys);
        multiply(first_over(out, size, i == 0), weights, place.rows(place.value, range), 1.0);
    }
    scale_rows(out, inverses);
}

vectorised! {
    /// exp(score − the row's largest) of the visible scores, 0 behind them. A row's sum divides its output later, which is shorter.
    fn softmax_rows(scores: &mut [f32], block: Block, log_sums: &mut [f32], inverses: &mut [f32]) {
        for (row, scores) in scores.chunks_exact_mut(block.n_keys()).enumerate() {
            let (visible, hidden) = scores.split_at_mut(block.n_visible(row % block.len));
            let max = max_of(visible);
            let sum = exp_in_place(visible, max);
            hidden.fill(0.0);
            log_sums[row] = max + sum.ln();
            inverses[row] = 1.0 / sum;
        }
    }
}

vectorised! {
    fn scale_rows(rows: &mut [f32], factors: &[f32]) {
        let width = rows.len() / factors.len();
        for (row, factor) in rows.chunks_exact_mut(width).zip(factors) {
            row.iter_mut().for_each(|x| *x *= factor);
        }
    }
}

/// The scaled scores of a block, (rows, keys); those behind the diagonal are computed too and never read.
fn score_block(place: Place<'_>, block: Block, Scratch { queries, scores, .. }: &mut Scratch) {
    let (rows, keys) = (place.n_heads * block.len, block.n_keys());
    stack_rows(place.joined, place.width, place.query, block, place, queries);
    scores.resize(rows * keys, 0.0);
    let stacked = Matrix::new(queries, rows, place.size, place.size);
    for (range, column) in block.parts() {
        let target = Target::over(&mut scores[column..], keys);
        multiply(target, stacked, place.rows(place.key, range).t(), place.scale());
    }
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
    let forward = Kept { d_output: d_output.as_slice(), output: output.as_slice(), log_sums: log_sums.as_slice(), n };
    let (size, n_stacks) = (heads.size, heads.query / Stack::size(heads));
    // Each stack has a gradient of the keys and values it sees; those of the same keys are added up below, in order.
    let mut d_joined = None;
    let (dk, dv) = written_pair((n_stacks, n, size), (n_stacks, n, size), |dk, dv| {
        let (dk, dv) = (Parts::new(dk), Parts::new(dv));
        d_joined = Some(written((n, heads.joined_width()), |d_joined| {
            let d_joined = Parts::new(d_joined);
            tasks(sequences, heads).par_iter().with_max_len(1).for_each(|(sequence, stack)| {
                let index = stack.first / stack.n;
                let (start, len) = ((index * n + sequence.start()) * size, sequence.len() * size);
                // SAFETY: this task alone writes this stack's gradients at this sequence's tokens.
                let (dk, dv) = unsafe { (dk.part(start, len), dv.part(start, len)) };
                dk.fill(0.0);
                dv.fill(0.0);
                let place = Place::new(joined.as_slice(), heads, *stack);
                let mut gradient = StackGradient { d_joined, dk, dv, start: sequence.start() };
                let mut scratch = BackwardScratch::default();
                for block in Block::all(sequence, stack.block()) {
                    backward_block(place, block, forward, &mut scratch, &mut gradient);
                }
            });
        }));
    })?;
    let d_joined = d_joined.expect("made inside")?;
    let (dk, dv) = (host::<f32>(&dk)?, host::<f32>(&dv)?);
    write(&d_joined, |d_joined| add_up_stacks(dk.as_slice(), dv.as_slice(), heads, d_joined))?;
    Ok(d_joined)
}

/// Writes the keys' and values' columns of the gradient: the sum over the stacks that share them.
fn add_up_stacks(dk: &[f32], dv: &[f32], heads: Heads, d_joined: &mut [f32]) {
    let (width, size) = (heads.joined_width(), heads.size);
    let n = d_joined.len() / width;
    let stacks_per_head = heads.group() / Stack::size(heads);
    for_row_chunks(d_joined, width, width, |first, rows| {
        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
            let (to_k, to_v) = row[heads.q_width()..].split_at_mut(heads.kv_width());
            for (to, from) in [(to_k, dk), (to_v, dv)] {
                for (kv_head, to) in to.chunks_exact_mut(size).enumerate() {
                    let of_stack = |g: usize| &from[((kv_head * stacks_per_head + g) * n + first + i) * size..][..size];
                    to.copy_from_slice(of_stack(0));
                    (1..stacks_per_head).for_each(|g| add(to, of_stack(g)));
                }
            }
        }
    });
}

/// What the backward reads of the forward.
#[derive(Clone, Copy)]
struct Kept<'a> {
    d_output: &'a [f32],
    output: &'a [f32],
    log_sums: &'a [f32],
    n: usize,
}

impl<'a> Kept<'a> {
    /// The log-sum and the output of one stacked row.
    fn row(self, place: Place<'_>, block: Block, row: usize) -> (f32, &'a [f32]) {
        let (head, token) = (row / block.len, block.first + row % block.len);
        let column = place.query + head * place.size;
        let start = token * (self.output.len() / self.n) + column;
        (self.log_sums[column / place.size * self.n + token], &self.output[start..start + place.size])
    }
}

vectorised! {
    /// Scores to weights, and the gradients of weights to those of scores.
    fn score_gradients(
        weights: &mut [f32],
        d_scores: &mut [f32],
        d_out: &[f32],
        at: (Place<'_>, Block),
        kept: Kept<'_>,
    ) {
        let (place, block) = at;
        let (keys, size) = (block.n_keys(), place.size);
        for (row, (weights, d_scores)) in weights.chunks_exact_mut(keys).zip(d_scores.chunks_exact_mut(keys)).enumerate() {
            let (log_sum, output) = kept.row(place, block, row);
            let d_out = &d_out[row * size..][..size];
            // Σ d_output ⊙ output: what the softmax takes off every score's gradient.
            let dot = lane_sum(size, |j| d_out[j] * output[j]);
            let visible = block.n_visible(row % block.len);
            for (w, ds) in weights[..visible].iter_mut().zip(&mut d_scores[..visible]) {
                *w = exp(*w - log_sum);
                *ds = *w * (*ds - dot);
            }
            weights[visible..].fill(0.0);
            d_scores[visible..].fill(0.0);
        }
    }
}

/// Where the gradients of one stack over one sequence go: of its queries into their columns, of the keys and values (T, S).
struct StackGradient<'a> {
    d_joined: Parts<'a>,
    dk: &'a mut [f32],
    dv: &'a mut [f32],
    /// The sequence's first token.
    start: usize,
}

/// Buffers of one task of the backward, stacked as those of the forward.
#[derive(Default)]
struct BackwardScratch {
    /// Queries, and weights in place of scores.
    forward: Scratch,
    /// (rows, S).
    d_out: Vec<f32>,
    /// (rows, keys).
    d_scores: Vec<f32>,
    /// (rows, S).
    dq: Vec<f32>,
}

fn backward_block(
    place: Place<'_>,
    block: Block,
    kept: Kept<'_>,
    scratch: &mut BackwardScratch,
    gradient: &mut StackGradient<'_>,
) {
    let (rows, keys, size) = (place.n_heads * block.len, block.n_keys(), place.size);
    score_block(place, block, &mut scratch.forward);
    let BackwardScratch { forward: Scratch { queries, scores: weights, .. }, d_out, d_scores, dq } = scratch;
    let q_width = kept.output.len() / kept.n;
    stack_rows(kept.d_output, q_width, place.query, block, place, d_out);
    d_scores.resize(rows * keys, 0.0);
    dq.resize(rows * size, 0.0);
    let stacked = Matrix::new(d_out, rows, size, size);
    for (range, column) in block.parts() {
        let target = Target::over(&mut d_scores[column..], keys);
        multiply(target, stacked, place.rows(place.value, range).t(), 1.0);
    }
    score_gradients(weights, d_scores, d_out, (place, block), kept);
    let queries = Matrix::new(queries, rows, size, size);
    for (n_done, (range, column)) in block.parts().enumerate() {
        let ds = Matrix::new(&d_scores[column..], rows, range.1, keys);
        let w = Matrix::new(&weights[column..], rows, range.1, keys);
        let seen = (range.0 - gradient.start) * size..(range.0 - gradient.start + range.1) * size;
        multiply(first_over(dq, size, n_done == 0), ds, place.rows(place.key, range), place.scale());
        multiply(Target::onto(&mut gradient.dk[seen.clone()], size), ds.t(), queries, place.scale());
        multiply(Target::onto(&mut gradient.dv[seen], size), w.t(), stacked, 1.0);
    }
    for (row, dq) in dq.chunks_exact(size).enumerate() {
        let (head, token) = (row / block.len, block.first + row % block.len);
        // SAFETY: this task alone writes the columns of this stack's queries at this sequence's tokens.
        unsafe { gradient.d_joined.part(token * place.width + place.query + head * size, size) }.copy_from_slice(dq);
    }
}
