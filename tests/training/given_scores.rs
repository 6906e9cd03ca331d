//! References whose scores were made elsewhere: a run with them ends as with the model that made them, or says what is missing.

use mrpo::{
    domain::{
        FailureCode, FileId, Level, Method, ModelInfo, ModelLocation, RegisterSpec, ResolvedReference, RunEvent,
        RunSpec, TokenLevelSettings, TrainSpec, WeightsFormat,
    },
    run_dir::{RunDir, read_all_scores},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::world::{Moment, Run, World, failure};

const N_PAIRS: usize = 6;

fn settings() -> Value {
    json!({"n_epochs": 1, "batch_size": 3, "lora": {"rank": 2}, "learning_rate": 1e-3})
}

/// The world's files under ids, as a server has them, and a run against the model `other`.
fn world_with_ids() -> (World, TrainSpec, FileId) {
    let world = World::new(N_PAIRS, 40);
    let mut spec = world.spec(&settings());
    let [training, validation] =
        [("training.jsonl", FileId::new()), ("validation.jsonl", FileId::new())].map(|(name, id)| {
            std::fs::rename(world.path(name), world.path(id.as_str())).expect("renamed");
            id
        });
    spec.training_file = world.path(training.as_str());
    spec.validation_file = Some(world.path(validation.as_str()));
    (world, spec, validation)
}

/// What `other` said of each pair in a run, as rows of a file of scores; those of held-out pairs name their file.
fn rows(run: &Run, validation: &FileId) -> Vec<Value> {
    let mut scores = Vec::new();
    read_all_scores(&run.dir.scores_out(), |score| scores.push(score)).expect("read");
    let of_other = scores[0].reference.clone();
    scores.retain(|score| score.reference == of_other);
    let rows = scores.chunks(2).enumerate().map(|(i, sides)| {
        let mut row = json!({
            "row": sides[0].line, "chosen": sides[0].logp, "rejected": sides[1].logp,
            "chosen_tokens": sides[0].n_tokens as u64, "rejected_tokens": sides[1].n_tokens as u64,
        });
        if i >= N_PAIRS {
            row["file"] = json!(validation);
        }
        row
    });
    rows.collect()
}

/// `spec` with the reference `other` replaced by a file of scores.
fn with_scores(world: &World, spec: &TrainSpec, rows: &[Value]) -> TrainSpec {
    let weights = world.path(&format!("scores-{}.jsonl", FileId::new()));
    std::fs::write(&weights, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).expect("written");
    let location = ModelLocation { format: WeightsFormat::Scores, weights, adapters: Vec::new() };
    let (digest, _) = mrpo::fetch::digest(&location).expect("digest");
    let mut spec = spec.clone();
    spec.references[1] = ResolvedReference { digest, location, ..spec.references[1].clone() };
    spec
}

#[test]
fn given_scores_train_as_the_model_that_made_them() {
    let (world, spec, validation) = world_with_ids();
    for per_token in [false, true] {
        let mut spec = spec.clone();
        spec.hyperparameters.objective.length_normalized = per_token;
        let first = world.run(&format!("first-{per_token}"), spec.clone());
        first.finish();
        let rows = rows(&first, &validation);
        assert_eq!(rows.len(), N_PAIRS + 3);
        let run = world.run(&format!("given-{per_token}"), with_scores(&world, &spec, &rows));
        run.hit(Moment::Scored(5), Signal::SIGKILL);
        run.finish();
        assert_eq!(run.outcome(&[]), first.outcome(&[]), "to the last bit");
        let said = run.events().into_iter().find_map(|event| match event {
            RunEvent::ReferenceScores { model: Some(model), key, count } if model.as_str() == "other" => {
                Some((key, count))
            }
            _ => None,
        });
        let (key, count) = said.expect("said");
        assert_eq!((key, count.n_known, count.n_computed), (None, 2 * (N_PAIRS as u64 + 3), 0));
    }
}

#[test]
fn a_pair_without_a_score_is_an_error_that_names_its_line() {
    let (world, spec, validation) = world_with_ids();
    let first = world.run("first", spec.clone());
    first.finish();
    let rows = rows(&first, &validation);
    let fails = |name: &str, rows: &[Value]| {
        let failure = failure(world.run(name, with_scores(&world, &spec, rows)).finish());
        assert_eq!(failure.code, FailureCode::InvalidReferenceScore, "{failure}");
        failure.message
    };
    let message = fails("training", &[&rows[..2], &rows[3..]].concat());
    assert!(message.contains("no row of line 3 of the training file: add {\"row\": 3, \"chosen\""), "{message}");
    let message = fails("several", &[&rows[..1], &rows[4..]].concat());
    assert!(message.contains("no row of line 2 of the training file, nor of 2 others:"), "{message}");
    let message = fails("validation", &rows[..=N_PAIRS]);
    assert!(
        message.contains(&format!(
            "line 2 of the validation file, nor of 1 others: add {{\"row\": 2, \"file\": \"{validation}\""
        )),
        "{message}"
    );
}

#[test]
fn scores_that_do_not_fit_the_method_or_the_file_are_said() {
    let (world, spec, validation) = world_with_ids();
    let first = world.run("first", spec.clone());
    first.finish();
    let mut rows = rows(&first, &validation);

    let training = spec.training_file.file_name().and_then(|name| name.to_str()).expect("an id");
    let mut twice = rows.clone();
    twice.push(json!({"row": 2, "file": training, "chosen": -1, "rejected": -1}));
    let message = failure(world.run("twice", with_scores(&world, &spec, &twice)).finish()).message;
    assert!(message.contains("lines 2 and 10 of the scores are both of row 2 of the training file"), "{message}");

    let mut beyond = rows.clone();
    beyond.push(json!({"row": 77, "chosen": -1, "rejected": -1}));
    let run = world.run("beyond", with_scores(&world, &spec, &beyond));
    assert!(matches!(run.finish(), RunEvent::Succeeded { .. }));
    let warned = run.events().into_iter().any(|event| {
        matches!(event, RunEvent::Message { level: Level::Warn, message, .. } if message.contains("after line 6"))
    });
    assert!(warned);

    rows[4].as_object_mut().expect("a row").retain(|name, _| !name.ends_with("_tokens"));
    let mut per_token = with_scores(&world, &spec, &rows);
    assert!(matches!(world.run("sums", per_token.clone()).finish(), RunEvent::Succeeded { .. }));
    per_token.hyperparameters.objective.length_normalized = true;
    let message = failure(world.run("per-token", per_token.clone()).finish()).message;
    assert!(message.contains("line 5 of the scores has none"), "{message}");

    per_token.references.swap(0, 1);
    let message = failure(world.run("base", per_token).finish()).message;
    assert!(message.contains("other: it has no weights"), "{message}");

    let spans = |line: &str| {
        let mut row: Value = serde_json::from_str(line).expect("a pair");
        row["chosen_spans"] = json!([[0, 1]]);
        format!("{row}\n")
    };
    let mut token_level = with_scores(&world, &spec, &rows);
    token_level.method = Method::TokenLevel(TokenLevelSettings { outside_weight: 0.0 });
    token_level.validation_file = None;
    let text = std::fs::read_to_string(&token_level.training_file).expect("read");
    std::fs::write(&token_level.training_file, text.lines().map(spans).collect::<String>()).expect("written");
    let message = failure(world.run("token-level", token_level).finish()).message;
    assert!(message.contains("token_level weighs single tokens"), "{message}");
}

fn register(world: &World, name: &str, text: Option<&str>) -> Result<ModelInfo, String> {
    let id = FileId::new();
    if let Some(text) = text {
        std::fs::write(world.path(id.as_str()), text).expect("written");
    }
    let run = Run { dir: RunDir::new(world.path(name)) };
    let spec = RegisterSpec {
        model: "teacher".parse().expect("legal"),
        source: format!("scores:{id}").parse().expect("a source"),
        store_dir: world.path("models"),
        files_dir: world.path(""),
        tokenizer: None,
    };
    run.dir.create(&RunSpec::Register(Box::new(spec))).expect("written");
    match run.finish() {
        RunEvent::Failed { failure } => Err(failure.message),
        _ => run
            .events()
            .into_iter()
            .find_map(|event| if let RunEvent::Registered { model } = event { Some(model) } else { None })
            .ok_or_else(|| "it says nothing".to_owned()),
    }
}

#[test]
fn a_file_of_scores_is_registered_as_a_copy() {
    let world = World::new(1, 10);
    let row = r#"{"row": 1, "chosen": -1, "rejected": -2}"#;
    let model = register(&world, "good", Some(row)).expect("registered");
    assert_eq!((model.location.format, model.scores.map(|s| s.n_of_training_file)), (WeightsFormat::Scores, Some(1)));
    assert_eq!(std::fs::read_to_string(&model.location.weights).expect("a copy"), row);
    assert!(model.location.weights.starts_with(world.path("models").canonicalize().expect("a path")));
    let message = register(&world, "bad", Some(&format!("{row}\n{row}\n"))).expect_err("refused");
    assert!(message.contains("line 2: row 1 stands on line 1 already"), "{message}");
    let message = register(&world, "gone", None).expect_err("refused");
    assert!(message.contains("upload it again"), "{message}");
}
