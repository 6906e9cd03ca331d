//! The objective against golden vectors computed elsewhere in float64.
//!
//! The file is `$MRPO_GOLDEN`, else `../shared/golden/objectives.json` beside the repository; without it the test says
//! that it was skipped.

use std::path::PathBuf;

use mrpo::{
    domain::{Losses, Method, ModpoSettings, ObjectiveSpec, PairLoss, SelmSettings, Sides},
    objective::{Optimism, PairInput, PairOutcome, Scored, evaluate, margin_rewards},
};
use serde::Deserialize;
use serde_json::Value;

/// Largest relative difference allowed.
const TOLERANCE: f64 = 1e-9;

/// Below this size a difference is taken relative to it: gradients that vanish were stored with the rounding of the numbers
/// of size 1 that they are the difference of.
const SMALL: f64 = 1e-6;

#[derive(Deserialize)]
struct Case {
    method: String,
    policy: Sides<f64>,
    tokens: Sides<f64>,
    references: Sides<Vec<f64>>,
    #[serde(default)]
    weights: Vec<f64>,
    alpha: Option<f64>,
    optimism: Option<OptimismCase>,
    #[serde(default)]
    preference_weight: f64,
    #[serde(default)]
    margin_weights: Vec<f64>,
    #[serde(default)]
    margin_chosen: Vec<f64>,
    #[serde(default)]
    margin_rejected: Vec<f64>,
    expected: Expected,
}

#[derive(Deserialize)]
struct OptimismCase {
    policy: f64,
    reference: f64,
}

#[derive(Deserialize)]
struct Expected {
    loss: f64,
    grad_chosen: f64,
    grad_rejected: f64,
    grad_optimism: Option<f64>,
    reward_chosen: f64,
    reward_rejected: f64,
    alpha: Option<Vec<f64>>,
    clipped_chosen: Option<Vec<f64>>,
    clipped_rejected: Option<Vec<f64>>,
    epsilon_chosen: Option<f64>,
    epsilon_rejected: Option<f64>,
    virtual_chosen: Option<f64>,
    virtual_rejected: Option<f64>,
}

#[test]
fn golden_vectors() {
    let path = std::env::var_os("MRPO_GOLDEN").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/golden/objectives.json"),
        PathBuf::from,
    );
    if !path.exists() && std::env::var_os("MRPO_GOLDEN").is_none() {
        eprintln!("skipped: no golden vectors at {}; set MRPO_GOLDEN to a file of them", path.display());
        return;
    }
    let text = std::fs::read(&path).expect("readable golden vectors");
    let cases: Vec<Value> = serde_json::from_slice(&text).expect("a JSON list of cases");
    let mut largest: f64 = 0.0;
    let mut failures = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        for (what, got, expected) in compare(case).unwrap_or_else(|e| panic!("case {index}: {e}")) {
            let difference = relative_difference(got, expected);
            largest = largest.max(difference);
            if difference > TOLERANCE {
                failures.push(format!("case {index} {what}: {got}, not {expected} (relative {difference:.1e})"));
            }
        }
    }
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
    assert!(!cases.is_empty(), "{}: no case", path.display());
    eprintln!("{} golden cases, largest relative difference {largest:.1e}", cases.len());
}

/// The method of a case with its own settings.
fn method(case: &Case) -> Method {
    match case.method.as_str() {
        "dpo" => Method::Dpo,
        "mrpo" => Method::Mrpo,
        "multi_dpo" => Method::MultiDpo,
        "selm" => Method::Selm(SelmSettings { alpha: case.alpha.expect("an alpha") }),
        "modpo" => Method::Modpo(ModpoSettings {
            preference_weight: case.preference_weight,
            margin_weights: case.margin_weights.clone(),
        }),
        other => panic!("an unknown method: {other}"),
    }
}

