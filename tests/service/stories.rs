//! What users do with the service, from the first upload to the last download.

use std::{collections::BTreeSet, io::Read};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    server::{Server, text},
    tiny,
};

fn method(kind: &str, hyperparameters: &Value) -> Value {
    let mut section = json!({"hyperparameters": {"batch_size": 4, "lora": {"rank": 2}}});
    for (key, value) in hyperparameters.as_object().expect("an object") {
        section["hyperparameters"][key] = value.clone();
    }
    json!({"type": kind, kind: section})
}

/// Steps of a job that is long enough for something to happen in its middle.
pub(crate) const N_LONG: u64 = 200;

/// A job of one step per pass.
pub(crate) fn long_job(server: &Server) -> String {
    let [training, _] = server.with_model_and_files(8, 60);
    let settings = json!({"n_epochs": N_LONG, "batch_size": 8, "checkpoint_every_n_steps": 20});
    server.job(&json!({"model": "tiny", "training_file": training, "method": method("dpo", &settings)}))
}

/// Everything is told once: a step's metrics, an event, a checkpoint.
pub(crate) fn nothing_is_lost_or_doubled(server: &Server, job: &str, n_steps: u64) {
    let metrics = server.get(&format!("{job}/metrics?limit=1000")).ok();
    let steps: Vec<_> = metrics["data"].as_array().expect("a list").iter().map(|m| m["step"].as_u64()).collect();
    assert_eq!(steps, (1..=n_steps).map(Some).collect::<Vec<_>>());
    let events = server.all(&format!("{job}/events"));
    let ids: BTreeSet<_> = events.iter().map(|e| text(&e["id"])).collect();
    assert_eq!(ids.len(), events.len());
    let told: Vec<_> = events.iter().filter_map(|e| e["data"].get("loss").and(e["data"]["step"].as_u64())).collect();
    assert_eq!(told, (1..=n_steps).rev().collect::<Vec<_>>(), "newest first");
    let checkpoints = server.all(&format!("{job}/checkpoints"));
    let steps: BTreeSet<_> = checkpoints.iter().map(|c| c["step_number"].as_u64()).collect();
    assert_eq!(steps.len(), checkpoints.len());
    assert!(steps.contains(&Some(n_steps)));
}

#[test]
fn a_model_is_tuned_against_itself_and_what_it_became() {
    let server = Server::start();
    let [training, validation] = server.with_model_and_files(12, 40);
    let body = |model: &str, method: Value| json!({"model": model, "training_file": training, "validation_file": validation, "seed": 3, "method": method});
    let dpo = server.job(&body("tiny", method("dpo", &json!({}))));
    let tuned = server.job_becomes(&dpo, "succeeded")["fine_tuned_model"].clone();

    let mut mrpo = method("mrpo", &json!({"checkpoint_every_n_steps": 2}));
    mrpo["mrpo"]["references"] = json!([{"model": "tiny"}, {"model": tuned}]);
    let mrpo = server.job(&body("tiny", mrpo));
    let done = server.job_becomes(&mrpo, "succeeded");
    for moment in ["before", "after"] {
        let metrics = &done["evaluation"][moment]["metrics"];
        assert!(metrics["loss"].is_f64(), "{done}");
        let named = |part: &str| metrics.as_object().expect("metrics").keys().any(|k| k.starts_with(part));
        assert!(named("refs/tiny/") && named(&format!("refs/{}/", text(&tuned))), "{metrics}");
    }
    nothing_is_lost_or_doubled(&server, &mrpo, 3);
    let csv = String::from_utf8(server.get(&format!("{mrpo}/metrics?format=csv")).body).expect("text");
    assert!(csv.starts_with("step,") && csv.lines().count() == 4, "{csv}");
    checkpoints_can_be_fetched(&server, &mrpo);

    let third = server.job(&body(text(&done["fine_tuned_model"]), method("dpo", &json!({}))));
    let third = server.job_becomes(&third, "succeeded");
    let model = server.get(&format!("/v1/models/{}", text(&third["fine_tuned_model"]))).ok();
    assert_eq!((&model["base"], &model["status"]), (&done["fine_tuned_model"], &json!("ready")));
}

