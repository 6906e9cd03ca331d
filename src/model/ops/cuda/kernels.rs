//! The operations, each by its kernels.

use candle_core::{DType, Result, Tensor};

use super::{activation, attention, head, pointwise, product, rope, rows};
use crate::{
    domain::Dtype,
    model::{
        layout::Sequence,
        ops::{
            Activation, AdamWStep, Attention, AttentionShape, CompletionLogps, Factor, Head, Heads, Kernels,
            LogitShape, RopeTable, Scoring, Sum,
        },
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
        rows::rms_norm(x, weight, eps)
    }

    fn rms_norm_again(&self, x: &Tensor, weight: &Tensor, inverse: &Tensor) -> Result<Tensor> {
        rows::rms_norm_again(x, weight, inverse)
    }

    fn rms_norm_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        inverse: &Tensor,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        rows::rms_norm_backward(dy, x, weight, inverse, residual)
    }

    fn rms_norm_weight_gradient(&self, dy: &Tensor, x: &Tensor, inverse: &Tensor) -> Result<Tensor> {
        rows::rms_norm_weight_gradient(dy, x, inverse)
    }

    fn centred(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        rows::centred(x, residual)
    }

    fn add_bias(&self, to: &Tensor, bias: &Tensor) -> Result<()> {
        rows::add_bias(to, bias)
    }

    fn column_sums(&self, x: &Tensor) -> Result<Tensor> {
        rows::column_sums(x)
    }

    fn join_rotated(&self, q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads, table: &RopeTable) -> Result<Tensor> {
        rope::join_rotated(q, k, v, heads, table)
    }

    fn split_rotated_back(
        &self,
        gradient: &Tensor,
        heads: Heads,
        table: &RopeTable,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        rope::split_rotated_back(gradient, heads, table)
    }

    fn attention(&self, joined: &Tensor, sequences: &[Sequence], shape: AttentionShape) -> Result<Attention> {
        attention::forward(joined, sequences, shape)
    }

    fn attention_last(&self, joined: &Tensor, shape: AttentionShape) -> Result<Tensor> {
        attention::last(joined, shape)
    }

    fn attention_backward(
        &self,
        d_output: &Tensor,
        joined: &Tensor,
        kept: &Attention,
        sequences: &[Sequence],
        shape: AttentionShape,
    ) -> Result<Tensor> {
        attention::backward(d_output, joined, kept, sequences, shape)
    }

    fn activated(&self, x: &Tensor, f: Activation) -> Result<Tensor> {
        activation::activated(x, f)
    }

    fn activated_backward(&self, dy: &Tensor, x: &Tensor, f: Activation) -> Result<Tensor> {
        activation::activated_backward(dy, x, f)
    }

    fn gated(&self, gate: &Tensor, up: &Tensor, f: Activation) -> Result<Tensor> {
        activation::gated(gate, up, f)
    }

    fn gated_backward(&self, dy: &Tensor, gate: &Tensor, up: &Tensor, f: Activation) -> Result<(Tensor, Tensor)> {
        activation::gated_backward(dy, gate, up, f)
    }

    fn completion_logps(
        &self,
        hidden: &Tensor,
        weight: &Tensor,
        targets: &[u32],
        head: Head,
        logits: LogitShape,
    ) -> Result<CompletionLogps> {
        head::forward(hidden, weight, targets, head, logits)
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
