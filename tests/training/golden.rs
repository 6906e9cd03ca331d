//! The objective against golden vectors computed elsewhere in float64.
//!
//! The file is `$MRPO_GOLDEN`, else `../shared/golden/objectives.json` beside the repository; without it the test says
//! that it was skipped.

use std::path::PathBuf;

use mrpo::{
    domain::{Clip, Mix, ObjectiveSpec, PairLoss, Weighting},
    objective::{SequenceLogps, evaluate},
};
use serde::Deserialize;
use serde_json::Value;

/// Largest relative difference allowed.
const TOLERANCE: f64 = 1e-9;

#[derive(Deserialize)]
struct Case {
    beta: f64,
    policy: Sides<f64>,
    references: Sides<Vec<f64>>,
    #[serde(default)]
    weights: Vec<f64>,
    #[serde(default)]
    weighting: Weighting,
    #[serde(default)]
    clip: Clip,
    #[serde(default)]
    epsilon: f64,
    #[serde(default)]
    mix: Mix,
    #[serde(default)]
    label_smoothing: f64,
    loss: PairLoss,
    method: String,
    expected: Expected,
}

#[derive(Deserialize)]
struct Sides<T> {
    chosen: T,
    rejected: T,
}

#[derive(Deserialize)]
struct Expected {
    loss: f64,
    grad_chosen: f64,
    grad_rejected: f64,
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
    let all: Vec<Value> = serde_json::from_slice(&text).expect("a JSON list of cases");
    let ours = |case: &&Value| matches!(case["method"].as_str(), Some("dpo" | "mrpo")) && case["loss"] == "sigmoid";
    let mut n_cases = 0;
    let mut largest: f64 = 0.0;
    let mut failures = Vec::new();
    for (index, value) in all.iter().enumerate().filter(|(_, value)| ours(value)) {
        let case = serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("case {index}: {e}"));
        n_cases += 1;
        for (what, got, expected) in compare(&case) {
            let difference = relative_difference(got, expected);
            largest = largest.max(difference);
            if difference > TOLERANCE {
                failures.push(format!("case {index} {what}: {got}, not {expected} (relative {difference:.1e})"));
            }
        }
    }
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
    assert!(n_cases > 0, "{}: no case with method dpo or mrpo and loss sigmoid", path.display());
    eprintln!("{n_cases} golden cases, largest relative difference {largest:.1e}");
}

/// Every number of one case: what it is, ours, theirs.
fn compare(case: &Case) -> Vec<(&'static str, f64, f64)> {
    let spec = ObjectiveSpec {
        beta: case.beta,
        mix: case.mix,
        clip: case.clip,
        epsilon: case.epsilon,
        weighting: case.weighting,
        loss: case.loss,
        label_smoothing: case.label_smoothing,
    };
    let pairs = case.references.chosen.iter().zip(&case.references.rejected);
    let mut references: Vec<_> = pairs.map(|(&chosen, &rejected)| SequenceLogps { chosen, rejected }).collect();
    if case.method == "dpo" {
        references.truncate(1);
    }
    let policy = SequenceLogps { chosen: case.policy.chosen, rejected: case.policy.rejected };
    let ours = evaluate(&spec, policy, &references, &case.weights).expect("a finite case");
    let theirs = &case.expected;
    let mut numbers = vec![
        ("loss", ours.loss, theirs.loss),
        ("grad_chosen", ours.grad_chosen, theirs.grad_chosen),
        ("grad_rejected", ours.grad_rejected, theirs.grad_rejected),
        ("reward_chosen", ours.reward_chosen, theirs.reward_chosen),
        ("reward_rejected", ours.reward_rejected, theirs.reward_rejected),
    ];
    let mut one = |what, got, expected: Option<f64>| numbers.extend(expected.map(|expected| (what, got, expected)));
    one("epsilon_chosen", ours.epsilon.chosen, theirs.epsilon_chosen);
    one("epsilon_rejected", ours.epsilon.rejected, theirs.epsilon_rejected);
    one("virtual_chosen", ours.virtual_reference.chosen, theirs.virtual_chosen);
    one("virtual_rejected", ours.virtual_reference.rejected, theirs.virtual_rejected);
    let mut each = |what, got: Vec<f64>, expected: &Option<Vec<f64>>| {
        if let Some(expected) = expected {
            assert_eq!(got.len(), expected.len(), "{what}: one number per reference");
            numbers.extend(got.into_iter().zip(expected).map(|(got, expected)| (what, got, *expected)));
        }
    };
    each("alpha", ours.weights.clone(), &theirs.alpha);
    each("clipped_chosen", ours.references.iter().map(|r| r.chosen).collect(), &theirs.clipped_chosen);
    each("clipped_rejected", ours.references.iter().map(|r| r.rejected).collect(), &theirs.clipped_rejected);
    numbers
}

fn relative_difference(got: f64, expected: f64) -> f64 {
    if got == expected {
        return 0.0;
    }
    // A NaN is as far away as can be; `max` would drop it.
    let difference = (got - expected).abs() / expected.abs().max(got.abs()).max(f64::MIN_POSITIVE);
    if difference.is_nan() { f64::INFINITY } else { difference }
}
