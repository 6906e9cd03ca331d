//! The losses of a pair against one (virtual) reference, and their derivatives. Equations: [`PairLoss`].

use super::{
    PairInput, PairOutcome, SequenceLogps,
    numeric::{logistic, per_token, softplus},
};
use crate::domain::{ObjectiveSpec, PairLoss, Sides};

/// A loss and its derivatives by Δ(chosen) and Δ(rejected), or by the policy's two log-probabilities, which is the same.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct LossValue {
    loss: f64,
    d: Sides<f64>,
}

/// What a loss sees of a pair.
#[derive(Debug, Clone, Copy)]
struct Compared {
    /// The policy's log-probabilities.
    policy: SequenceLogps,
    /// Those of the reference, other rewards included.
    reference: SequenceLogps,
    /// What per-token losses divide by.
    n_tokens: Sides<f64>,
}

impl Compared {
    /// Δ(y) = log π_θ(y) − log π̃_ref(y).
    fn delta(&self) -> Sides<f64> {
        self.policy.with(self.reference, |policy, reference| policy - reference)
    }
}

/// β, s and τ as the losses read them.
#[derive(Debug, Clone, Copy)]
struct Constants {
    beta: f64,
    smoothing: f64,
    tau: f64,
}

/// Adds the losses of `spec` and their gradients to the outcomes of a batch.
pub(super) fn add(spec: &ObjectiveSpec, pairs: &[PairInput<'_>], outcomes: &mut [PairOutcome]) {
    if spec.sum_of_losses {
        // Σ_k α_k·L_k. Pairs of one batch have the same references.
        let n_references = outcomes.iter().map(|o| o.references.len()).max().unwrap_or(0);
        for k in 0..n_references {
            let shares: Vec<f64> = outcomes.iter().map(|outcome| outcome.weights[k]).collect();
            add_against(spec, pairs, outcomes, &shares, |outcome| outcome.references[k]);
        }
    } else {
        add_against(spec, pairs, outcomes, &vec![1.0; pairs.len()], |outcome| outcome.virtual_reference);
    }
    if spec.length_normalized {
        for (pair, outcome) in pairs.iter().zip(outcomes) {
            outcome.grad = outcome.grad.with(pair.policy.n_tokens, per_token);
        }
    }
}

/// Adds the losses against `reference`, each pair's times its share.
fn add_against(
    spec: &ObjectiveSpec,
    pairs: &[PairInput<'_>],
    outcomes: &mut [PairOutcome],
    shares: &[f64],
    reference: impl Fn(&PairOutcome) -> SequenceLogps,
) {
    let compared: Vec<Compared> = pairs
        .iter()
        .zip(&*outcomes)
        .map(|(pair, outcome)| Compared {
            policy: if spec.length_normalized { pair.policy.per_token() } else { pair.policy.logps },
            // MODPO's z = (β·margin − margin of the other rewards)/w₀ is that of a reference raised by R/β.
            reference: reference(outcome).with(pair.other_rewards, |logp, reward| logp + reward / spec.beta),
            n_tokens: if spec.length_normalized { Sides { chosen: 1.0, rejected: 1.0 } } else { pair.policy.n_tokens },
        })
        .collect();
    let constants =
        Constants { beta: spec.beta / spec.preference_weight, smoothing: spec.label_smoothing, tau: spec.discopop_tau };
    // A loss of the batch compares pairs by rank: with shares of their own it would jump where two change places.
    let mean_share = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
    for (loss, weight) in spec.weighted_losses() {
        let values = match loss {
            PairLoss::Aot => aot(&compared, constants),
            PairLoss::AotUnpaired => aot_unpaired(&compared, constants),
            of_a_pair => compared.iter().map(|c| one(of_a_pair, c, constants)).collect(),
        };
        for ((outcome, value), share) in outcomes.iter_mut().zip(values).zip(shares) {
            let share = weight * if loss.is_of_the_batch() { mean_share } else { *share };
            outcome.loss += share * value.loss;
            outcome.grad = outcome.grad.with(value.d, |sum, d| sum + share * d);
        }
    }
}

/// The loss of one pair that needs no other.
fn one(loss: PairLoss, compared: &Compared, constants: Constants) -> LossValue {
    let Constants { beta, smoothing, tau } = constants;
    let delta = compared.delta();
    let rewards = delta.map(|delta| beta * delta);
    let z = beta * delta.margin();
    match loss {
        PairLoss::Sigmoid => of_margin(smoothed(z, smoothing), beta),
        PairLoss::Hinge => of_margin(if z < 1.0 { (1.0 - z, -1.0) } else { (0.0, 0.0) }, beta),
        PairLoss::Ipo => {
            let distance = delta.with(compared.n_tokens, per_token).margin() - 1.0 / (2.0 * beta);
            let d = Sides { chosen: 2.0 * distance, rejected: -2.0 * distance };
            LossValue { loss: distance * distance, d: d.with(compared.n_tokens, per_token) }
        }
        PairLoss::ExoPair => of_margin(exo(z, smoothing), beta),
        PairLoss::NcaPair => LossValue {
            loss: softplus(-rewards.chosen) + 0.5 * (softplus(rewards.chosen) + softplus(rewards.rejected)),
            d: Sides {
                chosen: beta * (0.5 * logistic(rewards.chosen) - logistic(-rewards.chosen)),
                rejected: 0.5 * beta * logistic(rewards.rejected),
            },
        },
        PairLoss::Robust => {
            let scale = 1.0 / (1.0 - 2.0 * smoothing);
            let loss = (1.0 - smoothing) * softplus(-z) - smoothing * softplus(z);
            let slope = -(1.0 - smoothing) * logistic(-z) - smoothing * logistic(z);
            of_margin((scale * loss, scale * slope), beta)
        }
        PairLoss::BcoPair => LossValue {
            loss: softplus(-rewards.chosen) + softplus(rewards.rejected),
            d: Sides { chosen: -beta * logistic(-rewards.chosen), rejected: beta * logistic(rewards.rejected) },
        },
        PairLoss::SppoHard => {
            let (won, lost) = (delta.chosen - 0.5 / beta, delta.rejected + 0.5 / beta);
            LossValue { loss: won * won + lost * lost, d: Sides { chosen: 2.0 * won, rejected: 2.0 * lost } }
        }
        PairLoss::ApoZero => LossValue {
            loss: logistic(-rewards.chosen) + logistic(rewards.rejected),
            d: Sides { chosen: -beta * bell(rewards.chosen), rejected: beta * bell(rewards.rejected) },
        },
        PairLoss::ApoDown => LossValue {
            loss: logistic(rewards.chosen) + logistic(-z),
            d: Sides { chosen: beta * (bell(rewards.chosen) - bell(z)), rejected: beta * bell(z) },
        },
        PairLoss::Discopop => of_margin(discopop(z, tau), beta),
        PairLoss::SigmoidNorm => {
            let z = beta * delta.with(compared.n_tokens, per_token).margin();
            let value = of_margin(smoothed(z, 0.0), beta);
            LossValue { d: value.d.with(compared.n_tokens, per_token), ..value }
        }
        PairLoss::Minor => {
            let value = of_margin(smoothed(beta * (delta.chosen - delta.rejected.max(0.0)), 0.0), beta);
            let rejected = if delta.rejected > 0.0 { value.d.rejected } else { 0.0 };
            LossValue { d: Sides { rejected, ..value.d }, ..value }
        }
        PairLoss::Aot | PairLoss::AotUnpaired => unreachable!("losses of a batch are computed by their own functions"),
    }
}

/// A function of z alone, given as its value and its slope there.
fn of_margin((loss, slope): (f64, f64), beta: f64) -> LossValue {
    LossValue { loss, d: Sides { chosen: beta * slope, rejected: -beta * slope } }
}

/// −(1−s)·log σ(z) − s·log σ(−z) and its slope.
fn smoothed(z: f64, smoothing: f64) -> (f64, f64) {
    let loss = (1.0 - smoothing) * softplus(-z) + smoothing * softplus(z);
    (loss, smoothing * logistic(z) - (1.0 - smoothing) * logistic(-z))
}

/// σ(x)·σ(−x), the slope of σ.
fn bell(x: f64) -> f64 {
    logistic(x) * logistic(-x)
}

/// KL((σ(z), σ(−z)) ‖ (1−s, s)) and its slope σ(z)·σ(−z)·(z − log((1−s)/s)).
fn exo(z: f64, smoothing: f64) -> (f64, f64) {
    let (log_right, log_wrong) = ((-smoothing).ln_1p(), smoothing.ln());
    let (right, wrong) = (logistic(z), logistic(-z));
    let loss = right * (-softplus(-z) - log_right) + wrong * (-softplus(z) - log_wrong);
    (loss, right * wrong * (z - log_right + log_wrong))
}

/// (1−m)·log(1 + e⁻ᶻ) + m·e⁻ᶻ with m = σ(z/τ), and its slope. m·e⁻ᶻ is one exponential: apart, e⁻ᶻ would overflow.
fn discopop(z: f64, tau: f64) -> (f64, f64) {
    let (m, not_m) = (logistic(z / tau), logistic(-z / tau));
    let exponential = (-z - softplus(-z / tau)).exp();
    let d_m = m * not_m / tau;
    // d(m·e⁻ᶻ) = m′·e⁻ᶻ − m·e⁻ᶻ, and m′·e⁻ᶻ = (1−m)/τ · m·e⁻ᶻ.
    let slope = -not_m * logistic(-z) - d_m * softplus(-z) + exponential * (not_m / tau - 1.0);
    (not_m * softplus(-z) + exponential, slope)
}

/// The places of `values` in rising order; equal ones keep theirs.
fn rising(values: impl Iterator<Item = f64>) -> Vec<(usize, f64)> {
    let mut places: Vec<(usize, f64)> = values.enumerate().collect();
    places.sort_by(|a, b| a.1.total_cmp(&b.1));
    places
}

/// Each policy margin is compared with the reference margin of its rank in the batch.
fn aot(batch: &[Compared], constants: Constants) -> Vec<LossValue> {
    let mut values = vec![LossValue::default(); batch.len()];
    let policy = rising(batch.iter().map(|c| c.policy.margin()));
    let reference = rising(batch.iter().map(|c| c.reference.margin()));
    for ((place, policy), (_, reference)) in policy.into_iter().zip(reference) {
        let z = constants.beta * (policy - reference);
        values[place] = of_margin(smoothed(z, constants.smoothing), constants.beta);
    }
    values
}

/// Each Δ(chosen) is compared with the Δ(rejected) of its rank; the loss counts for the pair of the Δ(chosen).
fn aot_unpaired(batch: &[Compared], constants: Constants) -> Vec<LossValue> {
    let mut values = vec![LossValue::default(); batch.len()];
    let chosen = rising(batch.iter().map(|c| c.delta().chosen));
    let rejected = rising(batch.iter().map(|c| c.delta().rejected));
    for ((of_chosen, chosen), (of_rejected, rejected)) in chosen.into_iter().zip(rejected) {
        let z = constants.beta * (chosen - rejected);
        let value = of_margin(smoothed(z, constants.smoothing), constants.beta);
        values[of_chosen].loss = value.loss;
        values[of_chosen].d.chosen = value.d.chosen;
        values[of_rejected].d.rejected = value.d.rejected;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSTANTS: Constants = Constants { beta: 0.1, smoothing: 0.0, tau: 0.05 };

    fn compared(policy: [f64; 2], reference: [f64; 2]) -> Compared {
        let sides = |[chosen, rejected]: [f64; 2]| Sides { chosen, rejected };
        Compared { policy: sides(policy), reference: sides(reference), n_tokens: sides([10.0, 20.0]) }
    }

    #[test]
    fn a_pair_that_starts_at_its_reference_costs_what_the_equation_says() {
        let at_start = compared([-3.0, -5.0], [-3.0, -5.0]);
        let ln_2 = std::f64::consts::LN_2;
        let exo = Constants { smoothing: 0.1, ..CONSTANTS };
        for (loss, constants, expected) in [
            (PairLoss::Sigmoid, CONSTANTS, ln_2),
            (PairLoss::Hinge, CONSTANTS, 1.0),
            (PairLoss::Ipo, CONSTANTS, 25.0),
            (PairLoss::ExoPair, exo, -ln_2 - 0.5 * (0.9f64.ln() + 0.1f64.ln())),
            (PairLoss::NcaPair, CONSTANTS, 2.0 * ln_2),
            (PairLoss::Robust, exo, ln_2),
            (PairLoss::BcoPair, CONSTANTS, 2.0 * ln_2),
            (PairLoss::SppoHard, CONSTANTS, 50.0),
            (PairLoss::ApoZero, CONSTANTS, 1.0),
            (PairLoss::ApoDown, CONSTANTS, 1.0),
            (PairLoss::Discopop, CONSTANTS, 0.5 * ln_2 + 0.5),
            (PairLoss::SigmoidNorm, CONSTANTS, ln_2),
            (PairLoss::Minor, CONSTANTS, ln_2),
        ] {
            let value = one(loss, &at_start, constants);
            assert!((value.loss - expected).abs() < 1e-12, "{loss:?}: {value:?}, not {expected}");
        }
    }

    #[test]
    fn minor_leaves_a_rejected_completion_below_its_reference_alone() {
        let below = one(PairLoss::Minor, &compared([-3.0, -6.0], [-3.0, -5.0]), CONSTANTS);
        assert_eq!((below.loss, below.d.rejected), (std::f64::consts::LN_2, 0.0));
        let above = one(PairLoss::Minor, &compared([-3.0, -4.0], [-3.0, -5.0]), CONSTANTS);
        assert!(above.d.rejected > 0.0 && above.d.chosen == -above.d.rejected);
    }

    #[test]
    fn sorted_losses_pair_by_rank() {
        // Policy margins 2 and 1, reference margins 0 and 5: 1 is compared with 0, 2 with 5.
        let batch = [compared([2.0, 0.0], [0.0, 0.0]), compared([1.0, 0.0], [5.0, 0.0])];
        let values = aot(&batch, CONSTANTS);
        assert_eq!(values[0].loss, softplus(0.1 * 3.0));
        assert_eq!(values[1].loss, softplus(-0.1));
        // Δ(chosen) 2 and −4, Δ(rejected) 1 and 0 by place: −4 with 0, 2 with 1.
        let batch = [compared([2.0, 1.0], [0.0, 0.0]), compared([1.0, 0.0], [5.0, 0.0])];
        let values = aot_unpaired(&batch, CONSTANTS);
        assert_eq!((values[0].loss, values[1].loss), (softplus(-0.1 * 1.0), softplus(0.1 * 4.0)));
        assert_eq!(values[1].d.chosen, -values[1].d.rejected);
        let alone = [compared([2.0, 1.0], [0.5, 0.0])];
        let sigmoid = one(PairLoss::Sigmoid, &alone[0], CONSTANTS);
        assert_eq!(aot(&alone, CONSTANTS), [sigmoid]);
        assert_eq!(aot_unpaired(&alone, CONSTANTS), [sigmoid]);
    }

    #[test]
    fn discopop_neither_overflows_nor_breaks() {
        for z in [-1e6, -800.0, -1.0, 0.0, 1.0, 800.0, 1e6] {
            let (loss, slope) = discopop(z, 0.05);
            assert!(loss.is_finite() && slope.is_finite(), "{z}: {loss} {slope}");
        }
    }
}
