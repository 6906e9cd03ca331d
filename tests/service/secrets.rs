//! What must not be found anywhere: keys, and the texts of training data in what the server and its runs print.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;

use crate::server::{Server, text};

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn holds(path: &Path, needle: &str) -> bool {
    fs::read(path).expect("read").windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[test]
fn keys_are_nowhere_and_texts_in_no_log() {
    let mut server = Server::start_with_log("trace");
    let [training, _] = server.with_model_and_files(8, 30);
    let marker = "an unmistakable sentence";
    let marked = server.upload(&json!({"prompt": marker, "chosen": "yes", "rejected": "no"}).to_string());
    server.upload(&format!("{{\"prompt\": \"{marker}\", \"chosen\""));
    let dpo = json!({"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 1}}});
    let mut body = json!({"model": "tiny", "training_file": training, "validation_file": marked["id"], "method": dpo});
    let job = server.job(&body);
    server.job_becomes(&job, "succeeded");

    let made = Command::new(env!("CARGO_BIN_EXE_mrpo"))
        .args(["keys", "create", "--user", "ana", "--role", "admin", "--data-dir"])
        .arg(server.path("data"))
        .stderr(Stdio::null())
        .output()
        .expect("run");
    let printed = String::from_utf8(made.stdout).expect("text");
    let key = printed.split_whitespace().find(|word| word.starts_with("mrpo_")).expect("a key").to_owned();
    server.get("/v1/me").error(401, "unauthenticated");
    server.use_key(&key);
    server.get("/v1/me").ok();
    // Where it does not belong: in the address, in a body, as the name of something.
    server.get(&format!("/v1/files?token={key}"));
    server.get(&format!("/v1/files/{key}"));
    server.get(&format!("/{key}"));
    body["metadata"] = json!({"note": 1});
    body["suffix"] = json!(key);
    server.post("/v1/fine_tuning/jobs", &body);
    let second = text(&server.post("/v1/api_keys", &json!({"user": "bo"})).ok()["key"]).to_owned();
    server.kill();

    let log = server.path("log");
    assert!(fs::metadata(&log).expect("a log").len() > 10_000, "the log says little");
    for path in files(&server.path("data")).iter().chain([&log]) {
        for secret in [&key, &second] {
            assert!(!holds(path, secret), "a key stands in {}", path.display());
        }
        let is_log = path == &log || path.file_name().is_some_and(|name| name == "stderr.log");
        assert!(!is_log || !holds(path, marker), "a text of the data stands in {}", path.display());
    }
}
