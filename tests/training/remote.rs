//! References on other servers: what is asked, what becomes of the answers, and what is said where there are none.

use std::{collections::BTreeMap, process::Command};

use mrpo::{
    domain::{
        Failure, FailureCode, ModelInfo, RegisterSpec, RemoteTokenizer, ResolvedReference, RunEvent, RunSpec, TrainSpec,
    },
    run_dir::{RunDir, read_all_scores},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    fake_server::{Behaviour, FakeServer, logps},
    world::{Moment, Run, World, failure},
};

const N_PAIRS: usize = 8;
/// Of the remote reference: two completions of each pair of both files.
const N_SCORES: usize = 2 * (N_PAIRS + 3);
const END: &str = "<|im_end|>";

fn world() -> World {
    World::new(N_PAIRS, 30)
}

fn settings() -> Value {
    json!({"n_epochs": 1, "batch_size": 4, "lora": {"rank": 2}, "learning_rate": 1e-3})
}

/// Registers `fake` as the server has it; `with_template` takes the world's base for a tokenizer.
fn register(world: &World, name: &str, url: &str, with_template: bool) -> Result<ModelInfo, Failure> {
    let base = &world.spec(&settings()).references[0];
    let tokenizer = RemoteTokenizer { digest: base.digest.clone(), location: base.location.clone() };
    let source = format!("remote:{url}#fake{}", if with_template { "&tokenizer=base" } else { "" });
    let spec = RegisterSpec {
        model: "judge".parse().expect("legal"),
        source: source.parse().expect("a source"),
        store_dir: world.path("models"),
        files_dir: world.path("files"),
        tokenizer: with_template.then_some(tokenizer),
    };
    let run = Run { dir: RunDir::new(world.path(name)) };
    run.dir.create(&RunSpec::Register(Box::new(spec))).expect("written");
    match execute(&run) {
        RunEvent::Failed { failure } => Err(failure),
        _ => Ok(run
            .events()
            .into_iter()
            .find_map(|event| if let RunEvent::Registered { model } = event { Some(model) } else { None })
            .expect("said")),
    }
}

/// Runs the program with a key, little patience, and nothing else of the environment that matters. Returns its last word.
fn execute(run: &Run) -> RunEvent {
    let status = Command::new(env!("CARGO_BIN_EXE_mrpo"))
        .arg("run")
        .arg(run.dir.root())
        .envs([("MRPO_REMOTE_KEY_JUDGE", "sk-secret"), ("MRPO_REMOTE_KEY", "sk-of-others")])
        .envs([("MRPO_REMOTE_TIMEOUT_SECONDS", "2"), ("MRPO_REMOTE_ATTEMPTS", "4")])
        .status()
        .expect("started");
    assert!(status.success());
    run.events().pop().expect("a last word")
}

/// A run against the base and the remote reference.
fn spec(world: &World, info: &ModelInfo) -> TrainSpec {
    let mut spec = world.spec(&settings());
    let (digest, location) = (info.digest.clone(), info.location.clone());
    spec.references[1] = ResolvedReference { model: "judge".parse().expect("legal"), digest, location, weight: None };
    spec
}

/// What the run has written down of the remote reference: by line, in the order of the file's sides.
fn scores(run: &Run, info: &ModelInfo) -> Vec<(u64, f64, f64)> {
    let mut scores = BTreeMap::new();
    let mut add = |score: mrpo::domain::ReferenceScore| {
        if score.reference == info.digest {
            assert_eq!(score.precision.as_str(), "as_served");
            let first = scores.insert(score.row.clone(), (score.line.expect("a line"), score.logp, score.n_tokens));
            assert_eq!(first, None, "nothing is written down twice");
        }
    };
    read_all_scores(&run.dir.scores_out(), &mut add).expect("read");
    let mut scores: Vec<_> = scores.into_values().collect();
    scores.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    scores
}

