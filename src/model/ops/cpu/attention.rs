//! Causal attention over packed sequences whose segments may share a prefix, without ever keeping a T × T matrix.
//!
//! Queries are taken in blocks and keys in tiles; a tile's scores live in a scratch buffer of the second-level cache, and a row's softmax
//! goes along with its largest score so far. The backward computes the scores again from the kept log-sum-exp of each row
//! (FlashAttention-2, arXiv 2307.08691). Query heads that share keys and values are stacked, so that these are read once for all
//! of them. Where a tile begins depends on the segment alone, and so do the results.

use std::ops::Range;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{
    gemm::{How, Matrix, Target, Threads, product},
    host::{
        Parts, cap_in_place, exp, exp_in_place, for_row_chunks, host, lane_sum, max_of, vectorised, write, written,
        written_pair,
    },
    rms_norm::add,
};
use crate::{
    domain::Dtype,
    model::{
        layout::{Segment, Sequence},
        ops::{Attention, AttentionShape, Heads},
    },
};

/// Rows of stacked queries in a block: nine panels of the product's kernel.
const STACKED_ROWS: usize = 126;
/// Most queries in a block: the scores behind the diagonal are computed for nothing.
const MAX_BLOCK: usize = 70;
/// Keys in a tile.
const TILE: usize = 256;

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
    scale: f32,
    softcap: Option<f32>,
    dtype: Dtype,
}

impl<'a> Place<'a> {
    fn new(joined: &'a [f32], shape: AttentionShape, stack: Stack) -> Self {
        let AttentionShape { heads, scale, softcap, dtype, .. } = shape;
        Self {
            joined,
            scale,
            softcap,
            dtype,
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

/// A block of queries of one segment, and the keys before its last: the whole prefix, then the segment so far.
#[derive(Clone, Copy)]
struct Block {
    first: usize,
    len: usize,
    prefix: (usize, usize),
    own: (usize, usize),
    /// Keys a query sees at most.
    window: usize,
}

impl Block {
    fn all(sequence: &Sequence, n_at_once: usize, window: Option<usize>) -> impl Iterator<Item = Self> + '_ {
        let window = window.unwrap_or(usize::MAX);
        sequence.segments.iter().flat_map(move |segment| Self::of(segment, n_at_once, window))
    }

    fn of(segment: &Segment, n_at_once: usize, window: usize) -> impl Iterator<Item = Self> + '_ {
        (0..segment.len).step_by(n_at_once).map(move |at| {
            let len = n_at_once.min(segment.len - at);
            Self {
                first: segment.start + at,
                len,
                prefix: (segment.prefix.start, segment.prefix.len()),
                own: (segment.start, at + len),
                window,
            }
        })
    }

    /// Which of the keys query `i` of the block sees: the nearest up to itself.
    fn visible(self, i: usize) -> Range<usize> {
        let end = self.prefix.1 + (self.first - self.own.0) + i + 1;
        end.saturating_sub(self.window)..end
    }

    /// The keys the block sees, in tiles. Where these begin does not depend on the window.
    fn tiles(self) -> impl Iterator<Item = Tile> {
        let first_seen = self.visible(0).start;
        let parts = [(self.prefix, 0), (self.own, self.prefix.1)];
        let tiles = parts.into_iter().flat_map(|((first, len), before)| {
            (0..len).step_by(TILE).map(move |at| Tile {
                first: first + at,
                len: TILE.min(len - at),
                before: before + at,
            })
        });
        tiles.filter(move |tile| tile.before + tile.len > first_seen)
    }
}

/// Some neighbouring keys.
#[derive(Clone, Copy)]
struct Tile {
    first: usize,
    len: usize,
    /// Keys of the block that come before.
    before: usize,
}

impl Tile {
    /// Which of its keys query `i` of the block sees.
    fn visible(self, block: Block, i: usize) -> Range<usize> {
        let seen = block.visible(i);
        let end = seen.end.saturating_sub(self.before).min(self.len);
        seen.start.saturating_sub(self.before).min(end)..end
    }

    fn keys(self) -> (usize, usize) {
        (self.first, self.len)
    }
}

/// A product on this thread.
fn multiply<'a>(target: Target<'a>, a: Matrix<'_>, b: Matrix<'a>, scale: f32, dtype: Dtype) {
    product(target, a, b, How { scale, dtype, threads: Threads::One });
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
    /// (rows, tile).
    scores: Vec<f32>,
    /// (rows, S).
    out: Vec<f32>,
    /// Per row the largest score so far.
    largest: Vec<f32>,
    /// Per row Σ exp(score − largest).
    sums: Vec<f32>,
}

