//! The loss of a pair against one (virtual) reference, and its two derivatives.

use super::SequenceLogps;
use crate::domain::{ObjectiveSpec, PairLoss};

/// A loss and its derivatives by the policy's two log-probabilities.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LossValue {
    pub(super) loss: f64,
    pub(super) grad_chosen: f64,
    pub(super) grad_rejected: f64,
}

/// The loss that `spec` names.
pub(super) fn evaluate(spec: &ObjectiveSpec, policy: SequenceLogps, reference: SequenceLogps) -> LossValue {
    match spec.loss {
        PairLoss::Sigmoid => sigmoid(spec.beta, spec.label_smoothing, policy.margin() - reference.margin()),
    }
}

/// DPO (arXiv 2305.18290): −log σ(z) with z = β·margin. Smoothing s (conservative DPO) takes the pair for the wrong way
/// round with probability s: −(1−s)·log σ(z) − s·log σ(−z).
fn sigmoid(beta: f64, smoothing: f64, margin: f64) -> LossValue {
    let z = beta * margin;
    let slope = smoothing * logistic(z) - (1.0 - smoothing) * logistic(-z);
    LossValue {
        loss: (1.0 - smoothing) * softplus(-z) + smoothing * softplus(z),
        grad_chosen: beta * slope,
        grad_rejected: -beta * slope,
    }
}

/// log(1 + eˣ) without overflow: −log σ(−x).
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// σ(x) = 1/(1 + e⁻ˣ) without overflow and without losing small values.
fn logistic(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_that_starts_at_its_reference_costs_ln_2() {
        let value = sigmoid(0.1, 0.0, 0.0);
        assert_eq!(value, LossValue { loss: std::f64::consts::LN_2, grad_chosen: -0.05, grad_rejected: 0.05 });
        // Smoothing moves the minimum away from infinity, not the value in the middle.
        assert!((sigmoid(0.1, 0.25, 0.0).loss - std::f64::consts::LN_2).abs() < 1e-15);
    }

    #[test]
    fn large_margins_neither_overflow_nor_vanish_early() {
        assert_eq!(sigmoid(1.0, 0.0, -1e6).loss, 1e6);
        assert_eq!(sigmoid(1.0, 0.0, -1e6).grad_chosen, -1.0);
        let sure = sigmoid(1.0, 0.0, 700.0);
        assert!(sure.loss > 0.0 && sure.grad_chosen < 0.0, "{sure:?}");
        assert_eq!(sigmoid(1.0, 0.0, 1e6).loss, 0.0);
    }

    #[test]
    fn the_worked_example_of_plain_dpo() {
        let value = sigmoid(0.1, 0.0, 5.0 - 8.0);
        assert!((value.loss - 0.854_355).abs() < 1e-6 && (value.grad_chosen - -0.057_444).abs() < 1e-6, "{value:?}");
    }
}