/// The same from the texts themselves.
fn expected(world: &World, with_template: bool) -> Vec<(u64, f64, f64)> {
    let mut expected = Vec::new();
    for file in ["training.jsonl", "validation.jsonl"] {
        let text = std::fs::read_to_string(world.path(file)).expect("read");
        for (line, row) in (1..).zip(text.lines()) {
            let row: Value = serde_json::from_str(row).expect("a pair");
            let prompt = row["prompt"].as_str().expect("text");
            for side in ["chosen", "rejected"] {
                let completion = row[side].as_str().expect("text");
                let (prompt, completion) = if with_template {
                    // The template's first token is the one that begins a text, and stays: the tokenizer adds none.
                    let prompt = format!("<|im_start|>user\n{prompt}{END}\n<|im_start|>assistant\n");
                    (prompt, format!("{completion}{END}"))
                } else {
                    (prompt.to_owned(), completion.to_owned())
                };
                let whole = logps(&format!("{prompt}{completion}"));
                let n_tokens = completion.chars().count();
                expected.push((line, whole[whole.len() - n_tokens..].iter().sum(), n_tokens as f64));
            }
        }
    }
    expected.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    expected
}

fn assert_close(found: &[(u64, f64, f64)], expected: &[(u64, f64, f64)]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            found.0 == expected.0 && found.2 == expected.2 && (found.1 - expected.1).abs() < 1e-9,
            "{found:?} {expected:?}"
        );
    }
}

#[test]
fn a_server_s_log_probabilities_are_those_of_the_completions() {
    let world = world();
    for (behaviour, with_template) in
        [(Behaviour::Right, true), (Behaviour::Right, false), (Behaviour::PromptLogprobs, true)]
    {
        let server = FakeServer::start(behaviour);
        let name = format!("{behaviour:?}-{with_template}");
        let info = register(&world, &format!("register-{name}"), &server.url, with_template).expect("registered");
        let run = world.run(&name, spec(&world, &info));
        assert!(matches!(execute(&run), RunEvent::Succeeded { .. }));
        assert_close(&scores(&run, &info), &expected(&world, with_template));
        let log = server.log.lock().expect("held by nobody");
        assert!(log.keys.iter().all(|key| key.as_deref() == Some("Bearer sk-secret")), "its own key, every time");
        for text in
            [std::fs::read(run.dir.events()), std::fs::read(run.dir.stderr()), std::fs::read(&info.location.weights)]
        {
            assert!(!String::from_utf8_lossy(&text.unwrap_or_default()).contains("sk-"), "the key stands nowhere");
        }
    }
}

#[test]
fn what_passes_is_waited_for() {
    let world = world();
    let server = FakeServer::start(Behaviour::Right);
    let info = register(&world, "register", &server.url, true).expect("registered");
    for behaviour in [Behaviour::SlowEvery(9), Behaviour::BusyEvery(7), Behaviour::BreaksEvery(6)] {
        server.become_(behaviour);
        let run = world.run(&format!("{behaviour:?}"), spec(&world, &info));
        let last = execute(&run);
        assert!(matches!(last, RunEvent::Succeeded { .. }), "{behaviour:?}: {last:?}");
        assert_close(&scores(&run, &info), &expected(&world, true));
        let mut log = server.log.lock().expect("held by nobody");
        assert!(log.unlucky.len() > 2, "{:?}", log.unlucky);
        log.unlucky.clear();
    }
}

