//! A run that is stopped, killed and started again does to the bit what a run that was left alone does.

use std::collections::BTreeSet;

use mrpo::domain::RunEvent;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::world::{Moment, World};

const N_PAIRS: usize = 40;
/// Two epochs of batches of four.
const N_STEPS: u64 = 20;

fn settings(lora: Value, learning_rate: f64) -> Value {
    json!({
        "n_epochs": 2, "batch_size": 4, "micro_batch_tokens": 400, "lora": lora, "learning_rate": learning_rate,
        "eval_every_n_steps": 5, "checkpoint_every_n_steps": 3,
    })
}

fn lora() -> Value {
    settings(json!({"rank": 2, "dropout": 0.1, "target_modules": ["q_proj", "v_proj", "down_proj"]}), 1e-3)
}

fn full() -> Value {
    settings(Value::Null, 1e-4)
}

/// Compares a run that is left alone with one that is told to stop twice and one that is killed again and again.
fn check(settings: &Value) {
    let world = World::new(N_PAIRS, 100);
    let alone = world.run("alone", world.spec(settings));
    alone.finish();
    let expected = alone.outcome(&[]);

    let told = world.run("told", world.spec(settings));
    let mut stops = Vec::new();
    for step in [2, 8] {
        match told.hit(Moment::Step(step), Signal::SIGTERM) {
            RunEvent::Stopped { step } => stops.push(step),
            other => panic!("told to stop it ends with {other:?}"),
        }
    }
    told.finish();
    // A stop at a step at which a checkpoint is due anyway brings none.
    stops.retain(|step| step % 3 != 0 && *step != N_STEPS);
    assert_eq!(told.outcome(&stops), expected, "told to stop");

    let killed = world.run("killed", world.spec(settings));
    let moments = [
        Moment::Scored(3),
        Moment::Scored(50),
        Moment::Step(1),
        Moment::Step(3),
        Moment::Saved(3),
        Moment::Step(7),
        Moment::Saved(9),
        Moment::Step(12),
    ];
    for moment in moments {
        killed.hit(moment, Signal::SIGKILL);
    }
    killed.finish();
    assert_eq!(killed.outcome(&[]), expected, "killed");
    let scores = killed.scores();
    let distinct: BTreeSet<_> = scores.iter().collect();
    // Two completions of each pair under two references.
    let n_scores = 2 * 2 * (N_PAIRS + 3);
    assert_eq!((scores.len(), distinct.len()), (n_scores, n_scores), "each is scored once");
}

#[test]
fn a_lora_run_goes_on_exactly() {
    check(&lora());
}

#[test]
fn a_full_fine_tune_goes_on_exactly() {
    check(&full());
}

#[test]
fn one_seed_gives_one_result_and_another_another() {
    let world = World::new(8, 20);
    let mut outcomes = Vec::new();
    for (name, seed) in [("first", 7), ("second", 7), ("third", 8)] {
        let mut spec = world.spec(&lora());
        spec.seed = seed;
        let run = world.run(name, spec);
        run.finish();
        outcomes.push(run.outcome(&[]));
    }
    assert_eq!(outcomes[0], outcomes[1]);
    assert_ne!(outcomes[0], outcomes[2]);
}

/// A kill can fall between any two writes: every place at which `events.jsonl` can end is tried.
#[test]
fn what_was_not_said_before_a_kill_is_said_after_it() {
    let world = World::new(8, 20);
    let alone = world.run("alone", world.spec(&lora()));
    alone.finish();
    let expected = alone.outcome(&[]);
    let (events, _) = alone.dir.read_events(0, 64 << 20).expect("read");
    let from = events.iter().position(|e| e.record.event.repeatable_step() == Some((0, 3))).expect("step 3");
    let (lines, checkpoint) = (std::fs::read(alone.dir.events()).expect("read"), alone.checkpoint(3));
    for cut in events[from..].windows(2).map(|pair| pair[1].offset).take(3) {
        // In front of a line, and in its middle.
        for cut in [cut, cut + 20] {
            let run = world.run(&format!("cut-{cut}"), world.spec(&lora()));
            std::fs::write(run.dir.events(), &lines[..cut as usize]).expect("written");
            std::fs::copy(alone.dir.scores_out(), run.dir.scores_out()).expect("copied");
            std::fs::create_dir(run.checkpoint(3)).expect("made");
            for entry in std::fs::read_dir(&checkpoint).expect("read") {
                let path = entry.expect("entry").path();
                std::fs::copy(&path, run.checkpoint(3).join(path.file_name().expect("named"))).expect("copied");
            }
            run.finish();
            assert_eq!(run.outcome(&[]), expected, "cut at byte {cut}");
        }
    }
}

#[test]
fn a_run_that_died_after_its_last_checkpoint_only_says_so() {
    let world = World::new(8, 20);
    let run = world.run("run", world.spec(&lora()));
    run.finish();
    let expected = run.outcome(&[]);
    let lines = std::fs::read_to_string(run.dir.events()).expect("read");
    let n_kept = lines.lines().position(|line| line.contains(r#""directory":"step-000004""#)).expect("the checkpoint");
    let kept: String = lines.split_inclusive('\n').take(n_kept).collect();
    std::fs::write(run.dir.events(), kept).expect("written");
    run.finish();
    assert_eq!(run.outcome(&[]), expected);
}
