//! The backward: a tile's scores are computed again, from the log-sum-exp of each row that the forward has kept.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{
    Matrix, Target,
    blocks::{Block, Place, Stack, Tile, stack_rows},
    multiply, score_tile, tasks,
};
use crate::model::{
    layout::Sequence,
    ops::{
        Attention, AttentionShape, Heads,
        cpu::{
            host::{Parts, exp, for_row_chunks, host, lane_sum, vectorised, write, written, written_pair},
            rms_norm::add,
        },
    },
};

/// The gradient of the joined tensor.
pub(in crate::model::ops::cpu) fn backward(
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
