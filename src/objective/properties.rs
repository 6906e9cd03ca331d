//! What must hold for any numbers, tried on random ones; and the worked examples of the method, whole.

use proptest::{collection::vec, prelude::*};

use super::{BatchError, Optimism, PairInput, PairOutcome, Scored, SequenceLogps};
use crate::domain::{Clip, Losses, Mix, ObjectiveSpec, PairLoss, Sides, Weighting};

const LOSSES: [PairLoss; 15] = [
    PairLoss::Sigmoid,
    PairLoss::Hinge,
    PairLoss::Ipo,
    PairLoss::ExoPair,
    PairLoss::NcaPair,
    PairLoss::Robust,
    PairLoss::BcoPair,
    PairLoss::SppoHard,
    PairLoss::Aot,
    PairLoss::AotUnpaired,
    PairLoss::ApoZero,
    PairLoss::ApoDown,
    PairLoss::Discopop,
    PairLoss::SigmoidNorm,
    PairLoss::Minor,
];

fn logps(chosen: f64, rejected: f64) -> SequenceLogps {
    Sides { chosen, rejected }
}

fn scored(chosen: f64, rejected: f64) -> Scored {
    Scored { logps: logps(chosen, rejected), n_tokens: Sides { chosen: 10.0, rejected: 20.0 } }
}

/// A pair without extra fields.
pub(super) fn input(policy: Scored, references: &[Scored]) -> PairInput<'_> {
    PairInput { policy, references, other_rewards: Sides::default(), likelihood: Sides::default(), optimism: None }
}

/// One pair as a batch of its own.
fn evaluate(spec: &ObjectiveSpec, pair: PairInput<'_>, weights: &[f64]) -> Result<PairOutcome, BatchError> {
    super::evaluate(spec, &[pair], weights).map(|mut outcomes| outcomes.remove(0))
}

fn spec() -> ObjectiveSpec {
    ObjectiveSpec::default()
}

/// Policy −40 and −45; expected loss and dL/dlogp(chosen), six decimals.
#[test]
fn the_worked_examples() {
    let two = [scored(-42.0, -50.0), scored(-44.0, -41.0)];
    let three = [two[0], two[1], scored(-41.0, -42.5)];
    let low = [two[0], scored(-60.0, -52.0)];
    let no_clip = ObjectiveSpec { clip: Clip::None, ..spec() };
    let uniform = ObjectiveSpec { weighting: Weighting::Uniform, ..spec() };
    let geometric = ObjectiveSpec { mix: Mix::Geometric, ..spec() };
    let exchanged = ObjectiveSpec { weight_convention: crate::domain::WeightConvention::AuthorsCode, ..spec() };
    let multi = ObjectiveSpec { sum_of_losses: true, ..spec() };
    let cases = [
        ("two", &spec(), &two[..], 0.781_808, -0.054_242),
        ("two, no clip", &no_clip, &two[..], 0.780_277, -0.054_172),
        ("two, uniform", &uniform, &two[..], 0.741_606, -0.052_365),
        ("two, geometric", &geometric, &two[..], 0.784_659, -0.054_372),
        ("two, the authors' weights", &exchanged, &two[..], 0.700_942, -0.050_388),
        ("two, the sum of losses", &multi, &two[..], 0.789_812, -0.054_345),
        ("base only", &spec(), &two[..1], 0.854_355, -0.057_444),
        ("three", &spec(), &three[..], 0.781_594, -0.054_232),
        ("three, no clip", &no_clip, &three[..], 0.779_301, -0.054_127),
        ("three, uniform", &uniform, &three[..], 0.743_011, -0.052_432),
        ("three, geometric", &geometric, &three[..], 0.782_707, -0.054_283),
        ("three, the sum of losses", &multi, &three[..], 0.787_239, -0.054_259),
        ("low side", &spec(), &low[..], 0.849_276, -0.057_228),
    ];
    for (name, spec, references, loss, grad) in cases {
        let outcome = evaluate(spec, input(scored(-40.0, -45.0), references), &[]).expect("finite");
        assert!((outcome.loss - loss).abs() < 1e-6, "{name}: loss {}", outcome.loss);
        assert!((outcome.grad.chosen - grad).abs() < 1e-6, "{name}: gradient {}", outcome.grad.chosen);
        assert!((outcome.grad.rejected + outcome.grad.chosen).abs() < 1e-12, "{name}");
    }
}

