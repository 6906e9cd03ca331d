//! What a job would take and what its references are, beside what it then took and what its run says of them.

use mrpo::{
    dataset::read_pairs,
    domain::{ModelLocation, WeightsFormat},
    text::{Codec, EncodedPair},
};
use serde_json::{Value, json};

use crate::{
    gpt2,
    server::{Server, text},
    tiny,
};

const N_PAIRS: usize = 12;

/// A server with the model `tiny`, one of another family (whose number of weights is told), and two files.
fn world() -> (Server, u64, [String; 2]) {
    let server = Server::start();
    let files = server.with_model_and_files(N_PAIRS, 40);
    let directory = server.path("other");
    let n_weights = gpt2::write(&directory, 50);
    let other = server.register("other", &directory);
    assert_eq!(other["status"], "ready", "{other}");
    (server, n_weights, files)
}

fn body([training, validation]: &[String; 2], settings: Value) -> Value {
    let mut hyperparameters = json!({"n_epochs": 2, "batch_size": 5, "lora": {"rank": 2}});
    for (key, value) in settings.as_object().expect("an object") {
        hyperparameters[key] = value.clone();
    }
    json!({"model": "tiny", "training_file": training, "validation_file": validation, "seed": 3,
        "method": {"type": "mrpo", "mrpo": {"references": [{"model": "other"}], "hyperparameters": hyperparameters}}})
}

fn dry_run(server: &Server, mut body: Value) -> Value {
    body["dry_run"] = json!(true);
    let answer = server.post("/v1/fine_tuning/jobs", &body).ok();
    assert_eq!(answer["object"], "fine_tuning.job.dry_run");
    answer
}

fn codes(answer: &Value) -> Vec<&str> {
    answer["warnings"].as_array().expect("a list").iter().map(|warning| text(&warning["code"])).collect()
}

fn close(found: &Value, expected: &Value) {
    let [a, b] = [found, expected].map(|x| x.as_f64().unwrap_or_else(|| panic!("{found} for {expected}")));
    assert!((a - b).abs() <= 1e-9 * b.abs().max(1.0), "{a} for {b}");
}

