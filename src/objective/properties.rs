//! What must hold for any numbers, tried on random ones; and the worked examples of the method, whole.

use proptest::{collection::vec, prelude::*};

use super::{SequenceLogps, evaluate};
use crate::domain::{Clip, Mix, ObjectiveSpec, PairLoss, Weighting};

const MRPO: ObjectiveSpec = ObjectiveSpec {
    beta: 0.1,
    mix: Mix::Harmonic,
    clip: Clip::Adaptive,
    epsilon: 0.1,
    weighting: Weighting::Arwc,
    loss: PairLoss::Sigmoid,
    label_smoothing: 0.0,
};

fn logps(chosen: f64, rejected: f64) -> SequenceLogps {
    SequenceLogps { chosen, rejected }
}

/// Policy −40 and −45; expected loss and dL/dlogp(chosen), six decimals.
#[test]
fn the_worked_examples() {
    let two = [logps(-42.0, -50.0), logps(-44.0, -41.0)];
    let three = [two[0], two[1], logps(-41.0, -42.5)];
    let low = [two[0], logps(-60.0, -52.0)];
    let no_clip = ObjectiveSpec { clip: Clip::None, ..MRPO };
    let uniform = ObjectiveSpec { weighting: Weighting::Uniform, ..MRPO };
    let geometric = ObjectiveSpec { mix: Mix::Geometric, ..MRPO };
    let cases = [
        ("two", &MRPO, &two[..], 0.781_808, -0.054_242),
        ("two, no clip", &no_clip, &two[..], 0.780_277, -0.054_172),
        ("two, uniform", &uniform, &two[..], 0.741_606, -0.052_365),
        ("two, geometric", &geometric, &two[..], 0.784_659, -0.054_372),
        ("base only", &MRPO, &two[..1], 0.854_355, -0.057_444),
        ("three", &MRPO, &three[..], 0.781_594, -0.054_232),
        ("three, no clip", &no_clip, &three[..], 0.779_301, -0.054_127),
        ("three, uniform", &uniform, &three[..], 0.743_011, -0.052_432),
        ("three, geometric", &geometric, &three[..], 0.782_707, -0.054_283),
        ("low side", &MRPO, &low[..], 0.849_276, -0.057_228),
    ];
    for (name, spec, references, loss, grad) in cases {
        let outcome = evaluate(spec, logps(-40.0, -45.0), references, &[]).expect("finite");
        assert!((outcome.loss - loss).abs() < 1e-6, "{name}: loss {}", outcome.loss);
        assert!((outcome.grad_chosen - grad).abs() < 1e-6, "{name}: gradient {}", outcome.grad_chosen);
        assert_eq!(outcome.grad_rejected, -outcome.grad_chosen, "{name}");
    }
}

#[test]
fn the_worked_example_step_by_step() {
    let references = [logps(-300.0, -320.0), logps(-340.0, -300.0)];
    let outcome = evaluate(&MRPO, logps(-290.0, -310.0), &references, &[]).expect("finite");
    let steps = [
        (outcome.weights[0], 0.333_333),
        (outcome.weights[1], 0.666_667),
        (outcome.epsilon.chosen, 0.050_794),
        (outcome.epsilon.rejected, 0.049_206),
        (outcome.references[1].chosen, -315.238_095),
        (outcome.references[1].rejected, -304.253_968),
        (outcome.virtual_reference.chosen, -314.832_630),
        (outcome.virtual_reference.rejected, -318.901_388),
        (outcome.loss, 0.185_059),
        (outcome.grad_chosen, -0.016_894),
        (outcome.reward_chosen - outcome.reward_rejected, 1.593_124),
    ];
    for (got, expected) in steps {
        assert!((got - expected).abs() < 1e-6, "{got}, not {expected}: {outcome:?}");
    }
}

/// From a sure completion over short ones to the longest we know.
fn any_logp() -> impl Strategy<Value = f64> {
    prop_oneof![1 => Just(0.0), 4 => -100.0..-1.0, 4 => -2000.0..-1.0, 2 => -1e6..-1.0]
}

fn any_logps() -> impl Strategy<Value = SequenceLogps> {
    (any_logp(), any_logp()).prop_map(|(chosen, rejected)| logps(chosen, rejected))
}