#[test]
fn the_worked_example_step_by_step() {
    let references = [scored(-300.0, -320.0), scored(-340.0, -300.0)];
    let outcome = evaluate(&spec(), input(scored(-290.0, -310.0), &references), &[]).expect("finite");
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
        (outcome.grad.chosen, -0.016_894),
        (outcome.rewards.margin(), 1.593_124),
    ];
    for (got, expected) in steps {
        assert!((got - expected).abs() < 1e-6, "{got}, not {expected}: {outcome:?}");
    }
}

#[test]
fn the_terms_add_up() {
    let references = [scored(-42.0, -50.0)];
    let plain = input(scored(-40.0, -45.0), &references);
    let base = evaluate(&spec(), plain, &[]).expect("finite");
    // An SFT term: −log π_θ(chosen) per token.
    let sft = evaluate(&ObjectiveSpec { sft_weight: 0.5, ..spec() }, plain, &[]).expect("finite");
    assert!((sft.loss - (base.loss + 0.5 * 4.0)).abs() < 1e-12);
    assert!((sft.grad.chosen - (base.grad.chosen - 0.5 / 10.0)).abs() < 1e-12);
    assert_eq!(sft.grad.rejected, base.grad.rejected);
    // Advantage weights do the same on both sides.
    let weighted = PairInput { likelihood: Sides { chosen: 0.5, rejected: 0.2 }, ..plain };
    let hpo = evaluate(&spec(), weighted, &[]).expect("finite");
    assert!((hpo.loss - (base.loss + 0.5 * 4.0 + 0.2 * 2.25)).abs() < 1e-12);
    assert!((hpo.grad.rejected - (base.grad.rejected - 0.2 / 20.0)).abs() < 1e-12);
    // Other rewards move the margin, and the trained preference's weight scales it.
    let modpo = ObjectiveSpec { preference_weight: 0.5, ..spec() };
    let margin = PairInput { other_rewards: Sides { chosen: 1.0, rejected: 0.25 }, ..plain };
    let z: f64 = (0.1 * (5.0 - 8.0) - 0.75) / 0.5;
    let outcome = evaluate(&modpo, margin, &[]).expect("finite");
    assert!((outcome.loss - (-z).exp().ln_1p()).abs() < 1e-12, "{outcome:?}");
    assert_eq!(outcome.rewards, base.rewards);
    // Optimism pushes a third completion down.
    let selm = ObjectiveSpec { optimism: 0.01, ..spec() };
    let pair = PairInput { optimism: Some(Optimism { policy: -30.0, reference: -35.0 }), ..plain };
    let outcome = evaluate(&selm, pair, &[]).expect("finite");
    assert!((outcome.loss - (base.loss + 0.001 * 5.0)).abs() < 1e-12 && (outcome.grad_optimism - 0.001).abs() < 1e-15);
    assert!(evaluate(&selm, plain, &[]).expect_err("refused").to_string().contains("reference response"));
    // Several losses are added up by weight.
    let two = Losses::Several(vec![PairLoss::Sigmoid, PairLoss::Hinge]);
    let sum = ObjectiveSpec { loss: two, loss_weights: vec![0.8, 0.2], ..spec() };
    let hinge = evaluate(&ObjectiveSpec { loss: Losses::One(PairLoss::Hinge), ..spec() }, plain, &[]).expect("finite");
    let outcome = evaluate(&sum, plain, &[]).expect("finite");
    assert!((outcome.loss - (0.8 * base.loss + 0.2 * hinge.loss)).abs() < 1e-12);
}

#[test]
fn per_token_every_model_counts_its_own_tokens() {
    let of = |chosen: f64, rejected: f64, n: [f64; 2]| Scored {
        logps: logps(chosen, rejected),
        n_tokens: Sides { chosen: n[0], rejected: n[1] },
    };
    let references = [of(-42.0, -50.0, [10.0, 20.0]), of(-44.0, -41.0, [22.0, 8.2])];
    let pair = input(of(-40.0, -45.0, [10.0, 20.0]), &references);
    let normalized = evaluate(&ObjectiveSpec { length_normalized: true, ..spec() }, pair, &[]).expect("finite");
    let by_hand = [of(-4.2, -2.5, [1.0, 1.0]), of(-2.0, -5.0, [1.0, 1.0])];
    let expected = evaluate(&spec(), input(of(-4.0, -2.25, [1.0, 1.0]), &by_hand), &[]).expect("finite");
    assert!((normalized.loss - expected.loss).abs() < 1e-12);
    assert!((normalized.grad.chosen - expected.grad.chosen / 10.0).abs() < 1e-15);
    assert!((normalized.grad.rejected - expected.grad.rejected / 20.0).abs() < 1e-15);
}