/// Output and log-sums.
pub(super) fn forward(joined: &Tensor, sequences: &[Sequence], shape: AttentionShape) -> Result<Attention> {
    let heads = shape.heads;
    let n = joined.dim(0)?;
    let numbers = host::<f32>(joined)?;
    let numbers = numbers.as_slice();
    let (output, log_sums) = written_pair((n, heads.q_width()), (heads.query, n), |output, log_sums| {
        let (output, log_sums) = (Parts::new(output), Parts::new(log_sums));
        tasks(sequences, heads).par_iter().with_max_len(1).for_each(|(sequence, stack)| {
            let place = Place::new(numbers, shape, *stack);
            let mut scratch = Scratch::default();
            for block in Block::all(sequence, stack.block(), shape.window) {
                forward_block(place, block, &mut scratch);
                for (head, i) in (0..stack.n).flat_map(|head| (0..block.len).map(move |i| (head, i))) {
                    let (row, token) = (head * block.len + i, block.first + i);
                    let start = token * heads.q_width() + place.query + head * heads.size;
                    // SAFETY: this task alone writes its heads' columns and log-sums of this sequence's tokens.
                    let (output, log_sum) =
                        unsafe { (output.part(start, heads.size), log_sums.part((stack.first + head) * n + token, 1)) };
                    output.copy_from_slice(&scratch.out[row * heads.size..][..heads.size]);
                    log_sum[0] = scratch.largest[row] + scratch.sums[row].ln();
                }
            }
        });
    })?;
    Ok(Attention { output, log_sums })
}

/// The last token of one sequence, (1, H·S).
pub(super) fn last(joined: &Tensor, shape: AttentionShape) -> Result<Tensor> {
    let heads = shape.heads;
    let n = joined.dim(0)?;
    let numbers = host::<f32>(joined)?;
    written((1, heads.q_width()), |output| {
        let mut scratch = Scratch::default();
        let window = shape.window.unwrap_or(usize::MAX);
        let block = Block { first: n - 1, len: 1, prefix: (0, 0), own: (0, n), window };
        for stack in Stack::all(heads) {
            forward_block(Place::new(numbers.as_slice(), shape, stack), block, &mut scratch);
            output[stack.first * heads.size..][..stack.n * heads.size].copy_from_slice(&scratch.out);
        }
    })
}

/// A block's output, left in `scratch`, with the largest score and the sum of each row.
fn forward_block(place: Place<'_>, block: Block, scratch: &mut Scratch) {
    let (rows, size) = (place.n_heads * block.len, place.size);
    let Scratch { queries, scores, out, largest, sums } = scratch;
    stack_rows(place.joined, place.width, place.query, block, place, queries);
    for (numbers, value) in [(&mut *largest, f32::NEG_INFINITY), (&mut *sums, 0.0)] {
        numbers.clear();
        numbers.resize(rows, value);
    }
    out.clear();
    out.resize(rows * size, 0.0);
    for tile in block.tiles() {
        score_tile(place, (rows, queries), tile, scores);
        softmax_tile(scores, out, (block, tile), (largest, sums));
        let weights = Matrix::new(scores, rows, tile.len, tile.len);
        multiply(Target::onto(out, size), weights, place.rows(place.value, tile.keys()), 1.0, place.dtype);
    }
    divide_rows(out, sums);
}

/// The scores of a tile, (rows, tile); those that no query sees are computed too and never read.
fn score_tile(place: Place<'_>, (rows, queries): (usize, &[f32]), tile: Tile, scores: &mut Vec<f32>) {
    scores.resize(rows * tile.len, 0.0);
    let queries = Matrix::new(queries, rows, place.size, place.size);
    let keys = place.rows(place.key, tile.keys()).t();
    multiply(Target::over(scores, tile.len), queries, keys, place.scale, place.dtype);
    if let Some(cap) = place.softcap {
        cap_in_place(scores, cap);
    }
}

vectorised! {
    /// Scores to exp(score − the row's largest so far), 0 where the query does not see the key; what was added up under a smaller largest shrinks.
    fn softmax_tile(scores: &mut [f32], out: &mut [f32], at: (Block, Tile), rows: (&mut [f32], &mut [f32])) {
        let ((block, tile), (largest, sums)) = (at, rows);
        let size = out.len() / sums.len();
        let of_row = scores.chunks_exact_mut(tile.len).zip(out.chunks_exact_mut(size)).zip(largest).zip(sums);
        for (row, (((scores, out), largest), sum)) in of_row.enumerate() {
            let visible = tile.visible(block, row % block.len);
            scores[..visible.start].fill(0.0);
            scores[visible.end..].fill(0.0);
            let visible = &mut scores[visible];
            let tile_largest = max_of(visible);
            if tile_largest > *largest {
                let shrink = exp(*largest - tile_largest);
                out.iter_mut().for_each(|x| *x *= shrink);
                *sum *= shrink;
                *largest = tile_largest;
            }
            *sum += exp_in_place(visible, *largest);
        }
    }
}

vectorised! {
    fn divide_rows(rows: &mut [f32], divisors: &[f32]) {
        let width = rows.len() / divisors.len();
        for (row, divisor) in rows.chunks_exact_mut(width).zip(divisors) {
            let inverse = 1.0 / divisor;
            row.iter_mut().for_each(|x| *x *= inverse);
        }
    }
}