#[test]
fn a_dry_run_tells_what_the_job_then_takes_and_says() {
    let (server, n_weights, files) = world();
    let n_runs = server.n_runs();
    let told = dry_run(&server, body(&files, json!({})));
    // Nothing stays.
    assert_eq!(server.get("/v1/fine_tuning/jobs").ok()["data"], json!([]));
    assert_eq!(server.get("/v1/reference_scores").ok()["data"], json!([]));
    server.runs_become(n_runs);
    assert_eq!(server.n_questions(), 0);

    let [base, other] = [&told["references"][0], &told["references"][1]];
    assert_eq!((&base["role"], &other["role"], &other["number"]), (&json!("base"), &json!("reference"), &json!(1)));
    assert_eq!((&other["n_parameters"], &other["architecture"]), (&json!(n_weights), &json!("GPT2LMHeadModel")));
    assert_eq!(
        (&base["text"]["has_same_tokenizer"], &other["text"]["has_same_tokenizer"]),
        (&json!(true), &json!(false))
    );
    assert_eq!((&other["text"]["other_count_share"], &other["licence"]), (&json!(1.0), &Value::Null));
    let codes = codes(&told);
    for code in ["no_template", "licence_unknown", "uneven_batches"] {
        assert!(codes.contains(&code), "{code}: {codes:?}");
    }
    assert!(!codes.contains(&"would_fail") && !codes.contains(&"no_bos"), "{codes:?}");

    // The job itself: as many pairs as the sample has, so its own numbers at the start are those of the sample.
    let job = server.job(&body(&files, json!({})));
    let done = server.job_becomes(&job, "succeeded");
    let events = server.all(&format!("{job}/events"));
    let start = events.iter().find_map(|event| event["data"].get("at_start")).expect("told at the start");
    for reference in [base, other] {
        let sample = &reference["sample"];
        assert_eq!(sample["n_pairs"], N_PAIRS);
        for name in ["accuracy", "margin", "weight_mean", "clip_fraction"] {
            close(&sample[name], &start[&format!("refs/{}/{name}", text(&reference["model"]))]);
        }
        assert_eq!(reference["kept_scores"], json!({"n_needed": 2 * (N_PAIRS + 3), "n_kept": 0}));
    }
    assert_eq!(told["time"]["n_steps"], done["progress"]["n_steps"]);
    assert_eq!(told["time"]["n_tokens"], done["trained_tokens"]);
    assert!(told["time"]["total_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{told}");
    let checkpoints = server.all(&format!("{job}/checkpoints"));
    assert_eq!(told["disk"]["n_checkpoints"], checkpoints.len());
    let files_of = server.get(&format!("{job}/checkpoints/{}/files", text(&checkpoints[0]["id"]))).ok();
    let bytes = files_of["data"].as_array().expect("a list").iter().map(|file| {
        // The moments go a moment after the job's end: they are the weights twice more.
        let factor = match text(&file["name"]) {
            "adapter_model.safetensors" => 3.0,
            "optimizer.safetensors" => 0.0,
            _ => 1.0,
        };
        factor * file["bytes"].as_f64().expect("a size")
    });
    let (bytes, expected) = (bytes.sum::<f64>(), told["disk"]["checkpoint_bytes"].as_f64().expect("a size"));
    assert!((0.5..2.0).contains(&(expected / bytes)), "{expected} for {bytes}");

    // What the job has scored is kept, and the next one would compute nothing.
    let again = dry_run(&server, body(&files, json!({})));
    for reference in again["references"].as_array().expect("a list") {
        assert_eq!(reference["kept_scores"]["n_kept"], reference["kept_scores"]["n_needed"]);
    }
    assert_eq!(again["time"]["scoring"], json!([]));
    let said = |answer: &Value| (answer["references"][1]["sample"]["margin"].clone(), answer["dataset"].clone());
    assert_eq!(said(&again), said(&told), "to the last bit");
}

/// The pairs of a file in a model's tokens.
fn encoded(server: &Server, model: &str, file: &str) -> Vec<EncodedPair> {
    let location =
        ModelLocation { format: WeightsFormat::Huggingface, weights: server.path(model), adapters: Vec::new() };
    let codec = Codec::load(&location).expect("a codec");
    let pairs = read_pairs(&server.path("data/files").join(file), None).expect("pairs");
    pairs.iter().map(|pair| codec.encode_pair(pair).expect("encoded")).collect()
}

#[test]
fn what_is_too_long_is_counted_before_the_job_trips_over_it() {
    let (server, _, files) = world();
    let whole = encoded(&server, "tiny", &files[0]);
    let mut lengths: Vec<usize> = whole.iter().map(EncodedPair::n_longest).collect();
    lengths.sort_unstable();
    let max_length = lengths[N_PAIRS / 2] - 1;
    let n_longer = lengths.iter().filter(|n| **n > max_length).count();
    let settings = |truncation: &str| json!({"max_length": max_length, "truncation": truncation});

    let cut = dry_run(&server, body(&files, settings("truncate_prompt_left")));
    let training = &cut["dataset"]["training"];
    assert_eq!((&training["n_prompts_cut"], &training["n_dropped"]), (&json!(n_longer), &json!(0)));
    let of_base = &training["lengths"][0];
    assert_eq!(
        (&of_base["min"], &of_base["median"], &of_base["max"]),
        (&json!(lengths[0]), &json!(lengths[N_PAIRS / 2 - 1]), &json!(lengths[N_PAIRS - 1]))
    );
    let bins = of_base["histogram"].as_array().expect("a list").iter();
    assert_eq!(bins.map(|bin| bin["n"].as_u64().expect("a count")).sum::<u64>(), N_PAIRS as u64);
    let longest_of_other = encoded(&server, "other", &files[0]).iter().map(EncodedPair::n_longest).max();
    assert_eq!(training["lengths"][1]["max"], json!(longest_of_other));
    assert!(codes(&cut).contains(&"many_truncated"), "{cut}");

    let dropped = dry_run(&server, body(&files, settings("drop")));
    let (training, time) = (&dropped["dataset"]["training"], &dropped["time"]);
    assert_eq!((&training["n_dropped"], &time["n_pairs"]), (&json!(n_longer), &json!(N_PAIRS - n_longer)));

    let refused = dry_run(&server, body(&files, settings("error")));
    assert_eq!(refused["dataset"]["training"]["n_refused"], n_longer);
    assert!(codes(&refused).contains(&"would_fail"), "{refused}");
    let nothing_left = dry_run(&server, body(&files, json!({"max_length": 5})));
    assert!(text(&nothing_left["references"][0]["no_sample"]).contains("no training pair is left"), "{nothing_left}");
}

#[test]
fn what_makes_no_sense_is_warned_of() {
    let (server, _, files) = world();
    // The base under another name, trained and validated on the same pairs, in batches that are never full.
    server.register("twin", &server.path("tiny"));
    let mut same = body(&[files[0].clone(), files[0].clone()], json!({"batch_size": 64, "loss": "ipo"}));
    same["method"]["mrpo"]["references"] = json!([{"model": "twin"}]);
    let told = dry_run(&server, same);
    assert_eq!(told["dataset"]["n_overlapping"], N_PAIRS);
    let codes = codes(&told);
    for code in ["validation_overlaps", "fewer_pairs_than_batch", "same_as_base"] {
        assert!(codes.contains(&code), "{code}: {codes:?}");
    }
    let [base, twin] = [&told["references"][0]["sample"], &told["references"][1]["sample"]];
    assert_eq!((&twin["margin"], &twin["scale"]), (&base["margin"], &json!(1.0)));

    // Scores that do not cover the pairs.
    let scores = server.upload_for("reference-scores", "{\"row\": 1, \"chosen\": -20.5, \"rejected\": -30.0}\n");
    let teacher = server.register_from("teacher", &format!("scores:{}", text(&scores["id"])));
    assert_eq!(teacher["status"], "ready", "{teacher}");
    let mut short = body(&files, json!({}));
    short["method"]["mrpo"]["references"] = json!([{"model": "teacher"}]);
    let told = dry_run(&server, short);
    let teacher = &told["references"][1];
    assert_eq!(
        (&teacher["n_parameters"], &teacher["text"], &teacher["sample"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let warnings = told["warnings"].as_array().expect("a list");
    let failing = warnings.iter().find(|warning| warning["code"] == "would_fail").expect("it would fail");
    assert_eq!(failing["model"], "teacher");
    assert!(text(&failing["message"]).contains("line 2"), "{failing}");
}

#[test]
fn a_template_that_refuses_a_pair_ends_the_dry_run_as_it_would_the_job() {
    let server = Server::start();
    let files = server.with_model_and_files(4, 20);
    let directory = server.path("picky");
    tiny::write_model(&directory, 2);
    let picky = "{% if messages|length == 1 %}{{ raise_exception('no single turns here') }}{% endif %}";
    std::fs::write(directory.join("chat_template.jinja"), picky).expect("written");
    server.register("picky", &directory);
    let mut body = body(&files, json!({}));
    body["model"] = json!("picky");
    body["method"] = json!({"type": "dpo"});
    body["dry_run"] = json!(true);
    let n_runs = server.n_runs();
    let refused = server.post("/v1/fine_tuning/jobs", &body).error(422, "inspection_failed");
    let message = text(&refused["error"]["message"]);
    assert!(message.contains("line 1") && message.contains("no single turns here"), "{message}");
    server.runs_become(n_runs);
}
