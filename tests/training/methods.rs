//! Whole runs of every method and weighting: the first numbers are what the equations say, and they go on exactly.

use mrpo::{
    domain::{
        EvaluationPhase, FailureCode, HpoSettings, Method, ModpoSettings, RunEvent, SelmSettings, SpoSettings,
        TokenLevelSettings, TrainSpec,
    },
    run_dir::RunDir,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    tiny,
    world::{Moment, Run, World, failure},
};

const BETA: f64 = 0.1;
const N_PAIRS: usize = 6;

/// Pairs with every extra field.
fn rows() -> String {
    let mut rows = Vec::new();
    for (i, line) in tiny::pairs(N_PAIRS, 0, 30).lines().enumerate() {
        let mut row: Value = serde_json::from_str(line).expect("a row");
        let x = i as f64;
        row["margin_rewards_chosen"] = json!([0.5 * x, 1.0]);
        row["margin_rewards_rejected"] = json!([1.0, 0.25 * x]);
        row["aux_rewards_chosen"] = json!([0.3 * x]);
        row["aux_rewards_rejected"] = json!(0.1);
        row["dimension"] = json!(if i % 3 == 2 { "other" } else { "tone" });
        row["reference_response"] = json!(format!("well {i}"));
        row["chosen_spans"] = json!([[0, 5]]);
        row["rejected_spans"] = json!([[2, 3], [5, 9]]);
        rows.push(row.to_string());
    }
    rows.join("\n")
}

fn world() -> World {
    let world = World::new(1, 20);
    for name in ["training.jsonl", "validation.jsonl"] {
        std::fs::write(world.path(name), rows()).expect("written");
    }
    world
}

fn settings(more: Value) -> Value {
    let mut settings =
        json!({"batch_size": 4, "lora": {"rank": 2}, "learning_rate": 0.01, "clip": "none", "beta": BETA});
    settings.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    settings
}

/// Sums under one reference: per pair the chosen, the rejected and, where it was asked, the response; and their tokens.
fn scores(run: &Run, digest: &str, n_completions: usize) -> Vec<Vec<(f64, f64)>> {
    let text = std::fs::read_to_string(run.dir.scores_out()).expect("read");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a score"));
    let of_reference: Vec<(f64, f64)> = lines
        .filter(|line| line["reference"] == digest)
        .map(|line| (line["logp"].as_f64().expect("logp"), line["n_tokens"].as_f64().expect("n_tokens")))
        .collect();
    of_reference.chunks(n_completions).map(<[_]>::to_vec).collect()
}

fn margin(scores: &[(f64, f64)]) -> f64 {
    scores[0].0 - scores[1].0
}