#[test]
fn scores_made_elsewhere_are_a_reference() {
    let server = Server::start();
    let [training, validation] = server.with_model_and_files(6, 40);
    let row =
        |file: Option<&str>, n: u64| json!({"row": n, "file": file, "chosen": -20.5, "rejected": -30.0 - n as f64});
    let rows = (1..7).map(|n| row(None, n)).chain((1..4).map(|n| row(Some(&validation), n)));
    let scores = server.upload_for("reference-scores", &rows.map(|row| format!("{row}\n")).collect::<String>());
    assert_eq!(scores["status"], "processed", "{scores}");
    let teacher = server.register_from("teacher", &format!("scores:{}", text(&scores["id"])));
    assert_eq!((&teacher["status"], &teacher["scores"]["n_of_training_file"]), (&json!("ready"), &json!(6)));
    let mut method = method("mrpo", &json!({}));
    method["mrpo"]["references"] = json!([{"model": "teacher"}]);
    let body = json!({"model": "tiny", "training_file": training, "validation_file": validation, "method": method});
    let job = server.job(&body);
    let done = server.job_becomes(&job, "succeeded");
    let cost = &done["reference_scores"];
    assert_eq!((&cost["n_known"], &cost["n_computed"]), (&json!(18), &json!(18)), "{cost}");
    let before = &done["evaluation"]["before"]["metrics"];
    assert_eq!((&before["refs/teacher/logps/chosen"], &before["refs/teacher/accuracy"]), (&json!(-20.5), &json!(1.0)));
    let kept = server.get("/v1/reference_scores").ok();
    assert_eq!(kept["data"].as_array().map(Vec::len), Some(1), "the base's only: {kept}");
}

/// The training metrics of a job without the clock, and what it says of its references' scores: known, computed.
fn metrics_and_scores(server: &Server, job: &str) -> (Value, Vec<(u64, u64)>) {
    let mut metrics = server.get(&format!("{job}/metrics?limit=1000")).ok()["data"].clone();
    for point in metrics.as_array_mut().expect("a list") {
        for values in ["metrics", "values"] {
            if let Some(values) = point[values].as_object_mut() {
                values.remove("step_duration_ms");
            }
        }
    }
    let events = server.all(&format!("{job}/events"));
    let scores = events.iter().rev().filter_map(|event| event["data"].get("reference_scores"));
    let count = |scores: &Value, name: &str| scores[name].as_u64().expect("a count");
    (metrics, scores.map(|s| (count(s, "n_known"), count(s, "n_computed"))).collect())
}

#[test]
fn a_second_job_on_the_same_data_scores_nothing() {
    let server = Server::start();
    let [training, validation] = server.with_model_and_files(12, 40);
    let body = |training: &str| json!({"model": "tiny", "training_file": training, "validation_file": validation, "seed": 3, "method": method("dpo", &json!({}))});
    let [first, second] = [0, 1].map(|_| {
        let job = server.job(&body(&training));
        server.job_becomes(&job, "succeeded");
        metrics_and_scores(&server, &job)
    });
    assert_eq!(first.0.as_array().map(Vec::len), Some(3));
    assert_eq!(first.0.to_string(), second.0.to_string(), "to the last bit");
    // Of the base, and of all references; two completions of 12 and 3 pairs.
    assert_eq!((first.1, second.1), (vec![(0, 30); 2], vec![(30, 0); 2]));

    let kept = server.get("/v1/reference_scores?model=tiny").ok()["data"][0].clone();
    assert_eq!((&kept["n_scores"], &kept["n_hits"], &kept["models"]), (&json!(30), &json!(30), &json!(["tiny"])));
    assert_eq!((&kept["precision"], &kept["datasets"][0]["n_rows"]), (&json!("float32"), &json!(30)));
    assert_eq!(kept["datasets"][0]["files"][0]["id"], training);

    // The file grows by four pairs: only these are scored, and the next time not even these.
    let grown = server.upload(&(tiny::pairs(12, 0, 40) + &tiny::pairs(4, 100, 40)));
    for computed in [8, 0] {
        let job = server.job(&body(text(&grown["id"])));
        server.job_becomes(&job, "succeeded");
        assert_eq!(metrics_and_scores(&server, &job).1, vec![(38 - computed, computed); 2]);
    }
}

