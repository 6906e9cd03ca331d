//! What a run is told of its references' scores: what it then computes, says and gives.

use mrpo::{
    domain::{ReferenceScore, RunEvent, ScorePrecision},
    run_dir::{RunDir, ScoresIn, read_all_scores},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::world::{Moment, Run, World, failure};

/// Two completions of every pair of both files.
const N_PAIRS: usize = 12;
const N_SCORES: usize = 2 * (N_PAIRS + 3);

fn settings() -> Value {
    json!({"n_epochs": 1, "batch_size": 4, "lora": {"rank": 2}, "checkpoint_every_n_steps": 2, "learning_rate": 1e-3})
}

fn scores(run: &Run) -> Vec<ReferenceScore> {
    let mut scores = Vec::new();
    read_all_scores(&run.dir.scores_out(), |score| scores.push(score)).expect("read");
    scores
}

fn tell(run: &Run, scores: &[ReferenceScore]) {
    let mut file = ScoresIn::create(&run.dir).expect("made");
    file.append(scores).and_then(|()| file.finish()).expect("written");
}

/// What the last attempt says of its scores: (reference, known, computed), the whole phase last.
fn said(run: &Run) -> Vec<(Option<String>, u64, u64)> {
    let of = |event| {
        let RunEvent::ReferenceScores { model, key, count } = event else { return None };
        assert!(count.duration_ms >= 0.0 && key.is_some() == model.is_some());
        Some((model.map(String::from), count.n_known, count.n_computed))
    };
    run.events().into_iter().filter_map(of).collect()
}

fn expected(known: [usize; 2], computed: [usize; 2]) -> Vec<(Option<String>, u64, u64)> {
    let of = |name: Option<&str>, known, computed| (name.map(str::to_owned), known as u64, computed as u64);
    vec![
        of(Some("other"), known[1], computed[1]),
        of(Some("base"), known[0], computed[0]),
        of(None, known.iter().sum(), computed.iter().sum()),
    ]
}

#[test]
fn a_run_that_is_told_everything_computes_nothing_and_ends_the_same() {
    let world = World::new(N_PAIRS, 40);
    let first = world.run("first", world.spec(&settings()));
    first.finish();
    assert_eq!(said(&first), expected([0; 2], [N_SCORES; 2]));
    let known = scores(&first);

    // Of its own file, and of another one: what is not noted for its file it says again.
    for (name, is_of_file, n_said) in [("own", true, 0), ("other", false, 2 * N_SCORES)] {
        let run = world.run(name, world.spec(&settings()));
        let told: Vec<_> = known.iter().map(|s| ReferenceScore { is_of_file, line: None, ..s.clone() }).collect();
        tell(&run, &told);
        run.finish();
        assert_eq!(said(&run), expected([N_SCORES; 2], [0; 2]));
        assert_eq!(run.outcome(&[]), first.outcome(&[]));
        assert_eq!(scores(&run).len(), n_said);
        assert!(scores(&run).iter().all(|score| known.contains(score)));
    }
}

/// Every third score is known; the rest is computed, one completion of a pair alone where the other is known.
#[test]
fn a_run_computes_what_it_is_not_told_and_a_resumed_one_finds_the_same() {
    let world = World::new(N_PAIRS, 40);
    let first = world.run("first", world.spec(&settings()));
    first.finish();
    let mut known = scores(&first);
    known.retain(|s| s.row.as_bytes()[63] % 3 == 0);
    let is_known = |s: &ReferenceScore| known.iter().any(|k| (&k.reference, &k.row) == (&s.reference, &s.row));
    // A mark no model gives: what was told is used as it is.
    let marked: Vec<_> = known
        .iter()
        .map(|s| ReferenceScore { logp: s.logp - 1e-9, is_of_file: true, line: None, ..s.clone() })
        .collect();
    let mut all = Vec::new();
    for (name, kills) in [("alone", &[][..]), ("killed", &[1, 9])] {
        let run = world.run(name, world.spec(&settings()));
        tell(&run, &marked);
        for n in kills {
            run.hit(Moment::Scored(*n), Signal::SIGKILL);
        }
        run.finish();
        let said = said(&run);
        let (_, n_known, n_computed) = said.last().expect("the whole phase");
        // However often it was killed, what it says is of the whole run.
        assert_eq!((*n_known as usize, *n_computed as usize), (known.len(), 2 * N_SCORES - known.len()));
        let scores = scores(&run);
        assert_eq!(scores.len(), 2 * N_SCORES - known.len());
        assert!(!scores.iter().any(is_known), "nothing is scored twice");
        for score in &scores {
            let of_first =
                self::scores(&first).into_iter().find(|s| (&s.reference, &s.row) == (&score.reference, &score.row));
            let of_first = of_first.expect("the same rows").logp;
            assert!((score.logp - of_first).abs() < 1e-4 * of_first.abs(), "{score:?}, not {of_first}");
        }
        all.push((scores, run.outcome(&[])));
    }
    assert_eq!(all[0], all[1]);
    assert_ne!(all[0].1, first.outcome(&[]), "the marks make a difference");
}

#[test]
fn scores_of_another_precision_are_not_used() {
    let world = World::new(4, 20);
    let first = world.run("first", world.spec(&settings()));
    first.finish();
    let of_other = |s: ReferenceScore| ReferenceScore { precision: ScorePrecision::Bfloat16, logp: -1.0, ..s };
    let run = world.run("run", world.spec(&settings()));
    tell(&run, &scores(&first).into_iter().map(of_other).collect::<Vec<_>>());
    run.finish();
    assert_eq!(said(&run), expected([0; 2], [14; 2]));
    assert_eq!(run.outcome(&[]), first.outcome(&[]));
}

type Place = fn(&RunDir) -> std::path::PathBuf;

#[test]
fn a_broken_line_ends_the_run_and_a_torn_end_is_dropped() {
    let world = World::new(4, 20);
    let first = world.run("first", world.spec(&settings()));
    first.finish();
    let lines = std::fs::read_to_string(first.dir.scores_out()).expect("read");
    let torn = &lines[..lines.len() - 9];
    let broken = lines.replacen("\"row\":\"", "\"row\":\"x", 2).replacen("\"row\":\"x", "\"row\":\"", 1);
    let places: [(&str, Place, &str, Option<&str>); 4] = [
        ("torn-out", RunDir::scores_out, torn, None),
        ("torn-in", RunDir::scores_in, torn, Some("line 28: is cut off")),
        ("broken-out", RunDir::scores_out, &broken, Some("line 2: the row is not 64 hexadecimal digits")),
        ("broken-in", RunDir::scores_in, &broken, Some("line 2: the row is not 64 hexadecimal digits")),
    ];
    for (name, place, text, error) in places {
        let run = world.run(name, world.spec(&settings()));
        std::fs::write(place(&run.dir), text).expect("written");
        let last = run.finish();
        match error {
            None => assert_eq!(run.outcome(&[]), first.outcome(&[])),
            Some(why) => assert!(failure(last).message.ends_with(why), "{name}: {why}"),
        }
    }
}
