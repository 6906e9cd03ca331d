//! The operations of the trainable models, each with a forward and a backward of its own, for each kind of device.
//!
//! candle's fused `rms_norm`, `softmax_last_dim` and `rope` have no backward and drop gradients without an error, and its
//! autograd keeps every intermediate; so nothing here is ever recorded on candle's graph. candle's tensors carry the numbers,
//! [`Kernels`] computes with them. Every result row depends on its own inputs only and is summed in a fixed order, so results
//! depend neither on how rows are spread over threads nor on what else is in a batch.

mod activation;
mod cpu;
#[cfg(any(feature = "cuda", test))]
pub(in crate::model) mod cuda;
mod heads;
mod rope;
mod sum;
mod timed;

use candle_core::{DType, Device, Result, Tensor, bail};

pub use activation::Activation;
pub use heads::{Attention, AttentionShape, Heads};
pub use rope::RopeTable;
pub use sum::{Compute, Factor, Sum};
pub use timed::{operation_times, time_operations};

use super::layout::Sequence;
use crate::domain::Dtype;

/// Which gradients a vocabulary head will be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// None: only log-probabilities.
    Score,
    /// Of the hidden states only.
    Frozen,
    /// Of the weight too: the backward computes the logits again.
    Trained,
}

/// What [`Kernels::completion_logps`] yields.
#[derive(Debug, Clone)]
pub struct CompletionLogps {
    /// log p(target) per row, in nats.
    pub logps: Vec<f32>,
    /// With `Head::Frozen`: d logp / d hidden per row, (M, D).
    pub d_hidden: Option<Tensor>,
}

/// How a vocabulary head makes logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitShape {
    /// Logits z become c·tanh(z/c) (Gemma 2, arXiv 2408.00118).
    pub softcap: Option<f32>,
    /// What the factors are rounded to.
    pub dtype: Dtype,
}

/// What the backward of a trained head is asked.
#[derive(Debug, Clone, Copy)]
pub struct Scoring<'a> {
    /// One target below V per row.
    pub targets: &'a [u32],
    /// dL/dlogp per row.
    pub d_logps: &'a [f32],
    /// How the forward made the logits.
    pub logits: LogitShape,
}

/// One step of `AdamW` for one parameter, everything but the tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// β1.
    pub beta1: f32,
    /// β2.
    pub beta2: f32,
    /// ε.
    pub epsilon: f32,
    /// Learning rate over the bias correction of the first moment, 1 − β1^t.
    pub step_size: f32,
    /// Square root of the bias correction of the second moment, √(1 − β2^t).
    pub root_correction: f32,
    /// What the parameter is multiplied by before the step: 1 − learning rate × weight decay.
    pub decay: f32,
    /// What the gradient is multiplied by first (clipping).
    pub gradient_scale: f32,
}

/// What a kind of device computes for the models.
///
/// Activations are (tokens, columns), contiguous, in the type [`Kernels::activations`] names; statistics, log-probabilities,
/// trained parameters and their gradients are float32.
pub trait Kernels: std::fmt::Debug + Send + Sync {
    /// The type activations have in this precision.
    fn activations(&self, dtype: Dtype) -> DType;