fn checkpoints_can_be_fetched(server: &Server, job: &str) {
    let checkpoints = server.all(&format!("{job}/checkpoints"));
    assert_eq!(checkpoints.len(), 2);
    let checkpoint = format!("{job}/checkpoints/{}", text(&checkpoints[0]["id"]));
    let files = server.get(&format!("{checkpoint}/files")).ok();
    let files = files["data"].as_array().expect("a list");
    let mut names = BTreeSet::new();
    for file in files {
        let path = format!("{checkpoint}/files/{}", text(&file["name"]));
        let whole = server.get(&path).body;
        let digest: String = Sha256::digest(&whole).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!((digest.as_str(), Some(whole.len() as u64)), (text(&file["sha256"]), file["bytes"].as_u64()));
        let part = server.get_range(&path, "bytes=3-9");
        assert_eq!((part.status, part.body.as_slice()), (206, &whole[3..10]));
        names.insert(text(&file["name"]));
    }
    assert!(names.contains("adapter_model.safetensors") && names.contains("adapter_config.json"), "{names:?}");
    let archive = server.get(&format!("{checkpoint}/archive")).body;
    let mut n_files = 0;
    for entry in tar::Archive::new(archive.as_slice()).entries().expect("an archive") {
        let mut content = Vec::new();
        entry.expect("entry").read_to_end(&mut content).expect("content");
        assert!(!content.is_empty());
        n_files += 1;
    }
    assert_eq!(n_files, files.len() + 1, "and the manifest");
}

#[test]
fn a_job_is_paused_resumed_and_done_and_another_is_cancelled() {
    let server = Server::start();
    let job = long_job(&server);
    server.job_steps(&job);
    server.post(&format!("{job}/pause"), &json!({})).ok();
    let paused = server.job_becomes(&job, "paused");
    assert!(paused["progress"]["n_steps_done"].as_u64() < Some(N_LONG), "{paused}");
    server.post(&format!("{job}/resume"), &json!({})).ok();
    let done = server.job_becomes(&job, "succeeded");
    assert_eq!(done["n_attempts"], 2);
    nothing_is_lost_or_doubled(&server, &job, N_LONG);

    let settings = json!({"n_epochs": 1000});
    let training = &done["training_file"];
    let endless = json!({"model": "tiny", "training_file": training, "method": method("dpo", &settings)});
    let endless = server.job(&endless);
    server.job_steps(&endless);
    server.post(&format!("{endless}/cancel"), &json!({})).ok();
    let cancelled = server.job_becomes(&endless, "cancelled");
    assert_eq!(cancelled["fine_tuned_model"], Value::Null);
}

#[test]
fn a_server_that_is_killed_in_the_middle_of_a_job_goes_on_with_it() {
    let mut server = Server::start();
    let job = long_job(&server);
    server.job_steps(&job);
    server.kill_and_start_again();
    let done = server.job_becomes(&job, "succeeded");
    assert_eq!(done["n_attempts"], 1, "its process outlives the server");
    nothing_is_lost_or_doubled(&server, &job, N_LONG);
}

#[test]
fn a_machine_that_lost_its_power_in_the_middle_of_a_job_goes_on_from_the_checkpoint() {
    let mut server = Server::start();
    let job = long_job(&server);
    server.job_steps(&job);
    server.kill_run(&server.get(&job).ok());
    server.kill_and_start_again();
    let done = server.job_becomes(&job, "succeeded");
    assert_eq!(done["n_attempts"], 2);
    nothing_is_lost_or_doubled(&server, &job, N_LONG);
}
