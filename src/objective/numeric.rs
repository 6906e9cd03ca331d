//! Functions that neither overflow nor lose small values.

/// log(1 + eˣ): −log σ(−x).
pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// σ(x) = 1/(1 + e⁻ˣ).
pub(super) fn logistic(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// log Σ exp(x).
pub(super) fn log_sum_exp(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = terms.clone().fold(f64::NEG_INFINITY, f64::max);
    largest + terms.map(|x| (x - largest).exp()).sum::<f64>().ln()
}

/// `sum / n`; of nothing, nothing.
pub(super) fn per_token(sum: f64, n_tokens: f64) -> f64 {
    if n_tokens > 0.0 { sum / n_tokens } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_the_scale() {
        assert_eq!((softplus(1e6), softplus(-1e6)), (1e6, 0.0));
        assert_eq!((logistic(1e6), logistic(-1e6)), (1.0, 0.0));
        assert!(softplus(-700.0) > 0.0 && logistic(-700.0) > 0.0);
        assert_eq!(softplus(0.0), std::f64::consts::LN_2);
        assert_eq!(log_sum_exp([-1e6, -1e6].into_iter()), -1e6 + std::f64::consts::LN_2);
        assert_eq!((per_token(-6.0, 3.0), per_token(0.0, 0.0)), (-2.0, 0.0));
    }
}
