//! The vocabulary head: linear, log-softmax and gather in one, a few rows at a time.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{
    gemm::{How, Matrix, Right, Target, Threads, product},
    host::{LANES, cap_in_place, exp, host, max_of, vectorised, write, written},
    product::Stored,
};
use crate::{
    domain::Dtype,
    model::ops::{CompletionLogps, Head, LogitShape, Scoring},
};

/// Logits that exist at once, in bytes: what stays in the last cache, and enough rows to read the weight seldom.
const SCRATCH_BYTES: usize = 32 << 20;

/// The factors of every product here.
struct Factors<'a> {
    hidden: &'a [f32],
    weight: Right<'a>,
    d: usize,
    v: usize,
    how: How,
}

impl<'a> Factors<'a> {
    fn new(hidden: &'a [f32], weight: impl Into<Right<'a>>, (v, d): (usize, usize), dtype: Dtype) -> Self {
        let how = How { scale: 1.0, dtype, threads: Threads::All };
        Self { hidden, weight: weight.into(), d, v, how }
    }

    /// Rows computed at once.
    fn n_rows(&self) -> usize {
        (SCRATCH_BYTES / (4 * self.v)).clamp(16, 256)
    }

    fn rows(&self, first: usize, n: usize) -> Matrix<'a> {
        Matrix::new(&self.hidden[first * self.d..], n, self.d, self.d)
    }

    fn logits(&self, first: usize, n: usize, logits: &mut [f32]) {
        product(Target::over(logits, self.v), self.rows(first, n), self.weight.t(), self.how);
    }

    /// `d_hidden` = `gradient` · W for some rows.
    fn d_hidden(&self, gradient: &[f32], n: usize, d_hidden: &mut [f32]) {
        product(Target::over(d_hidden, self.d), Matrix::new(gradient, n, self.v, self.v), self.weight, self.how);
    }
}

/// Log-probabilities, and their gradients where the head is frozen.
pub(super) fn forward(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &[u32],
    head: Head,
    LogitShape { softcap, dtype }: LogitShape,
) -> Result<CompletionLogps> {
    let (m, d) = hidden.dims2()?;
    let hidden = host::<f32>(hidden)?;
    let stored = Stored::of(weight)?;
    let v = weight.dim(0)?;
    let factors = Factors::new(hidden.as_slice(), stored.right((v, d)), (v, d), dtype);
    let n_rows = factors.n_rows();
    let mut logits = vec![0f32; n_rows.min(m) * v];
    let mut logps = Vec::with_capacity(m);
    let mut all_rows = |mut d_hidden: Option<&mut [f32]>| {
        for (first, targets) in targets.chunks(n_rows).enumerate().map(|(i, t)| (i * n_rows, t)) {
            let n = targets.len();
            let logits = &mut logits[..n * v];
            factors.logits(first, n, logits);
            let keeps_gradient = d_hidden.is_some();
            let rows = logits.par_chunks_mut(v).zip(targets).map(|(row, &target)| {
                cap(row, softcap);
                let (log_sum, target) = (log_sum_exp(row), target as usize);
                let logp = row[target] - log_sum;
                if keeps_gradient {
                    logp_gradient(row, log_sum, (target, 1.0), softcap);
                }
                logp
            });
            logps.extend(rows.collect::<Vec<f32>>());
            if let Some(d_hidden) = &mut d_hidden {
                factors.d_hidden(logits, n, &mut d_hidden[first * d..][..n * d]);
            }
        }
    };
    let d_hidden = match head {
        Head::Frozen => Some(written((m, d), |d_hidden| all_rows(Some(d_hidden)))?),
        Head::Score | Head::Trained => {
            all_rows(None);
            None
        }
    };
    Ok(CompletionLogps { logps, d_hidden })
}

/// dL/dhidden of a trained head; dL/dweight is added to `d_weight`.
pub(super) fn backward(
    hidden: &Tensor,
    weight: &Tensor,
    Scoring { targets, d_logps, logits: LogitShape { softcap, dtype } }: Scoring<'_>,
    d_weight: &Tensor,
) -> Result<Tensor> {
    let (m, d) = hidden.dims2()?;
    let v = weight.dim(0)?;
    let (hidden, weight) = (host::<f32>(hidden)?, host::<f32>(weight)?);
    let factors = Factors::new(hidden.as_slice(), Matrix::new(weight.as_slice(), v, d, d), (v, d), dtype);
    let n_rows = factors.n_rows();
    let mut logits = vec![0f32; n_rows.min(m) * v];
    write(d_weight, |d_weight| {
        written((m, d), |d_hidden| {
            for (first, targets) in targets.chunks(n_rows).enumerate().map(|(i, t)| (i * n_rows, t)) {
                let n = targets.len();
                let logits = &mut logits[..n * v];
                factors.logits(first, n, logits);
                logits.par_chunks_mut(v).zip(targets).zip(&d_logps[first..]).for_each(|((row, target), scale)| {
                    cap(row, softcap);
                    let log_sum = log_sum_exp(row);
                    logp_gradient(row, log_sum, (*target as usize, *scale), softcap);
                });
                factors.d_hidden(logits, n, &mut d_hidden[first * d..][..n * d]);
                let gradient = Matrix::new(logits, n, v, v);
                product(Target::onto(&mut *d_weight, d), gradient.t(), factors.rows(first, n), factors.how);
            }
        })
    })?
}

vectorised! {
    /// log Σ exp of one row of logits: short partial sums in lanes, added up in f64, keep the thousands of small terms that one
    /// long sum in f32 would lose beside the largest.
    fn log_sum_exp(row: &[f32]) -> f32 {
        const N_AT_ONCE: usize = 64 * LANES;
        let max = max_of(row);
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
}

fn cap(row: &mut [f32], softcap: Option<f32>) {
    if let Some(cap) = softcap {
        cap_in_place(row, cap);
    }
}

vectorised! {
    /// Turns a row of logits into the gradient of scale·log p(target): scale·(onehot(target) − softmax), and less of it the nearer a
    /// logit is to its cap.
    fn logp_gradient(row: &mut [f32], log_sum: f32, target: (usize, f32), softcap: Option<f32>) {
        let (target, scale) = target;
        let logit = row[target];
        let gradient = |x: f32| -scale * exp(x - log_sum);
        match softcap {
            None => {
                row.iter_mut().for_each(|x| *x = gradient(*x));
                row[target] += scale;
            }
            Some(cap) => {
                let slope = |x: f32| 1.0 - (x / cap) * (x / cap);
                row.iter_mut().for_each(|x| *x = gradient(*x) * slope(*x));
                row[target] += scale * slope(logit);
            }
        }
    }
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
