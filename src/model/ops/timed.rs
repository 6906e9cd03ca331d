//! Kernels that note how long each operation of other kernels takes: `mrpo run --op-times`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use candle_core::{DType, Device, Result, Tensor};

use super::{
    Activation, AdamWStep, Attention, AttentionShape, CompletionLogps, Factor, Head, Heads, Kernels, LogitShape,
    RopeTable, Scoring, Sum,
};
use crate::{domain::Dtype, model::layout::Sequence};

/// Set once, before the first model is built; nothing is timed without it.
static TIMES: OnceLock<Mutex<BTreeMap<String, Times>>> = OnceLock::new();

/// Other kernels, timed.
#[derive(Debug)]
struct Timed {
    inner: &'static dyn Kernels,
    /// Waited for before and after each operation: a GPU's go on beside the program.
    device: Device,
}

#[derive(Debug, Default, Clone, Copy)]
struct Times {
    n: u64,
    total: Duration,
    flop: f64,
}

/// From now on every operation of a model that is built is timed.
pub fn time_operations() {
    TIMES.get_or_init(Mutex::default);
}

/// `inner`, the kernels of `device`; timed, if operations are.
pub(super) fn timed_or_not(inner: &'static dyn Kernels, device: &Device) -> &'static dyn Kernels {
    // A process computes on one device.
    static TIMED: OnceLock<Timed> = OnceLock::new();
    if TIMES.get().is_none() {
        return inner;
    }
    TIMED.get_or_init(|| Timed { inner, device: device.clone() })
}

/// A table of all operations since the last, the longest first; `None` if nothing is timed.
pub fn operation_times() -> Option<String> {
    let times = std::mem::take(&mut *TIMES.get()?.lock().expect("nothing panicked while it was held"));
    let all: f64 = times.values().map(|t| t.total.as_secs_f64()).sum();
    let mut rows: Vec<_> = times.into_iter().collect();
    rows.sort_by_key(|(_, times)| std::cmp::Reverse(times.total));
    let mut table = format!("{:<44} {:>7} {:>9} {:>6} {:>9}\n", "operation", "calls", "seconds", "%", "GFLOP/s");
    for (name, Times { n, total, flop }) in rows {
        let seconds = total.as_secs_f64();
        let rate = if flop > 0.0 { format!("{:.0}", flop / seconds / 1e9) } else { String::new() };
        let share = 100.0 * seconds / all;
        writeln!(table, "{name:<44} {n:>7} {seconds:>9.3} {share:>6.1} {rate:>9}").expect("a string takes all");
    }
    writeln!(table, "{:<44} {:>7} {all:>9.3}", "all operations", "").expect("a string takes all");
    Some(table)
}

impl Timed {
    fn time<R>(&self, name: impl Into<String>, flop: f64, f: impl FnOnce(&dyn Kernels) -> R) -> R {
        // A device that cannot be waited for fails the next operation in words.
        let _ = self.device.synchronize();
        let begin = Instant::now();
        let result = f(self.inner);
        let _ = self.device.synchronize();
        let taken = begin.elapsed();
        let times = TIMES.get().expect("set before there were timed kernels");
        let mut times = times.lock().expect("nothing panicked while it was held");
        let of_this = times.entry(name.into()).or_default();
        of_this.n += 1;
        of_this.total += taken;
        of_this.flop += flop;
        result
    }
}

/// Multiplications and additions of a head's products, `n` times (M, D) by (D, V).
fn head_flop(hidden: &Tensor, weight: &Tensor, n: f64) -> f64 {
    2.0 * n * hidden.dims().first().map_or(0.0, |m| *m as f64) * weight.elem_count() as f64
}

impl Kernels for Timed {
    fn activations(&self, dtype: Dtype) -> DType {
        self.inner.activations(dtype)
    }

    fn add_products(&self, sums: &mut [&mut Sum], a: Factor<'_>, bs: &[Factor<'_>], scale: f64) -> Result<()> {
        let (m, k) = a.shape()?;
        let widths = bs.iter().map(|b| Ok(b.shape()?.1)).collect::<Result<Vec<_>>>()?;
        let n: usize = widths.iter().sum();
        let widths = widths.iter().map(usize::to_string).collect::<Vec<_>>().join("+");
        // Where k is the batch's tokens it differs from call to call: such products make gradients.
        let name = match a {
            Factor::Plain(_) => format!("product tokens × {k} × {widths}"),
            Factor::Transposed(_) => format!("product {m} × tokens × {widths}"),
        };
        self.time(name, 2.0 * (m * k) as f64 * n as f64, |kernels| kernels.add_products(sums, a, bs, scale))
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
        self.time("rms_norm", 0.0, |kernels| kernels.rms_norm(x, weight, eps))
    }

    fn rms_norm_again(&self, x: &Tensor, weight: &Tensor, inverse: &Tensor) -> Result<Tensor> {
        self.time("rms_norm_again", 0.0, |kernels| kernels.rms_norm_again(x, weight, inverse))
    }

    fn rms_norm_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        inverse: &Tensor,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        self.time("rms_norm_backward", 0.0, |kernels| kernels.rms_norm_backward(dy, x, weight, inverse, residual))
    }

    fn rms_norm_weight_gradient(&self, dy: &Tensor, x: &Tensor, inverse: &Tensor) -> Result<Tensor> {
        self.time("rms_norm_weight_gradient", 0.0, |kernels| kernels.rms_norm_weight_gradient(dy, x, inverse))
    }

    fn centred(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        self.time("centred", 0.0, |kernels| kernels.centred(x, residual))
    }

    fn add_bias(&self, to: &Tensor, bias: &Tensor) -> Result<()> {
        self.time("add_bias", 0.0, |kernels| kernels.add_bias(to, bias))
    }

    fn column_sums(&self, x: &Tensor) -> Result<Tensor> {
        self.time("column_sums", 0.0, |kernels| kernels.column_sums(x))
    }

    fn join_rotated(&self, q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads, table: &RopeTable) -> Result<Tensor> {
        self.time("join_rotated", 0.0, |kernels| kernels.join_rotated(q, k, v, heads, table))
    }

    fn split_rotated_back(
        &self,
        gradient: &Tensor,
        heads: Heads,
        table: &RopeTable,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        self.time("split_rotated_back", 0.0, |kernels| kernels.split_rotated_back(gradient, heads, table))
    }

    fn attention(&self, joined: &Tensor, sequences: &[Sequence], shape: AttentionShape) -> Result<Attention> {
        self.time("attention", 0.0, |kernels| kernels.attention(joined, sequences, shape))
    }

    fn attention_last(&self, joined: &Tensor, shape: AttentionShape) -> Result<Tensor> {
        self.time("attention_last", 0.0, |kernels| kernels.attention_last(joined, shape))
    }

    fn attention_backward(
        &self,
        d_output: &Tensor,
        joined: &Tensor,
        kept: &Attention,
        sequences: &[Sequence],
        shape: AttentionShape,
    ) -> Result<Tensor> {
        self.time("attention_backward", 0.0, |k| k.attention_backward(d_output, joined, kept, sequences, shape))
    }

    fn activated(&self, x: &Tensor, f: Activation) -> Result<Tensor> {
        self.time("activated", 0.0, |kernels| kernels.activated(x, f))
    }

    fn activated_backward(&self, dy: &Tensor, x: &Tensor, f: Activation) -> Result<Tensor> {
        self.time("activated_backward", 0.0, |kernels| kernels.activated_backward(dy, x, f))
    }

    fn gated(&self, gate: &Tensor, up: &Tensor, f: Activation) -> Result<Tensor> {
        self.time("gated", 0.0, |kernels| kernels.gated(gate, up, f))
    }

    fn gated_backward(&self, dy: &Tensor, gate: &Tensor, up: &Tensor, f: Activation) -> Result<(Tensor, Tensor)> {
        self.time("gated_backward", 0.0, |kernels| kernels.gated_backward(dy, gate, up, f))
    }

    fn completion_logps(
        &self,
        hidden: &Tensor,
        weight: &Tensor,
        targets: &[u32],
        head: Head,
        logits: LogitShape,
    ) -> Result<CompletionLogps> {
        let (name, n) = match head {
            Head::Score | Head::Trained => ("completion_logps", 1.0),
            Head::Frozen => ("completion_logps with gradient", 2.0),
        };
        let flop = head_flop(hidden, weight, n);
        self.time(name, flop, |kernels| kernels.completion_logps(hidden, weight, targets, head, logits))
    }

    fn head_backward(
        &self,
        hidden: &Tensor,
        weight: &Tensor,
        scoring: Scoring<'_>,
        d_weight: &Tensor,
    ) -> Result<Tensor> {
        let flop = head_flop(hidden, weight, 3.0);
        self.time("head_backward", flop, |kernels| kernels.head_backward(hidden, weight, scoring, d_weight))
    }

    fn squared_norm(&self, x: &Tensor) -> Result<f64> {
        self.time("squared_norm", 0.0, |kernels| kernels.squared_norm(x))
    }

    fn add_rows(&self, to: &Tensor, rows: &[u32], x: &Tensor) -> Result<()> {
        self.time("add_rows", 0.0, |kernels| kernels.add_rows(to, rows, x))
    }

    fn add_in_place(&self, to: &Tensor, x: &Tensor) -> Result<()> {
        self.time("add_in_place", 0.0, |kernels| kernels.add_in_place(to, x))
    }

    fn adamw(&self, parameter: &Tensor, gradient: &Tensor, moments: (&Tensor, &Tensor), step: AdamWStep) -> Result<()> {
        self.time("adamw", 0.0, |kernels| kernels.adamw(parameter, gradient, moments, step))
    }
}