    /// Adds `scale · a · b` to each of `sums` (or begins it, with its residual if it has one): several right factors, one left one.
    /// Shapes are checked.
    fn add_products(&self, sums: &mut [&mut Sum], a: Factor<'_>, bs: &[Factor<'_>], scale: f64) -> Result<()>;

    /// Root-mean-square normalisation y = w ⊙ x / √(mean(x²) + ε) (arXiv 1910.07467). `x` (N, D), `weight` (D). Returns y (N, D) and
    /// 1/√(mean(x²) + ε) per row (N), which the backward needs.
    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)>;

    /// y of [`Kernels::rms_norm`] once more, from the kept 1/rms: cheaper to compute than to keep.
    fn rms_norm_again(&self, x: &Tensor, weight: &Tensor, inverse: &Tensor) -> Result<Tensor>;

    /// Backward. With g = w ⊙ dy: dx = r·(g − x·r²·mean(g ⊙ x)) where r = 1/rms, plus `residual` where the input went on beside
    /// the normalisation too. Returns dx (N, D).
    fn rms_norm_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        inverse: &Tensor,
        residual: Option<&Tensor>,
    ) -> Result<Tensor>;

    /// Gradient of the weight: dw = Σ_rows dy ⊙ x·r, shape (D).
    fn rms_norm_weight_gradient(&self, dy: &Tensor, x: &Tensor, inverse: &Tensor) -> Result<Tensor>;

    /// Each row less its mean, plus `residual`: with [`Kernels::rms_norm`] of it, layer normalisation (arXiv 1607.06450). Its own
    /// backward. `x` (N, D); returns (N, D).
    fn centred(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor>;

    /// Adds `bias` (D, float32) to every row of `to` (N, D), in place.
    fn add_bias(&self, to: &Tensor, bias: &Tensor) -> Result<()>;

    /// Σ over the rows of `x` (N, D), in order: a bias's gradient, (D), float32.
    fn column_sums(&self, x: &Tensor) -> Result<Tensor>;

    /// Joins q (N, H·S), k (N, K·S) and v (N, K·S) into one tensor (N, (H+2K)·S), q and k turned by their positions' angles
    /// (RoPE, arXiv 2104.09864, on the first and second half of each head, as Hugging Face lays it out). Where the table has fewer
    /// than S/2 angles per position, the numbers of a head behind twice as many stay as they are.
    fn join_rotated(&self, q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads, table: &RopeTable) -> Result<Tensor>;

    /// The backward of [`Kernels::join_rotated`]: splits the gradient and turns it back.
    fn split_rotated_back(
        &self,
        gradient: &Tensor,
        heads: Heads,
        table: &RopeTable,
    ) -> Result<(Tensor, Tensor, Tensor)>;

    /// Causal attention over packed sequences whose segments may share a prefix. `joined` (N, (H+2K)·S) as made by
    /// `join_rotated`.
    fn attention(&self, joined: &Tensor, sequences: &[Sequence], shape: AttentionShape) -> Result<Attention>;

    /// Attention of the last token of one sequence to all of it, for sampling. `joined` (T, (H+2K)·S); returns (1, H·S).
    fn attention_last(&self, joined: &Tensor, shape: AttentionShape) -> Result<Tensor>;

    /// Backward of [`Kernels::attention`]. `d_output` (N, H·S); returns the gradient of `joined` (N, (H+2K)·S).
    fn attention_backward(
        &self,
        d_output: &Tensor,
        joined: &Tensor,
        kept: &Attention,
        sequences: &[Sequence],
        shape: AttentionShape,
    ) -> Result<Tensor>;

    /// f(x) (N, I).
    fn activated(&self, x: &Tensor, f: Activation) -> Result<Tensor>;

    /// Backward of [`Kernels::activated`]: dy ⊙ f′(x).
    fn activated_backward(&self, dy: &Tensor, x: &Tensor, f: Activation) -> Result<Tensor>;

    /// f(gate) ⊙ up (arXiv 2002.05202), all (N, I).
    fn gated(&self, gate: &Tensor, up: &Tensor, f: Activation) -> Result<Tensor>;

    /// Backward of [`Kernels::gated`]: (dgate, dup), both (N, I).
    fn gated_backward(&self, dy: &Tensor, gate: &Tensor, up: &Tensor, f: Activation) -> Result<(Tensor, Tensor)>;

    /// Log-probabilities of given tokens: vocabulary head, log-softmax and gather in one, so that the logits of all tokens never
    /// exist. `hidden` (M, D), `weight` (V, D), one target below V per row. With [`Head::Frozen`] the gradient of each
    /// log-probability is made in the same pass, to be scaled by dL/dlogp later: two vocabulary products instead of three.
    fn completion_logps(
        &self,
        hidden: &Tensor,
        weight: &Tensor,
        targets: &[u32],
        head: Head,
        logits: LogitShape,
    ) -> Result<CompletionLogps>;

    /// Backward of a trained head: adds dL/dweight to `d_weight` (V, D) in place and returns dL/dhidden (M, D).
    fn head_backward(
        &self,
        hidden: &Tensor,
        weight: &Tensor,
        scoring: Scoring<'_>,
        d_weight: &Tensor,
    ) -> Result<Tensor>;

    /// Σ x², in a fixed order.
    fn squared_norm(&self, x: &Tensor) -> Result<f64>;

    /// Adds row i of `x` (N, D) to row `rows[i]` of `to` (V, D, float32), in place and in order.
    fn add_rows(&self, to: &Tensor, rows: &[u32], x: &Tensor) -> Result<()>;

    /// `to += x`, in place.
    fn add_in_place(&self, to: &Tensor, x: &Tensor) -> Result<()>;

    /// Moves `parameter` and its two moments in place (`AdamW`, arXiv 1711.05101, as PyTorch computes it).
    fn adamw(&self, parameter: &Tensor, gradient: &Tensor, moments: (&Tensor, &Tensor), step: AdamWStep) -> Result<()>;
}

/// The kernels of a device.
pub fn kernels(device: &Device) -> Result<&'static dyn Kernels> {
    let kernels: &'static dyn Kernels = match device {
        Device::Cpu => &cpu::Cpu,
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => &cuda::Cuda,
        other => bail!("there are no kernels for {other:?}"),
    };
    Ok(timed::timed_or_not(kernels, device))
}
