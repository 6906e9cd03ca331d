//! The operations, each by its kernels.

use candle_core::{DType, Result, Tensor};

use super::{attention, head, pointwise, product};
use crate::{
    domain::Dtype,
    model::{
        layout::Sequence,
        ops::{AdamWStep, Attention, CompletionLogps, Factor, Head, Heads, Kernels, RopeTable, Scoring, Sum},
    },
};

/// See the module.
#[derive(Debug)]
pub(in crate::model::ops) struct Cuda;

impl Kernels for Cuda {
    fn activations(&self, dtype: Dtype) -> DType {
        product::factor_type(dtype)
    }

    fn add_products(&self, sums: &mut [&mut Sum], a: Factor<'_>, bs: &[Factor<'_>], scale: f64) -> Result<()> {
        product::add(sums, a, bs, scale)
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
        pointwise::rms_norm(x, weight, eps)
    }

    fn rms_norm_again(&self, x: &Tensor, weight: &Tensor, inverse: &Tensor) -> Result<Tensor> {
        pointwise::rms_norm_again(x, weight, inverse)
    }

    fn rms_norm_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        inverse: &Tensor,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        pointwise::rms_norm_backward(dy, x, weight, inverse, residual)
    }

    fn rms_norm_weight_gradient(&self, dy: &Tensor, x: &Tensor, inverse: &Tensor) -> Result<Tensor> {
        pointwise::rms_norm_weight_gradient(dy, x, inverse)
    }

    fn join_rotated(&self, q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads, table: &RopeTable) -> Result<Tensor> {
        pointwise::join_rotated(q, k, v, heads, table)
    }

    fn split_rotated_back(
        &self,
        gradient: &Tensor,
        heads: Heads,
        table: &RopeTable,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        pointwise::split_rotated_back(gradient, heads, table)
    }

    fn attention(&self, joined: &Tensor, sequences: &[Sequence], heads: Heads, _: Dtype) -> Result<Attention> {
        attention::forward(joined, sequences, heads)
    }

    fn attention_last(&self, joined: &Tensor, heads: Heads, _: Dtype) -> Result<Tensor> {
        attention::last(joined, heads)
    }

    fn attention_backward(
        &self,
        d_output: &Tensor,
        joined: &Tensor,
        kept: &Attention,
        sequences: &[Sequence],
        (heads, _): (Heads, Dtype),
    ) -> Result<Tensor> {
        attention::backward(d_output, joined, kept, sequences, heads)
    }

    fn swiglu(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        pointwise::swiglu(gate, up)
    }

    fn swiglu_backward(&self, dy: &Tensor, gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)> {
        pointwise::swiglu_backward(dy, gate, up)
    }

    fn completion_logps(
        &self,
        hidden: &Tensor,
        weight: &Tensor,
        targets: &[u32],
        head: Head,
        dtype: Dtype,
    ) -> Result<CompletionLogps> {
        head::forward(hidden, weight, targets, head, dtype)
    }

    fn head_backward(
        &self,
        hidden: &Tensor,
        weight: &Tensor,
        scoring: Scoring<'_>,
        d_weight: &Tensor,
    ) -> Result<Tensor> {
        head::backward(hidden, weight, scoring, d_weight)
    }

    fn add_rows(&self, to: &Tensor, rows: &[u32], x: &Tensor) -> Result<()> {
        pointwise::add_rows(to, rows, x)
    }

    fn squared_norm(&self, x: &Tensor) -> Result<f64> {
        pointwise::squared_norm(x)
    }

    fn add_in_place(&self, to: &Tensor, x: &Tensor) -> Result<()> {
        pointwise::add_in_place(to, x)
    }

    fn adamw(&self, parameter: &Tensor, gradient: &Tensor, moments: (&Tensor, &Tensor), step: AdamWStep) -> Result<()> {
        pointwise::adamw(parameter, gradient, moments, step)
    }
}