#[test]
fn a_killed_run_asks_for_nothing_it_has_written_down() {
    let world = world();
    let server = FakeServer::start(Behaviour::Right);
    let info = register(&world, "register", &server.url, true).expect("registered");
    let undisturbed = world.run("undisturbed", spec(&world, &info));
    execute(&undisturbed);
    server.log.lock().expect("held by nobody").answered.clear();
    let run = world.run("run", spec(&world, &info));
    // Of so many answers at least so many are of completions: each prompt of four at once is asked alone first.
    for (n_answers, n_scores) in [(10, 3), (14, 8)] {
        server.hang_after(n_answers);
        run.hit(Moment::Scored(n_scores), Signal::SIGKILL);
    }
    server.become_(Behaviour::Right);
    execute(&run);
    assert_close(&scores(&run, &info), &expected(&world, true));
    assert_eq!(run.outcome(&[]), undisturbed.outcome(&[]));
    // A completion is asked again only if its answer was on the way when the run was killed.
    let log = server.log.lock().expect("held by nobody");
    let n_again: usize = log.answered.iter().filter(|(text, _)| text.ends_with(END)).map(|(_, n)| n - 1).sum();
    assert!(n_again <= 2 * 4, "{n_again} completions were asked again");

    // And the next run, which is told, asks nothing.
    drop(log);
    server.become_(Behaviour::Fails);
    let mut known = Vec::new();
    read_all_scores(&run.dir.scores_out(), |score| known.push(score)).expect("read");
    let told = world.run("told", spec(&world, &info));
    let mut file = mrpo::run_dir::ScoresIn::create(&told.dir).expect("made");
    file.append(&known).and_then(|()| file.finish()).expect("written");
    assert!(matches!(execute(&told), RunEvent::Succeeded { .. }));
}

#[test]
fn a_server_that_does_not_serve_is_refused_in_words_at_registration() {
    let world = world();
    let refused = |name: &str, behaviour: Behaviour| {
        let server = FakeServer::start(behaviour);
        register(&world, name, &server.url, true).expect_err(name)
    };
    for (behaviour, code, why) in [
        (Behaviour::NoEcho, FailureCode::UnsupportedModel, "does not tell the log-probabilities of given text"),
        (Behaviour::Shifted, FailureCode::UnsupportedModel, "it goes on with 'z' and tells the number of '\n'"),
        (Behaviour::Garbled, FailureCode::UnsupportedModel, "when it reads it: its numbers are not those of the text"),
        (Behaviour::Redirects, FailureCode::UnsupportedModel, "sends elsewhere, which is not followed"),
        (
            Behaviour::Fails,
            FailureCode::RemoteUnavailable,
            "answers 503 (too many requests); given up after 4 attempts",
        ),
    ] {
        let failure = refused(&format!("{behaviour:?}"), behaviour);
        assert_eq!(failure.code, code, "{failure}");
        assert!(failure.message.contains(why), "{failure}");
    }
    let failure = register(&world, "down", "http://127.0.0.1:9/v1", true).expect_err("refused");
    assert_eq!(failure.code, FailureCode::RemoteUnavailable);
    assert!(failure.message.contains("cannot be asked"), "{failure}");
    let server = FakeServer::start(Behaviour::Right);
    let base = server.url.clone();
    let other = register(&world, "other", &base, true).expect("registered");
    assert_eq!((other.architecture.as_str(), other.n_parameters), ("remote", 0));
}

#[test]
fn a_server_that_fails_later_ends_the_run_with_what_it_has_given_kept() {
    let world = world();
    let server = FakeServer::start(Behaviour::Right);
    let info = register(&world, "register", &server.url, true).expect("registered");
    let run = world.run("run", spec(&world, &info));
    server.hang_after(12);
    run.hit(Moment::Scored(3), Signal::SIGKILL);
    let n_kept = scores(&run, &info).len();
    server.become_(Behaviour::TooFew);
    let failure = failure(execute(&run));
    assert_eq!(failure.code, FailureCode::UnsupportedModel);
    assert!(failure.message.contains("no more than the prompt alone has (line "), "{failure}");
    server.become_(Behaviour::Fails);
    let down = crate::world::failure(execute(&run));
    assert_eq!(down.code, FailureCode::RemoteUnavailable);
    assert!(scores(&run, &info).len() >= n_kept && n_kept < N_SCORES);
    server.become_(Behaviour::Right);
    assert!(matches!(execute(&run), RunEvent::Succeeded { .. }));
    assert_close(&scores(&run, &info), &expected(&world, true));
}