/// From a sure completion over short ones to the longest we know.
fn any_logp() -> impl Strategy<Value = f64> {
    prop_oneof![1 => Just(0.0), 4 => -100.0..-1.0, 4 => -2000.0..-1.0, 2 => -1e6..-1.0]
}

fn any_scored() -> impl Strategy<Value = Scored> {
    (any_logp(), any_logp(), 1u32..1000, 1u32..1000).prop_map(|(chosen, rejected, n_chosen, n_rejected)| Scored {
        logps: logps(chosen, rejected),
        n_tokens: Sides { chosen: f64::from(n_chosen), rejected: f64::from(n_rejected) },
    })
}

fn any_references() -> impl Strategy<Value = Vec<Scored>> {
    vec(any_scored(), 1..8)
}

/// Any virtual reference, or a sum of losses; the loss is `loss`.
fn any_spec_of(loss: impl Strategy<Value = PairLoss>) -> impl Strategy<Value = ObjectiveSpec> {
    let mix = prop_oneof![Just(Mix::Harmonic), Just(Mix::Geometric), Just(Mix::Arithmetic)];
    let clip = prop_oneof![Just(Clip::Adaptive), Just(Clip::Fixed), Just(Clip::None)];
    let weighting = prop_oneof![Just(Weighting::Arwc), Just(Weighting::Uniform), Just(Weighting::MaxMargin)];
    let smoothing = prop_oneof![Just(0.001), 0.001..0.49];
    let combined = (0.001..2.0, mix, clip, 0.0..0.999, weighting, any::<bool>(), any::<bool>());
    (combined, loss, smoothing, 0.01..0.99).prop_map(
        |((beta, mix, clip, epsilon, weighting, sum_of_losses, length_normalized), loss, label_smoothing, tau)| {
            ObjectiveSpec {
                beta,
                mix,
                clip,
                epsilon,
                weighting,
                sum_of_losses,
                length_normalized,
                loss: Losses::One(loss),
                label_smoothing,
                discopop_tau: tau,
                ..spec()
            }
        },
    )
}

fn any_spec() -> impl Strategy<Value = ObjectiveSpec> {
    any_spec_of(proptest::sample::select(&LOSSES[..]))
}

/// DPO's loss, whatever the references.
fn sigmoid_spec() -> impl Strategy<Value = ObjectiveSpec> {
    let plain = any_spec_of(Just(PairLoss::Sigmoid));
    plain.prop_map(|s| ObjectiveSpec { sum_of_losses: false, length_normalized: false, ..s })
}

/// Equal but for rounding, given that the numbers it comes from are of size `scale`.
fn close(a: f64, b: f64, scale: f64) -> bool {
    (a - b).abs() <= 1e-11 * (1.0 + scale.abs())
}

fn largest(references: &[Scored]) -> f64 {
    references.iter().fold(0.0, |m: f64, r| m.max(r.logps.chosen.abs()).max(r.logps.rejected.abs()))
}

/// How far rounding of numbers of size `size` can move this loss.
fn loss_scale(spec: &ObjectiveSpec, size: f64) -> f64 {
    match spec.loss.as_slice() {
        // A square of the numbers themselves, and of 1/β.
        [PairLoss::Ipo | PairLoss::SppoHard] => (size + 1.0 / spec.beta).powi(2),
        // Its exponential part is steep where the margin is near zero.
        [PairLoss::Discopop] => spec.beta * size * (1.0 + 1.0 / spec.discopop_tau),
        [PairLoss::Robust] => spec.beta * size / (1.0 - 2.0 * spec.label_smoothing),
        _ => spec.beta * size,
    }
}

