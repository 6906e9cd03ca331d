//! The vocabulary head as log-probabilities of given tokens: linear, log-softmax and gather in one, a few rows at a time.
//!
//! The logits of all tokens (M × V) never exist. Where the head is frozen, the gradient of each log-probability with respect
//! to its hidden state is made in the same pass and scaled by dL/dlogp later: two vocabulary products instead of three.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{
    host::{exp, host, tensor},
    matrix::{Matrix, Target, Threads, product},
};

/// Rows computed at once: a compromise between the scratch (rows × V floats) and reading the weight again.
const ROWS: usize = 128;

/// What the forward yields.
#[derive(Debug, Clone)]
pub struct CompletionLogps {
    /// log p(target) per row, in nats.
    pub logps: Vec<f32>,
    /// With `Head::Frozen`: d logp / d hidden per row, (M, D).
    pub d_hidden: Option<Tensor>,
}

/// Which gradients the head will be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// None: only log-probabilities.
    Score,
    /// Of the hidden states only.
    Frozen,
    /// Of the weight too: the backward computes the logits again.
    Trained,
}

/// Forward. `hidden` (M, D), `weight` (V, D), one target below V per row.
pub fn completion_logps(hidden: &Tensor, weight: &Tensor, targets: &[u32], head: Head) -> Result<CompletionLogps> {
    let (m, d) = hidden.dims2()?;
    let v = weight.dim(0)?;
    let (hidden, weight) = (host(hidden)?, host(weight)?);
    let mut logps = Vec::with_capacity(m);
    let mut d_hidden = vec![0f32; if head == Head::Frozen { m * d } else { 0 }];
    let mut logits = vec![0f32; ROWS.min(m) * v];
    for (first, targets) in targets.chunks(ROWS).enumerate().map(|(i, t)| (i * ROWS, t)) {
        let rows = Matrix::new(&hidden.as_slice()[first * d..], targets.len(), d, d);
        let logits = &mut logits[..targets.len() * v];
        logit_rows(rows, weight.as_slice(), v, d, logits);
        let chunk: Vec<f32> = logits
            .par_chunks_mut(v)
            .zip(targets)
            .map(|(row, &target)| {
                let (log_sum, target) = (log_sum_exp(row), target as usize);
                let logp = row[target] - log_sum;
                if head == Head::Frozen {
                    logp_gradient(row, log_sum, target, 1.0);
                }
                logp
            })
            .collect();
        logps.extend(chunk);
        if head == Head::Frozen {
            let into = Target { numbers: &mut d_hidden[first * d..][..targets.len() * d], row_stride: d, add: false };
            let gradient = Matrix::new(logits, targets.len(), v, v);
            product(into, gradient, Matrix::new(weight.as_slice(), v, d, d), 1.0, Threads::All);
        }
    }
    let d_hidden = if head == Head::Frozen { Some(tensor(d_hidden, (m, d))?) } else { None };
    Ok(CompletionLogps { logps, d_hidden })
}

/// Backward of a trained head. `d_logps` is dL/dlogp per row; returns dL/dhidden (M, D) and dL/dweight (V, D).
pub fn head_backward(hidden: &Tensor, weight: &Tensor, targets: &[u32], d_logps: &[f32]) -> Result<(Tensor, Tensor)> {
    let (m, d) = hidden.dims2()?;
    let v = weight.dim(0)?;
    let (hidden, weight) = (host(hidden)?, host(weight)?);
    let (mut d_hidden, mut d_weight) = (vec![0f32; m * d], vec![0f32; v * d]);
    let mut logits = vec![0f32; ROWS.min(m) * v];
    for (first, targets) in targets.chunks(ROWS).enumerate().map(|(i, t)| (i * ROWS, t)) {
        let n = targets.len();
        let rows = Matrix::new(&hidden.as_slice()[first * d..], n, d, d);
        let logits = &mut logits[..n * v];
        logit_rows(rows, weight.as_slice(), v, d, logits);
        logits.par_chunks_mut(v).zip(targets).zip(&d_logps[first..]).for_each(|((row, target), scale)| {
            let log_sum = log_sum_exp(row);
            logp_gradient(row, log_sum, *target as usize, *scale);
        });
        let gradient = Matrix::new(logits, n, v, v);
        let into = Target { numbers: &mut d_hidden[first * d..][..n * d], row_stride: d, add: false };
        product(into, gradient, Matrix::new(weight.as_slice(), v, d, d), 1.0, Threads::All);
        product(Target { numbers: &mut d_weight, row_stride: d, add: true }, gradient.t(), rows, 1.0, Threads::All);
    }
    Ok((tensor(d_hidden, (m, d))?, tensor(d_weight, (v, d))?))
}

fn logit_rows(rows: Matrix<'_>, weight: &[f32], v: usize, d: usize, logits: &mut [f32]) {
    let target = Target { numbers: logits, row_stride: v, add: false };
    product(target, rows, Matrix::new(weight, v, d, d).t(), 1.0, Threads::All);
}

/// log Σ exp of one row of logits. Short partial sums in lanes let the loop be vectorised, and keep the thousands of small
/// terms that one long sum in f32 would lose beside the largest.
fn log_sum_exp(row: &[f32]) -> f32 {
    const LANES: usize = 16;
    const N_AT_ONCE: usize = 64 * LANES;
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0f64;
    for block in row.chunks(N_AT_ONCE) {
        let mut sums = [0f32; LANES];
        let chunks = block.chunks_exact(LANES);
        sum += chunks.remainder().iter().map(|x| f64::from(exp(*x - max))).sum::<f64>();
        for chunk in chunks {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                *sum += exp(*x - max);
            }
        }
        sum += sums.iter().map(|s| f64::from(*s)).sum::<f64>();
    }
    (f64::from(max) + sum.ln()) as f32
}

/// Turns a row of logits into scale·(onehot(target) − softmax): the gradient of scale·log p(target).
fn logp_gradient(row: &mut [f32], log_sum: f32, target: usize, scale: f32) {
    for x in row.iter_mut() {
        *x = -scale * exp(*x - log_sum);
    }
    row[target] += scale;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_terms_are_not_lost_beside_a_large_one() {
        let row: Vec<f32> = (0..49_152).map(|i| if i == 7 { 0.0 } else { -17.0 + (i % 101) as f32 * 1e-3 }).collect();
        let exact = row.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        assert!((f64::from(log_sum_exp(&row)) - exact).abs() < 4e-6, "{} against {exact}", log_sum_exp(&row));
    }
}