/// The objective that a case's own fields and its method make.
fn objective(value: &Value, method: &Method) -> serde_json::Result<ObjectiveSpec> {
    let mut fields = value.clone();
    // Elsewhere the field `optimism` is the term's weight; here it holds the log-probabilities.
    fields.as_object_mut().expect("an object").retain(|name, _| !matches!(name.as_str(), "optimism"));
    let mut spec: ObjectiveSpec = serde_json::from_value(fields)?;
    if value["loss"].is_null() {
        spec.loss = Losses::One(PairLoss::Sigmoid);
    }
    method.apply_to(&mut spec);
    Ok(spec)
}

fn outcome(value: &Value, case: &Case) -> serde_json::Result<PairOutcome> {
    let method = method(case);
    let spec = objective(value, &method)?;
    let scored = |chosen, rejected| Scored { logps: Sides { chosen, rejected }, n_tokens: case.tokens };
    let pairs = case.references.chosen.iter().zip(&case.references.rejected);
    let mut references: Vec<_> = pairs.map(|(chosen, rejected)| scored(*chosen, *rejected)).collect();
    if !matches!(method, Method::Mrpo | Method::MultiDpo) {
        references.truncate(1);
    }
    let rewards = Sides { chosen: case.margin_chosen.clone(), rejected: case.margin_rejected.clone() };
    let pair = PairInput {
        policy: scored(case.policy.chosen, case.policy.rejected),
        references: &references,
        other_rewards: margin_rewards(&case.margin_weights, &rewards),
        likelihood: Sides::default(),
        optimism: case.optimism.as_ref().map(|o| Optimism { policy: o.policy, reference: o.reference }),
    };
    Ok(evaluate(&spec, &[pair], &case.weights).expect("a finite case").remove(0))
}

/// Every number of one case: what it is, ours, theirs.
fn compare(value: &Value) -> serde_json::Result<Vec<(&'static str, f64, f64)>> {
    let case: Case = serde_json::from_value(value.clone())?;
    let ours = outcome(value, &case)?;
    let theirs = &case.expected;
    let mut numbers = vec![
        ("loss", ours.loss, theirs.loss),
        ("grad_chosen", ours.grad.chosen, theirs.grad_chosen),
        ("grad_rejected", ours.grad.rejected, theirs.grad_rejected),
        ("reward_chosen", ours.rewards.chosen, theirs.reward_chosen),
        ("reward_rejected", ours.rewards.rejected, theirs.reward_rejected),
    ];
    let mut one = |what, got, expected: Option<f64>| numbers.extend(expected.map(|expected| (what, got, expected)));
    one("epsilon_chosen", ours.epsilon.chosen, theirs.epsilon_chosen);
    one("epsilon_rejected", ours.epsilon.rejected, theirs.epsilon_rejected);
    one("virtual_chosen", ours.virtual_reference.chosen, theirs.virtual_chosen);
    one("virtual_rejected", ours.virtual_reference.rejected, theirs.virtual_rejected);
    one("grad_optimism", ours.grad_optimism, theirs.grad_optimism);
    let mut each = |what, got: Vec<f64>, expected: &Option<Vec<f64>>| {
        if let Some(expected) = expected {
            assert_eq!(got.len(), expected.len(), "{what}: one number per reference");
            numbers.extend(got.into_iter().zip(expected).map(|(got, expected)| (what, got, *expected)));
        }
    };
    each("alpha", ours.weights.clone(), &theirs.alpha);
    each("clipped_chosen", ours.references.iter().map(|r| r.chosen).collect(), &theirs.clipped_chosen);
    each("clipped_rejected", ours.references.iter().map(|r| r.rejected).collect(), &theirs.clipped_rejected);
    Ok(numbers)
}

fn relative_difference(got: f64, expected: f64) -> f64 {
    if got == expected {
        return 0.0;
    }
    // A NaN is as far away as can be; `max` would drop it.
    let difference = (got - expected).abs() / expected.abs().max(got.abs()).max(SMALL);
    if difference.is_nan() { f64::INFINITY } else { difference }
}