fn any_references() -> impl Strategy<Value = Vec<SequenceLogps>> {
    vec(any_logps(), 1..8)
}

fn any_spec() -> impl Strategy<Value = ObjectiveSpec> {
    let mix = prop_oneof![Just(Mix::Harmonic), Just(Mix::Geometric), Just(Mix::Arithmetic)];
    let clip = prop_oneof![Just(Clip::Adaptive), Just(Clip::Fixed), Just(Clip::None)];
    let weighting = prop_oneof![Just(Weighting::Arwc), Just(Weighting::Uniform)];
    let smoothing = prop_oneof![Just(0.0), 0.0..0.5];
    (0.001..2.0, mix, clip, 0.0..0.999, weighting, smoothing).prop_map(
        |(beta, mix, clip, epsilon, weighting, label_smoothing)| ObjectiveSpec {
            beta,
            mix,
            clip,
            epsilon,
            weighting,
            loss: PairLoss::Sigmoid,
            label_smoothing,
        },
    )
}

/// Equal but for rounding, given that the numbers it comes from are of size `scale`.
fn close(a: f64, b: f64, scale: f64) -> bool {
    (a - b).abs() <= 1e-11 * (1.0 + scale.abs())
}

fn largest(references: &[SequenceLogps]) -> f64 {
    references.iter().fold(0.0, |m: f64, r| m.max(r.chosen.abs()).max(r.rejected.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn finite_numbers_give_finite_numbers(spec in any_spec(), policy in any_logps(), references in any_references()) {
        let outcome = evaluate(&spec, policy, &references, &[]).expect("finite");
        let numbers = [
            outcome.loss, outcome.grad_chosen, outcome.grad_rejected, outcome.reward_chosen, outcome.reward_rejected,
            outcome.epsilon.chosen, outcome.epsilon.rejected,
        ];
        prop_assert!(numbers.iter().all(|x| x.is_finite()), "{:?}", outcome);
        prop_assert!(outcome.loss >= 0.0);
        prop_assert!(close(outcome.weights.iter().sum(), 1.0, 1.0));
        prop_assert!(outcome.weights.iter().all(|w| *w >= 0.0));
        prop_assert_eq!(outcome.references[0], references[0]);
    }

    #[test]
    fn one_reference_is_dpo(spec in any_spec(), policy in any_logps(), base in any_logps()) {
        let outcome = evaluate(&spec, policy, &[base], &[]).expect("finite");
        let z = spec.beta * ((policy.chosen - policy.rejected) - (base.chosen - base.rejected));
        // Written out again: −log σ(z) = log(1 + exp(−z)), or −z where exp(−z) would overflow.
        let nll = |z: f64| if z < -700.0 { -z } else { (-z).exp().ln_1p() };
        let dpo = (1.0 - spec.label_smoothing) * nll(z) + spec.label_smoothing * nll(-z);
        prop_assert_eq!(outcome.virtual_reference, base);
        prop_assert!(close(outcome.loss, dpo, dpo), "{} is not {}", outcome.loss, dpo);
    }

    #[test]
    fn identical_references_are_one(spec in any_spec(), base in any_logps(), n in 1usize..8) {
        let mixed = evaluate(&spec, base, &vec![base; n], &[]).expect("finite").virtual_reference;
        prop_assert!(close(mixed.chosen, base.chosen, base.chosen), "{:?}", mixed);
        prop_assert!(close(mixed.rejected, base.rejected, base.rejected), "{:?}", mixed);
    }

    #[test]
    fn a_single_weight_takes_its_reference(
        spec in any_spec(), policy in any_logps(), references in any_references(), pick in any::<prop::sample::Index>(),
    ) {
        let index = pick.index(references.len());
        let mut weights = vec![0.0; references.len()];
        weights[index] = 1.0;
        let spec = ObjectiveSpec { weighting: Weighting::Fixed, ..spec };
        let outcome = evaluate(&spec, policy, &references, &weights).expect("finite");
        prop_assert_eq!(outcome.virtual_reference, outcome.references[index]);
    }

    #[test]
    fn the_order_of_the_extra_references_does_not_matter(
        spec in any_spec(), policy in any_logps(), references in any_references(), turn in 0usize..8,
    ) {
        let mut turned = references.clone();
        let n_extra = turned.len() - 1;
        if n_extra > 0 {
            turned[1..].rotate_left(turn % n_extra);
        }
        let a = evaluate(&spec, policy, &references, &[]).expect("finite");
        let b = evaluate(&spec, policy, &turned, &[]).expect("finite");
        prop_assert!(close(a.loss, b.loss, spec.beta * largest(&references)), "{} is not {}", a.loss, b.loss);
    }

    #[test]
    fn the_gradient_is_the_finite_difference(spec in any_spec(), policy in any_logps(), references in any_references()) {
        let loss = |policy| evaluate(&spec, policy, &references, &[]).expect("finite").loss;
        let outcome = evaluate(&spec, policy, &references, &[]).expect("finite");
        // A step in the policy is 1e-4 of the loss's own unit 1/β, but not below what the size of the numbers resolves.
        let size = largest(&references).max(policy.chosen.abs()).max(policy.rejected.abs());
        let h = (1e-4 / spec.beta).max(1e-8 * size);
        let chosen = |h| loss(logps(policy.chosen + h, policy.rejected));
        let rejected = |h| loss(logps(policy.chosen, policy.rejected + h));
        let tolerance = spec.beta * (1e-6 + 1e-6 * spec.beta * size);
        let d_chosen = (chosen(h) - chosen(-h)) / (2.0 * h);
        let d_rejected = (rejected(h) - rejected(-h)) / (2.0 * h);
        prop_assert!((d_chosen - outcome.grad_chosen).abs() <= tolerance, "{} {:?}", d_chosen, outcome);
        prop_assert!((d_rejected - outcome.grad_rejected).abs() <= tolerance, "{} {:?}", d_rejected, outcome);
    }

    #[test]
    fn a_constant_on_both_sides_of_the_policy_changes_nothing(
        spec in any_spec(), policy in any_logps(), references in any_references(), constant in -100.0..100.0,
    ) {
        let moved = logps(policy.chosen + constant, policy.rejected + constant);
        let a = evaluate(&spec, policy, &references, &[]).expect("finite");
        let b = evaluate(&spec, moved, &references, &[]).expect("finite");
        let size = policy.chosen.abs().max(policy.rejected.abs()).max(largest(&references));
        prop_assert!(close(a.loss, b.loss, spec.beta * size), "{} is not {}", a.loss, b.loss);
    }

    #[test]
    fn harmonic_is_at_most_geometric_is_at_most_arithmetic(spec in any_spec(), references in any_references()) {
        let mixed = |mix| {
            let spec = ObjectiveSpec { mix, ..spec.clone() };
            evaluate(&spec, references[0], &references, &[]).expect("finite").virtual_reference
        };
        let (h, g, a) = (mixed(Mix::Harmonic), mixed(Mix::Geometric), mixed(Mix::Arithmetic));
        let slack = 1e-11 * (1.0 + largest(&references));
        prop_assert!(h.chosen <= g.chosen + slack && g.chosen <= a.chosen + slack);
        prop_assert!(h.rejected <= g.rejected + slack && g.rejected <= a.rejected + slack);
    }
}

#[test]
fn what_is_no_number_is_named() {
    let error = |policy, references: &[SequenceLogps]| {
        evaluate(&MRPO, policy, references, &[]).expect_err("refused").to_string()
    };
    let fine = logps(-1.0, -2.0);
    assert_eq!(
        error(fine, &[fine, logps(-1.0, f64::NAN)]),
        "the log-probability of the rejected completion under reference 1 is not a finite number"
    );
    assert!(error(logps(f64::NEG_INFINITY, -1.0), &[fine]).contains("chosen completion under the policy"));
    assert!(error(fine, &[]).contains("at least one reference"));
    let fixed = ObjectiveSpec { weighting: Weighting::Fixed, ..MRPO };
    let message = evaluate(&fixed, fine, &[fine, fine], &[1.0]).expect_err("refused").to_string();
    assert!(message.contains("got 1 weights for 2 references"), "{message}");
}