proptest! {
    // More than ten thousand random cases together.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2500) })]

    #[test]
    fn finite_numbers_give_finite_numbers(
        spec in any_spec(), policies in vec(any_scored(), 1..4), references in vec(any_references(), 4),
    ) {
        let n_references = references[0].len();
        let references: Vec<Vec<Scored>> =
            references.into_iter().map(|r| r.into_iter().cycle().take(n_references).collect()).collect();
        let pairs: Vec<PairInput<'_>> = policies.iter().zip(&references).map(|(p, r)| input(*p, r)).collect();
        for (outcome, pair) in super::evaluate(&spec, &pairs, &[]).expect("finite").iter().zip(&pairs) {
            let numbers = [
                outcome.loss, outcome.grad.chosen, outcome.grad.rejected, outcome.rewards.chosen,
                outcome.rewards.rejected, outcome.epsilon.chosen, outcome.epsilon.rejected,
            ];
            prop_assert!(numbers.iter().all(|x| x.is_finite()), "{:?}", outcome);
            prop_assert!(close(outcome.weights.iter().sum(), 1.0, 1.0));
            prop_assert!(outcome.weights.iter().all(|w| *w >= 0.0));
            if !spec.length_normalized {
                prop_assert_eq!(outcome.references[0], pair.references[0].logps);
            }
        }
    }

    #[test]
    fn one_reference_is_dpo(spec in sigmoid_spec(), policy in any_scored(), base in any_scored()) {
        let outcome = evaluate(&spec, input(policy, &[base]), &[]).expect("finite");
        let z = spec.beta * (policy.logps.margin() - base.logps.margin());
        // Written out again: −log σ(z) = log(1 + exp(−z)), or −z where exp(−z) would overflow.
        let nll = |z: f64| if z < -700.0 { -z } else { (-z).exp().ln_1p() };
        let dpo = (1.0 - spec.label_smoothing) * nll(z) + spec.label_smoothing * nll(-z);
        prop_assert_eq!(outcome.virtual_reference, base.logps);
        let size = policy.logps.chosen.abs().max(policy.logps.rejected.abs()).max(largest(&[base]));
        prop_assert!(close(outcome.loss, dpo, spec.beta * size), "{} is not {}", outcome.loss, dpo);
        let sum = ObjectiveSpec { sum_of_losses: true, ..spec };
        prop_assert_eq!(evaluate(&sum, input(policy, &[base]), &[]).expect("finite").loss, outcome.loss);
    }

    #[test]
    fn identical_references_are_one(
        spec in any_spec(), policy in any_scored(), base in any_scored(), n in 1usize..8,
    ) {
        let many = evaluate(&spec, input(policy, &vec![base; n]), &[]).expect("finite");
        let one = evaluate(&spec, input(policy, &[base]), &[]).expect("finite");
        prop_assert!(close(many.virtual_reference.chosen, one.virtual_reference.chosen, base.logps.chosen));
        let size = policy.logps.chosen.abs().max(policy.logps.rejected.abs()).max(largest(&[base]));
        prop_assert!(close(many.loss, one.loss, loss_scale(&spec, size)), "{} is not {}", many.loss, one.loss);
    }

    #[test]
    fn a_single_weight_takes_its_reference(
        spec in any_spec(), policy in any_scored(), references in any_references(), pick in any::<prop::sample::Index>(),
    ) {
        let index = pick.index(references.len());
        let mut weights = vec![0.0; references.len()];
        weights[index] = 1.0;
        let spec = ObjectiveSpec { weighting: Weighting::Fixed, sum_of_losses: false, ..spec };
        let outcome = evaluate(&spec, input(policy, &references), &weights).expect("finite");
        prop_assert_eq!(outcome.virtual_reference, outcome.references[index]);
        // And the sum of the losses is that reference's loss.
        let sum = evaluate(&ObjectiveSpec { sum_of_losses: true, ..spec }, input(policy, &references), &weights);
        prop_assert_eq!(sum.expect("finite").loss, outcome.loss);
    }

    #[test]
    fn the_order_of_the_extra_references_does_not_matter(
        spec in any_spec(), policy in any_scored(), references in any_references(), turn in 0usize..8,
    ) {
        let mut turned = references.clone();
        let n_extra = turned.len() - 1;
        if n_extra > 0 {
            turned[1..].rotate_left(turn % n_extra);
        }
        let a = evaluate(&spec, input(policy, &references), &[]).expect("finite");
        let b = evaluate(&spec, input(policy, &turned), &[]).expect("finite");
        let size = policy.logps.chosen.abs().max(policy.logps.rejected.abs()).max(largest(&references));
        prop_assert!(close(a.loss, b.loss, loss_scale(&spec, size)), "{} is not {}", a.loss, b.loss);
    }

    #[test]
    fn the_gradient_is_the_finite_difference(
        spec in any_spec(), policies in vec(any_scored(), 1..4), references in vec(any_references(), 4),
    ) {
        let n_references = references[0].len();
        let references: Vec<Vec<Scored>> =
            references.into_iter().map(|r| r.into_iter().cycle().take(n_references).collect()).collect();
        let batch = |policies: &[Scored]| {
            let pairs: Vec<PairInput<'_>> = policies.iter().zip(&references).map(|(p, r)| input(*p, r)).collect();
            super::evaluate(&spec, &pairs, &[]).expect("finite")
        };
        let total = |policies: &[Scored]| batch(policies).iter().map(|o| o.loss).sum::<f64>();
        let outcome = batch(&policies)[0].clone();
        let size = references.iter().map(|r| largest(r)).fold(largest(&policies), f64::max);
        // A step in the policy is 1e-5 of the loss's own unit 1/β, but not below what the size of the numbers resolves.
        let n = if spec.length_normalized { policies[0].n_tokens } else { Sides { chosen: 1.0, rejected: 1.0 } };
        let moved = |chosen: f64, rejected: f64| {
            let mut moved = policies.clone();
            moved[0].logps.chosen += chosen;
            moved[0].logps.rejected += rejected;
            total(&moved)
        };
        for (n, sign, expected) in [(n.chosen, 1.0, outcome.grad.chosen), (n.rejected, 0.0, outcome.grad.rejected)] {
            let h = (1e-5 * n / spec.beta).max(1e-8 * size);
            let (up, down) = (moved(h * sign, h * (1.0 - sign)), moved(-h * sign, -h * (1.0 - sign)));
            let here = total(&policies);
            let (forward, backward) = ((up - here) / h, (here - down) / h);
            let slack = 1e-15 * loss_scale(&spec, size) / h * 64.0;
            let tolerance = slack + 1e-3 * expected.abs() + 1e-9;
            // At a kink (a hinge, a rank in the batch) the gradient is one of the two sides', or between them.
            let (low, high) = (forward.min(backward) - tolerance, forward.max(backward) + tolerance);
            prop_assert!((low..=high).contains(&expected), "{} in {}..{} {:?}", expected, low, high, outcome);
        }
    }

    #[test]
    fn a_constant_on_both_sides_of_the_policy_changes_nothing(
        spec in any_spec_of(proptest::sample::select(vec![
            PairLoss::Sigmoid, PairLoss::Hinge, PairLoss::ExoPair, PairLoss::Robust, PairLoss::Aot,
            PairLoss::AotUnpaired, PairLoss::Discopop,
        ])),
        policy in any_scored(), references in any_references(), constant in -100.0..100.0,
    ) {
        // Of losses that see the difference of the sides only, and as sums.
        let spec = ObjectiveSpec { length_normalized: false, ..spec };
        let mut moved = policy;
        moved.logps = logps(policy.logps.chosen + constant, policy.logps.rejected + constant);
        let a = evaluate(&spec, input(policy, &references), &[]).expect("finite");
        let b = evaluate(&spec, input(moved, &references), &[]).expect("finite");
        let size = policy.logps.chosen.abs().max(policy.logps.rejected.abs()).max(largest(&references)) + 100.0;
        prop_assert!(close(a.loss, b.loss, loss_scale(&spec, size)), "{} is not {}", a.loss, b.loss);
    }

    #[test]
    fn harmonic_is_at_most_geometric_is_at_most_arithmetic(spec in sigmoid_spec(), references in any_references()) {
        let mixed = |mix| {
            let spec = ObjectiveSpec { mix, ..spec.clone() };
            evaluate(&spec, input(references[0], &references), &[]).expect("finite").virtual_reference
        };
        let (h, g, a) = (mixed(Mix::Harmonic), mixed(Mix::Geometric), mixed(Mix::Arithmetic));
        let slack = 1e-11 * (1.0 + largest(&references));
        prop_assert!(h.chosen <= g.chosen + slack && g.chosen <= a.chosen + slack);
        prop_assert!(h.rejected <= g.rejected + slack && g.rejected <= a.rejected + slack);
    }
}

#[test]
fn what_is_no_number_is_named() {
    let error = |policy, references: &[Scored]| {
        evaluate(&spec(), input(policy, references), &[]).expect_err("refused").to_string()
    };
    let fine = scored(-1.0, -2.0);
    assert_eq!(
        error(fine, &[fine, scored(-1.0, f64::NAN)]),
        "pair 0: the log-probability of the rejected completion under reference 1 is not a finite number"
    );
    assert!(error(scored(f64::NEG_INFINITY, -1.0), &[fine]).contains("chosen completion under the policy"));
    assert!(error(fine, &[]).contains("at least one reference"));
    let fixed = ObjectiveSpec { weighting: Weighting::Fixed, ..spec() };
    let message = evaluate(&fixed, input(fine, &[fine, fine]), &[1.0]).expect_err("refused").to_string();
    assert!(message.contains("got 1 weights for 2 references"), "{message}");
    let exchanged = ObjectiveSpec { weight_convention: crate::domain::WeightConvention::AuthorsCode, ..spec() };
    let message = evaluate(&exchanged, input(fine, &[fine]), &[]).expect_err("refused").to_string();
    assert!(message.contains("exactly two references"), "{message}");
}