/// The gradient of the joined tensor.
pub(super) fn backward(
    d_output: &Tensor,
    joined: &Tensor,
    kept: &Attention,
    sequences: &[Sequence],
    shape: AttentionShape,
) -> Result<Tensor> {
    let heads = shape.heads;
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
                let place = Place::new(joined.as_slice(), shape, *stack);
                let mut gradient = StackGradient { d_joined, dk, dv, start: sequence.start() };
                let mut scratch = BackwardScratch::default();
                for block in Block::all(sequence, stack.block(), shape.window) {
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
    /// Scores to weights, and the gradients of weights to those of scores. `dots` has per row Σ d_output ⊙ output: what the softmax
    /// takes off every score's gradient. A capped score is the flatter the nearer it is to the cap.
    fn score_gradients(
        weights: &mut [f32],
        d_scores: &mut [f32],
        at: (Block, Tile, Option<f32>),
        rows: (&[f32], &[f32]),
    ) {
        let ((block, tile, softcap), (log_sums, dots)) = (at, rows);
        let of_row = weights.chunks_exact_mut(tile.len).zip(d_scores.chunks_exact_mut(tile.len)).zip(log_sums).zip(dots);
        for (row, (((weights, d_scores), log_sum), dot)) in of_row.enumerate() {
            let visible = tile.visible(block, row % block.len);
            for hidden in [0..visible.start, visible.end..tile.len] {
                weights[hidden.clone()].fill(0.0);
                d_scores[hidden].fill(0.0);
            }
            let of_key = weights[visible.clone()].iter_mut().zip(&mut d_scores[visible]);
            match softcap {
                None => of_key.for_each(|(w, ds)| {
                    *w = exp(*w - log_sum);
                    *ds = *w * (*ds - dot);
                }),
                Some(cap) => of_key.for_each(|(w, ds)| {
                    let slope = 1.0 - (*w / cap) * (*w / cap);
                    *w = exp(*w - log_sum);
                    *ds = *w * (*ds - dot) * slope;
                }),
            }
        }
    }
}

vectorised! {
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        lane_sum(a.len(), |i| a[i] * b[i])
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
    /// (rows, S).
    queries: Vec<f32>,
    /// (rows, S).
    d_out: Vec<f32>,
    /// Scores, then weights, (rows, tile).
    weights: Vec<f32>,
    /// (rows, tile).
    d_scores: Vec<f32>,
    /// (rows, S).
    dq: Vec<f32>,
    /// Per row log Σ exp.
    log_sums: Vec<f32>,
    /// Per row Σ d_output ⊙ output.
    dots: Vec<f32>,
}

fn backward_block(
    place: Place<'_>,
    block: Block,
    kept: Kept<'_>,
    scratch: &mut BackwardScratch,
    gradient: &mut StackGradient<'_>,
) {
    let (rows, size, dtype) = (place.n_heads * block.len, place.size, place.dtype);
    let BackwardScratch { queries, d_out, weights, d_scores, dq, log_sums, dots } = scratch;
    stack_rows(place.joined, place.width, place.query, block, place, queries);
    stack_rows(kept.d_output, kept.output.len() / kept.n, place.query, block, place, d_out);
    log_sums.clear();
    dots.clear();
    for row in 0..rows {
        let (log_sum, output) = kept.row(place, block, row);
        log_sums.push(log_sum);
        dots.push(dot(&d_out[row * size..][..size], output));
    }
    dq.clear();
    dq.resize(rows * size, 0.0);
    let stacked = Matrix::new(queries, rows, size, size);
    let d_stacked = Matrix::new(d_out, rows, size, size);
    for tile in block.tiles() {
        score_tile(place, (rows, queries), tile, weights);
        d_scores.resize(rows * tile.len, 0.0);
        let values = place.rows(place.value, tile.keys());
        multiply(Target::over(d_scores, tile.len), d_stacked, values.t(), 1.0, dtype);
        score_gradients(weights, d_scores, (block, tile, place.softcap), (log_sums, dots));
        let ds = Matrix::new(d_scores, rows, tile.len, tile.len);
        let w = Matrix::new(weights, rows, tile.len, tile.len);
        let seen = (tile.first - gradient.start) * size..(tile.first - gradient.start + tile.len) * size;
        multiply(Target::onto(dq, size), ds, place.rows(place.key, tile.keys()), place.scale, dtype);
        multiply(Target::onto(&mut gradient.dk[seen.clone()], size), ds.t(), stacked, place.scale, dtype);
        multiply(Target::onto(&mut gradient.dv[seen], size), w.t(), d_stacked, 1.0, dtype);
    }
    for (row, dq) in dq.chunks_exact(size).enumerate() {
        let (head, token) = (row / block.len, block.first + row % block.len);
        // SAFETY: this task alone writes the columns of this stack's queries at this sequence's tokens.
        unsafe { gradient.d_joined.part(token * place.width + place.query + head * size, size) }.copy_from_slice(dq);
    }
}