fn nll(z: f64) -> f64 {
    (-z).exp().ln_1p()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

/// The validation loss before the first step.
fn loss_at_start(run: &Run) -> f64 {
    let loss = run.events().into_iter().find_map(|event| match event {
        RunEvent::Evaluation { phase: EvaluationPhase::Before, values, .. } => Some(values["loss"]),
        _ => None,
    });
    loss.expect("an evaluation")
}

/// Runs it, and holds the loss at its start to `expected`, which is told the scores of each reference.
fn check(world: &World, name: &str, spec: TrainSpec, expected: impl Fn(&[Vec<Vec<(f64, f64)>>]) -> f64) {
    let models: Vec<String> = spec.references.iter().chain(&spec.earlier).map(|r| r.digest.clone()).collect();
    let n_completions = if name == "selm" { 3 } else { 2 };
    let run = world.run(name, spec);
    let last = run.finish();
    assert!(matches!(last, RunEvent::Succeeded { .. }), "{name}: {last:?}");
    let columns: Vec<_> = models.iter().map(|digest| scores(&run, digest, n_completions)).collect();
    let (got, expected) = (loss_at_start(&run), expected(&columns));
    assert!((got - expected).abs() < 1e-5, "{name} begins at {got}, not {expected}");
}

fn alone(mut spec: TrainSpec) -> TrainSpec {
    spec.references.truncate(1);
    spec
}

#[test]
fn every_method_begins_where_its_equation_says() {
    let world = world();
    let plain = settings(json!({}));
    let ln_2 = std::f64::consts::LN_2;
    check(&world, "dpo", alone(world.spec_of(Method::Dpo, &plain)), |_| ln_2);

    let uniform = settings(json!({"weighting": "uniform"}));
    check(&world, "multi_dpo", world.spec_of(Method::MultiDpo, &uniform), |columns| {
        let z = |i: usize| BETA * (margin(&columns[0][i]) - margin(&columns[1][i]));
        mean((0..N_PAIRS).map(|i| 0.5 * ln_2 + 0.5 * nll(z(i))))
    });

    let modpo = Method::Modpo(ModpoSettings { preference_weight: 0.4, margin_weights: vec![0.5, 0.1] });
    check(&world, "modpo", alone(world.spec_of(modpo, &plain)), |_| {
        let rewards = |i: f64| 0.5 * (0.5 * i - 1.0) + 0.1 * (1.0 - 0.25 * i);
        mean((0..N_PAIRS).map(|i| nll(-rewards(i as f64) / 0.4)))
    });

    let spo =
        SpoSettings { dimension: "tone".into(), earlier: vec!["other".parse().expect("legal")], lambdas: vec![0.7] };
    let mut spec = world.spec_of(Method::Spo(spo), &plain);
    spec.earlier = spec.references.split_off(1);
    check(&world, "spo", spec, |columns| {
        assert_eq!(columns[0].len(), 4, "two pairs are of another dimension");
        mean((0..4).map(|i| nll(-0.7 * BETA * (margin(&columns[0][i]) - margin(&columns[1][i])))))
    });

    let hpo = HpoSettings { gamma: 0.2, temperature: 0.5, advantage_clip: 3.0, reward_weights: vec![1.0] };
    check(&world, "hpo", alone(world.spec_of(Method::Hpo(hpo), &plain)), |columns| {
        let term = |i: usize| {
            let advantage = f64::midpoint(0.3 * i as f64, -0.1) / 0.5;
            let per_token = |(logp, n_tokens): (f64, f64)| logp / n_tokens;
            let [chosen, rejected] = [0, 1].map(|side| per_token(columns[0][i][side]));
            -0.2 * (advantage.exp() * chosen + (-advantage).exp() * rejected)
        };
        ln_2 + mean((0..N_PAIRS).map(term))
    });

    let selm = Method::Selm(SelmSettings { alpha: 0.01 });
    check(&world, "selm", alone(world.spec_of(selm, &plain)), |columns| {
        assert!(columns[0].iter().all(|pair| pair.len() == 3), "the response is scored");
        ln_2
    });

    let token_level = Method::TokenLevel(TokenLevelSettings { outside_weight: 0.25 });
    let geometric = settings(json!({"weighting": "uniform", "mix": "geometric"}));
    check(&world, "token_level", world.spec_of(token_level, &geometric), |columns| {
        assert!(columns[0][0][0].1 < 10.0, "most tokens count a quarter: {:?}", columns[0][0]);
        mean((0..N_PAIRS).map(|i| nll(BETA * 0.5 * (margin(&columns[0][i]) - margin(&columns[1][i])))))
    });
}

#[test]
fn what_a_row_lacks_ends_the_run_with_its_line() {
    let world = world();
    let without = rows().lines().map(|line| line.replace("reference_response", "response")).collect::<Vec<_>>();
    let mut lines: Vec<String> = rows().lines().map(str::to_owned).collect();
    lines[4].clone_from(&without[4]);
    std::fs::write(world.path("training.jsonl"), lines.join("\n")).expect("written");
    let selm = Method::Selm(SelmSettings { alpha: 0.01 });
    let refused = failure(world.run("lacks", alone(world.spec_of(selm, &settings(json!({}))))).finish());
    assert_eq!(refused.code, FailureCode::InvalidDataset);
    let expected = "the training file, line 5: selm needs the field `reference_response`: give them on every line";
    assert_eq!(refused.message, expected);

    let spo = SpoSettings { dimension: "truth".into(), earlier: Vec::new(), lambdas: Vec::new() };
    let refused = failure(world.run("none", alone(world.spec_of(Method::Spo(spo), &settings(json!({}))))).finish());
    assert!(refused.message.contains("no line has the dimension 'truth'"), "{refused}");
}

#[test]
fn weights_that_change_from_step_to_step_go_on_exactly() {
    let world = World::new(24, 20);
    for (weighting, more) in [
        ("thompson", json!({"thompson_pairs": 2})),
        ("swcw", json!({})),
        ("swcw_one_hot", json!({"loss": ["sigmoid", "aot"], "loss_weights": [0.5, 0.5], "micro_batch_tokens": 64})),
    ] {
        let mut settings = json!({"weighting": weighting, "batch_size": 2, "lora": {"rank": 2}, "learning_rate": 0.01,
                                  "checkpoint_every_n_steps": 3});
        settings.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let alone = world.run(&format!("{weighting}-alone"), world.spec(&settings));
        alone.finish();
        let killed = world.run(&format!("{weighting}-killed"), world.spec(&settings));
        for moment in [Moment::Step(2), Moment::Saved(3), Moment::Step(8)] {
            killed.hit(moment, Signal::SIGKILL);
        }
        killed.finish();
        assert_eq!(killed.outcome(&[]), alone.outcome(&[]), "{weighting}");
        let state =
            std::fs::read_to_string(alone.dir.checkpoints().join(RunDir::checkpoint_name(12)).join("state.json"));
        assert!(state.expect("read").contains("weigher"));
    }
}

#[test]
fn a_reference_that_adds_nothing_is_named() {
    let world = World::new(4, 20);
    let mut spec = world.spec(&json!({"batch_size": 4, "lora": {"rank": 2}}));
    // Another name for the base.
    let base = spec.references[0].clone();
    spec.references[1] = mrpo::domain::ResolvedReference { model: "twin".parse().expect("legal"), ..base };
    let run = world.run("twin", spec);
    run.finish();
    let found = run.events().into_iter().find_map(|event| match event {
        RunEvent::Message { message, data: Some(data), .. } if data["diagnosis"].is_object() => Some((message, data)),
        _ => None,
    });
    let (message, data) = found.expect("a diagnosis");
    assert_eq!(data, json!({"diagnosis": {"reference": "twin", "finding": "same_as_base"}}));
    assert!(message.contains("adds nothing"), "{message}");
}
