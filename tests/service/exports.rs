//! A tuned model as other programs get it: asked for, written by a real run, downloaded, read again.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

use mrpo::{
    domain::{Dtype, ModelLocation, WeightsFormat},
    model::{Decoder, Purpose, Tuning, Weights, layout::Packed},
    text::Codec,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::server::{Server, text, wait_until};

/// Log-probabilities of some tokens.
fn logps(location: &ModelLocation) -> Vec<f32> {
    let mut batch = Packed::default();
    batch.push(&[1, 70, 80, 90], &[&[100, 110, 120, 2], &[130, 140, 2]]);
    let weights = Weights::load(location, Dtype::Float32).expect("read");
    let (decoder, parameters) = Decoder::new(weights, &Tuning::Frozen, Dtype::Float32).expect("built");
    decoder.forward(&batch, &parameters, Purpose::Score).expect("computed").token_logps
}

fn location(format: WeightsFormat, weights: PathBuf) -> ModelLocation {
    ModelLocation { format, weights, adapters: Vec::new() }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Asks for an export. Returns its address.
fn ask(server: &Server, model: &str, body: &Value) -> String {
    format!("/v1/exports/{}", text(&server.post(&format!("/v1/models/{model}/exports"), body).ok()["id"]))
}

fn done(server: &Server, export: &str, status: &str) -> Value {
    let found = server.until(export, |export| export["status"] != "pending");
    assert_eq!(found["status"], status, "{found}");
    found
}

fn unpack(archive: &[u8], into: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in tar::Archive::new(archive).entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let path = into.join(entry.path().expect("a path"));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("read");
        std::fs::write(&path, content).expect("written");
        names.push(path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned());
    }
    names
}

/// The directories of runs that are exports.
fn export_runs(server: &Server) -> Vec<PathBuf> {
    let runs = std::fs::read_dir(server.path("data/runs")).expect("there").map(|entry| entry.expect("entry").path());
    let is_export = |run: &PathBuf| {
        std::fs::read_to_string(run.join("spec.json")).is_ok_and(|spec| spec.contains(r#""kind": "export""#))
    };
    runs.filter(is_export).collect()
}

#[test]
fn a_tuned_model_is_downloaded_in_both_formats_and_scores_the_same() {
    let server = Server::start();
    let [training, _] = server.with_model_and_files(8, 30);
    let method = json!({"type": "dpo", "dpo": {"hyperparameters":
        {"batch_size": 4, "learning_rate": 0.05, "lora": {"rank": 2}, "checkpoint_every_n_steps": 1}}});
    let job = server.job(&json!({"model": "tiny", "training_file": training, "method": method}));
    let job = server.job_becomes(&job, "succeeded");
    let tuned = text(&job["fine_tuned_model"]);
    let checkpoints = server.path("data/runs").join(text(&job["run_id"])).join("checkpoints");
    let adapter = |step: u64| ModelLocation {
        adapters: vec![checkpoints.join(format!("step-{step:06}"))],
        ..location(WeightsFormat::Huggingface, server.path("tiny"))
    };
    let expected = logps(&adapter(2));
    assert_ne!(expected, logps(&adapter(1)));

    let directory = ask(&server, tuned, &json!({"format": "huggingface"}));
    let file = ask(&server, tuned, &json!({"format": "gguf", "dtype": "float32"}));
    let of_checkpoint = ask(&server, &format!("{tuned}:ckpt-step-1"), &json!({"format": "gguf", "dtype": "float32"}));
    let small = ask(&server, "tiny", &json!({"format": "gguf", "dtype": "q8_0"}));

    let shown = done(&server, &directory, "ready");
    assert_eq!(shown["progress"]["n_weights_done"], shown["progress"]["n_weights"]);
    let out = server.path("out");
    let names = unpack(&server.get(&format!("{directory}/content")).body, &out);
    for (file, name) in shown["files"].as_array().expect("files").iter().zip(&names) {
        let whole = server.get(&format!("{directory}/files/{name}")).body;
        assert_eq!((text(&file["name"]), text(&file["sha256"])), (name.as_str(), sha256(&whole).as_str()));
        let part = server.get_range(&format!("{directory}/files/{name}"), "bytes=3-9");
        assert_eq!((part.status, part.body.as_slice()), (206, &whole[3..10]));
    }
    assert!(names.iter().any(|name| name == "tokenizer.json") && names.iter().any(|name| name == "config.json"));
    let folder = std::fs::read_dir(&out).expect("there").next().expect("a folder").expect("entry").path();
    let again = location(WeightsFormat::Huggingface, folder);
    assert_eq!(logps(&again), expected);

    let written = |export: &str, name: &str| {
        let shown = done(&server, export, "ready");
        let content = server.get(&format!("{export}/content")).body;
        assert_eq!(
            (text(&shown["sha256"]), shown["size_bytes"].as_u64()),
            (sha256(&content).as_str(), Some(content.len() as u64))
        );
        std::fs::write(server.path(name), &content).expect("written");
        location(WeightsFormat::Gguf, server.path(name))
    };
    let gguf = written(&file, "tuned.gguf");
    assert_eq!(logps(&gguf), expected);
    assert_eq!(Codec::load(&gguf).expect("read").eos_ids(), Codec::load(&again).expect("read").eos_ids());
    assert_eq!(logps(&written(&of_checkpoint, "step-1.gguf")), logps(&adapter(1)));
    written(&small, "small.gguf");

    // Whoever asks again gets what stands, and a model that goes takes it along.
    assert_eq!(ask(&server, tuned, &json!({"format": "huggingface", "dtype": "float32"})), directory);
    assert_eq!(export_runs(&server).len(), 4);
    server.delete(&format!("/v1/models/{tuned}")).ok();
    wait_until("the files have gone", || export_runs(&server).len() == 2);
    server.get(&directory).error(404, "export_not_found");
    server.delete(&small).ok();
    wait_until("the files have gone", || export_runs(&server).len() == 1);
}

#[test]
fn a_killed_export_is_taken_up_again_and_what_has_changed_is_no_longer_the_model() {
    let mut server = Server::start();
    server.with_model_and_files(1, 10);
    // A run that reads this file waits for whoever writes to it: it can be killed in its middle.
    let (config, aside) = (server.path("tiny/generation_config.json"), server.path("aside.json"));
    let block = || {
        std::fs::rename(&config, &aside).expect("moved");
        assert!(Command::new("mkfifo").arg(&config).status().expect("run").success());
    };
    block();
    let export = ask(&server, "tiny", &json!({"format": "huggingface"}));
    let pid = || -> Option<i32> {
        std::fs::read_to_string(export_runs(&server).first()?.join("run.lock")).ok()?.parse().ok()
    };
    wait_until("the run has begun", || pid().is_some());
    server.get(&format!("{export}/content")).error(409, "not_ready");
    server.delete("/v1/models/tiny").error(409, "in_use");
    let pid = pid().expect("it has begun");
    std::fs::rename(&aside, &config).expect("moved back");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
    server.kill_and_start_again();
    done(&server, &export, "ready");
    assert_eq!(export_runs(&server).len(), 1);

    std::fs::write(server.path("tiny/chat_template.jinja"), "{{ 'another' }}").expect("written");
    let changed = done(&server, &ask(&server, "tiny", &json!({"format": "gguf"})), "error");
    assert_eq!(changed["error"]["code"], "invalid_model");
    assert!(text(&changed["error"]["message"]).contains("changed since it was registered"), "{changed}");
}
