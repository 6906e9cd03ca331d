//! Runs that must not go on: changed inputs, pairs that do not fit, numbers that are none.

use mrpo::domain::{EvaluationPhase, FailureCode, RunEvent, RunSpec};
use serde_json::{Value, json};

use crate::{
    tiny,
    world::{World, append, failure, reference},
};

fn settings(more: &Value) -> Value {
    let mut settings = json!({"batch_size": 2, "checkpoint_every_n_steps": 1, "lora": {"rank": 2}});
    for (key, value) in more.as_object().expect("an object") {
        settings[key] = value.clone();
    }
    settings
}

#[test]
fn a_checkpoint_goes_on_only_with_the_file_and_the_references_it_was_made_with() {
    let world = World::new(4, 20);
    let spec = world.spec(&settings(&json!({})));
    let run = world.run("run", spec.clone());
    run.finish();
    let n_scores = run.scores().len();
    let before = std::fs::read_to_string(&spec.training_file).expect("read");
    append(&spec.training_file, &tiny::pairs(1, 500, 20));
    let changed = failure(run.finish());
    assert_eq!(changed.code, FailureCode::InvalidCheckpoint);
    assert!(changed.message.contains("another training file"), "{changed}");
    assert_eq!(run.scores().len(), n_scores, "it fails before it scores anything");

    std::fs::write(&spec.training_file, before).expect("written");
    let mut other = spec.clone();
    other.references[1] = reference(world.path("").as_path(), "another", 70);
    run.dir.create(&RunSpec::Train(Box::new(other))).expect("written");
    let changed = failure(run.finish());
    assert_eq!(changed.code, FailureCode::InvalidCheckpoint);
    assert!(changed.message.contains("other references"), "{changed}");

    run.dir.create(&RunSpec::Train(Box::new(spec))).expect("written");
    assert!(matches!(run.finish(), RunEvent::Succeeded { .. }), "as it was it goes on");

    append(&world.path("other").join("config.json"), " ");
    let changed = failure(run.finish());
    assert_eq!(changed.code, FailureCode::InvalidModel);
    assert!(changed.message.contains("changed since it was registered"), "{changed}");
}

#[test]
fn a_pair_that_does_not_fit_is_refused_left_out_or_cut_as_asked() {
    let world = World::new(4, 20);
    // Line 5 has a long prompt; line 6 a completion that is too long alone.
    append(&world.path("training.jsonl"), &tiny::pairs(1, 4, 300));
    let long = json!({"prompt": "p", "chosen": "x ".repeat(200), "rejected": "no"});
    append(&world.path("training.jsonl"), &format!("{long}\n"));
    let run = |policy: &str| {
        let mut spec = world.spec(&settings(&json!({"truncation": policy, "max_length": 250, "batch_size": 1})));
        spec.validation_file = None;
        world.run(policy, spec)
    };

    let refused = failure(run("error").finish());
    assert_eq!(refused.code, FailureCode::InvalidDataset);
    assert!(refused.message.contains("2 are too long") && refused.message.contains("lines 5, 6"), "{refused}");

    for (policy, n_steps, words) in [
        ("drop", 4, ["2 are too long and left out", "lines 5, 6"]),
        ("truncate_prompt_left", 5, ["1 prompts lost", "1 are too long and left out; the longest"]),
    ] {
        let run = run(policy);
        assert!(matches!(run.finish(), RunEvent::Succeeded { .. }));
        let events = run.events();
        let n_said = events.iter().filter(|e| matches!(e, RunEvent::Metrics { .. })).count();
        assert_eq!(n_said, n_steps, "{policy}");
        let report = events.iter().find_map(|e| match e {
            RunEvent::Message { message, .. } if message.starts_with("training file") => Some(message),
            _ => None,
        });
        let report = report.expect("a report");
        assert!(words.iter().all(|word| report.contains(word)), "{report}");
    }
}

#[test]
fn a_pair_with_nothing_but_an_end_is_refused_by_its_line() {
    let world = World::new(4, 20);
    append(&world.path("training.jsonl"), "{\"prompt\":\"p\",\"chosen\":\"\",\"rejected\":\"no\"}\n");
    let run = world.run("run", world.spec(&settings(&json!({}))));
    let refused = failure(run.finish());
    assert_eq!(refused.code, FailureCode::InvalidDataset);
    assert!(refused.message.contains("line 5"), "{refused}");
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_leaves_its_checkpoints() {
    let world = World::new(8, 20);
    let mut spec = world.spec(&settings(&json!({"lora": null, "warmup_ratio": 0, "lr_schedule": "constant"})));
    // What no request can ask for.
    spec.hyperparameters.learning_rate = 1e30;
    spec.validation_file = None;
    let run = world.run("run", spec);
    let refused = failure(run.finish());
    assert_eq!(refused.code, FailureCode::NonFiniteLoss, "{refused}");
    assert!(refused.message.contains("learning_rate"), "{refused}");
    let steps: Vec<u64> = run.dir.list_checkpoints().expect("listed").into_iter().map(|(step, _)| step).collect();
    assert_eq!(steps, [1]);
}

#[test]
fn a_checkpoint_that_does_not_fit_the_disk_leaves_nothing_behind() {
    let world = World::new(4, 20);
    let run = world.run("run", world.spec(&settings(&json!({"lora": null}))));
    // The weights have 24 KiB, the optimizer twice that.
    assert!(run.finish_within(40 << 10).success());
    let full = failure(run.events().pop().expect("a last event"));
    assert_eq!(full.code, FailureCode::DiskFull, "{full}");
    assert_eq!(std::fs::read_dir(run.dir.checkpoints()).expect("read").count(), 0, "its room is free again");
    assert!(matches!(run.finish(), RunEvent::Succeeded { .. }), "with room it goes on");
    assert_eq!(run.outcome(&[]), {
        let alone = world.run("alone", world.spec(&settings(&json!({"lora": null}))));
        alone.finish();
        alone.outcome(&[])
    });
}

#[test]
fn a_line_that_does_not_fit_the_disk_is_not_begun() {
    let world = World::new(4, 20);
    let run = world.run("run", world.spec(&settings(&json!({}))));
    let line = r#"{"at_ms":1,"type":"message","level":"info","message":"padding"}"#.to_owned() + "\n";
    let n_lines = (40 << 10) / line.len();
    std::fs::write(run.dir.events(), line.repeat(n_lines)).expect("written");
    assert!(!run.finish_within(40 << 10).success(), "it cannot say how it ended");
    assert_eq!(std::fs::read_to_string(run.dir.events()).expect("read"), line.repeat(n_lines));
}

#[test]
fn a_checkpoint_has_the_evaluation_of_its_own_step_or_none() {
    let world = World::new(8, 20);
    let spec = world.spec(&settings(&json!({"eval_every_n_steps": 2, "checkpoint_every_n_steps": 1})));
    let run = world.run("run", spec);
    run.finish();
    let (mut evaluated, mut saved) = (Vec::new(), Vec::new());
    for event in run.events() {
        match event {
            RunEvent::Evaluation { step, phase: EvaluationPhase::During | EvaluationPhase::After, .. } => {
                evaluated.push(step);
            }
            RunEvent::Checkpoint(summary) => saved.push((summary.step, summary.metrics.contains_key("eval_loss"))),
            _ => {}
        }
    }
    assert!(saved.iter().any(|(_, is_evaluated)| !is_evaluated), "{saved:?}");
    assert!(saved.iter().all(|(step, is_evaluated)| evaluated.contains(step) == *is_evaluated), "{saved:?}");
}
