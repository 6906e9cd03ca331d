//! Causal attention over packed sequences whose segments may share a prefix, without ever keeping a T × T matrix.
//!
//! Queries are taken in blocks and keys in tiles; a tile's scores live in a scratch buffer of the second-level cache, and a row's softmax
//! goes along with its largest score so far. The backward computes the scores again from the kept log-sum-exp of each row
//! (FlashAttention-2, arXiv 2307.08691). Query heads that share keys and values are stacked, so that these are read once for all
//! of them. Where a tile begins depends on the segment alone, and so do the results.

mod backward;
mod blocks;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

pub(super) use self::backward::backward;
use self::blocks::{Block, Place, Stack, Tile, stack_rows};
use super::{
    gemm::{How, Matrix, Target, Threads, product},
    host::{Parts, cap_in_place, exp, exp_in_place, host, max_of, vectorised, written, written_pair},
};
use crate::{
    domain::Dtype,
    model::{
        layout::Sequence,
        ops::{Attention, AttentionShape, Heads},
    },
};

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
