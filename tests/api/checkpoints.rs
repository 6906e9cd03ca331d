//! `/v1/fine_tuning/jobs/{job_id}/checkpoints`, their files and archives.

use std::io::Read;

use mrpo::{
    domain::{CheckpointId, HashedFile, RunId},
    run_dir::{CheckpointManifest, RunDir},
};
use serde_json::json;

use crate::support::{Server, ids, sha256};

const WEIGHTS: &[u8] = b"0123456789abcdef";

/// A job with one checkpoint, as a run and the worker would have left it: its address.
fn checkpoint(server: &Server) -> String {
    let (job, run, id) = (server.add_job(), RunId::new(), CheckpointId::new());
    let directory = RunDir::new(server.data_dir().join("runs").join(run.as_str())).checkpoints().join("step-000010");
    std::fs::create_dir_all(&directory).expect("directory");
    std::fs::write(directory.join("adapter_model.safetensors"), WEIGHTS).expect("write");
    std::fs::write(directory.join("secret.txt"), "not in the manifest").expect("write");
    let file = HashedFile {
        name: "adapter_model.safetensors".into(),
        size_bytes: WEIGHTS.len() as u64,
        sha256: sha256(WEIGHTS),
    };
    let manifest = CheckpointManifest { step: 10, files: vec![file] };
    let manifest = serde_json::to_vec(&manifest).expect("serialises");
    std::fs::write(directory.join(RunDir::MANIFEST), manifest).expect("write");
    server.execute("insert into runs (run_id, job_id) values (?, ?)", &[run.as_str(), &job]);
    server.execute(
        "insert into checkpoints (id, job_id, step, directory, model_id, metrics, size_bytes, created_at)
         values (?, ?, 10, 'step-000010', 'ft:smol::x:ckpt-step-10', ?, 16, 1700000000)",
        &[id.as_str(), &job, r#"{"loss":0.5,"eval_loss":0.6,"eval_rewards/margins":1.5}"#],
    );
    format!("/v1/fine_tuning/jobs/{job}/checkpoints/{id}")
}

#[test]
fn a_checkpoint_is_listed_with_openai_s_metrics_and_ours() {
    let server = Server::start();
    let path = checkpoint(&server);
    let (list, id) = path.rsplit_once('/').expect("a path");
    let all = server.get(list).ok();
    let found = &all["data"][0];
    assert_eq!((&found["object"], &found["id"]), (&json!("fine_tuning.job.checkpoint"), &json!(id)));
    assert_eq!(
        (&found["step_number"], &found["fine_tuned_model_checkpoint"]),
        (&json!(10), &json!("ft:smol::x:ckpt-step-10"))
    );
    let metrics = &found["metrics"];
    assert_eq!(
        (&metrics["step"], &metrics["train_loss"], &metrics["valid_loss"]),
        (&json!(10.0), &json!(0.5), &json!(0.6))
    );
    assert_eq!(metrics["eval_rewards/margins"], 1.5);
    assert_eq!(ids(&server.get(&format!("{list}?after={id}")).ok()).len(), 0);
    server.get(&format!("{list}?after=ftckpt-1")).error(400, "unknown_cursor");
}

#[test]
fn a_file_comes_whole_in_parts_or_not_again() {
    let server = Server::start();
    let path = checkpoint(&server);
    let file = server.get(&format!("{path}/files")).ok()["data"][0].clone();
    assert_eq!((&file["name"], &file["bytes"]), (&json!("adapter_model.safetensors"), &json!(16)));
    let etag = format!("\"{}\"", file["sha256"].as_str().expect("digest"));
    let get = |headers: &[(&str, &str)]| server.get_with(&format!("{path}/files/adapter_model.safetensors"), headers);

    let whole = get(&[]);
    assert_eq!((whole.status, whole.body.as_slice()), (200, WEIGHTS));
    assert_eq!((whole.header("etag"), whole.header("accept-ranges")), (Some(etag.as_str()), Some("bytes")));
    assert_eq!(whole.header("content-disposition"), Some("attachment; filename=\"adapter_model.safetensors\""));
    // Of "0123456789abcdef", by another program: printf 0123456789abcdef | openssl dgst -sha256 -binary | base64
    assert_eq!(whole.header("repr-digest"), Some("sha-256=:n59REfeyengfHx3d5evC3St5a/xzZcnCi1SOVkF2kp8=:"));

    let part = get(&[("range", "bytes=4-7")]);
    assert_eq!((part.status, part.body.as_slice()), (206, b"4567".as_slice()));
    assert_eq!((part.header("content-range"), part.header("content-length")), (Some("bytes 4-7/16"), Some("4")));
    assert_eq!(get(&[("range", "bytes=-2")]).body, b"ef");
    assert_eq!(get(&[("range", "bytes=14-")]).body, b"ef");
    assert_eq!(get(&[("range", "bytes=4-7"), ("if-range", &etag)]).status, 206);
    assert_eq!(get(&[("range", "bytes=4-7"), ("if-range", "\"other\"")]).body, WEIGHTS);
    let outside = get(&[("range", "bytes=16-")]);
    outside.error(416, "range_not_satisfiable");
    assert_eq!(outside.header("content-range"), Some("bytes */16"));
    let same = get(&[("if-none-match", &etag)]);
    assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, Some(etag.as_str())));
}

#[test]
fn only_what_the_manifest_names_is_served() {
    let server = Server::start();
    let path = checkpoint(&server);
    for name in [
        "secret.txt",
        "..%2Fstep-000010%2Fadapter_model.safetensors",
        "%2e%2e",
        "..%2F..%2F..%2F..%2Fmrpo.sqlite",
        "%2Fetc%2Fpasswd",
    ] {
        server.get(&format!("{path}/files/{name}")).error(404, "file_not_found");
    }
    server.get(&format!("{path}/files/../../../../../../etc/passwd")).error(404, "route_not_found");
    let (list, _) = path.rsplit_once('/').expect("a path");
    let gone = format!("{list}/ftckpt-{}", "0".repeat(32));
    for rest in ["files", "files/adapter_model.safetensors", "archive"] {
        server.get(&format!("{gone}/{rest}")).error(404, "checkpoint_not_found");
    }
}

#[test]
fn an_archive_holds_the_files_and_the_manifest() {
    let server = Server::start();
    let path = checkpoint(&server);
    let answer = server.get(&format!("{path}/archive"));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-tar")));
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"step-000010.tar\""));
    let mut archive = tar::Archive::new(answer.body.as_slice());
    let mut found = Vec::new();
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("entry");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("content");
        found.push((entry.path().expect("path").display().to_string(), content.len()));
        if entry.path().expect("path").ends_with("adapter_model.safetensors") {
            assert_eq!(content, WEIGHTS);
        }
    }
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["step-000010/adapter_model.safetensors", "step-000010/manifest.json"]);
}

#[test]
fn a_checkpoint_whose_files_are_gone_or_changed_says_so() {
    let server = Server::start();
    let path = checkpoint(&server);
    let runs = server.data_dir().join("runs");
    let run = std::fs::read_dir(&runs).expect("runs").next().expect("one").expect("entry").path();
    let directory = run.join("checkpoints/step-000010");
    std::fs::write(directory.join("adapter_model.safetensors"), "short").expect("write");
    let body = server.get(&format!("{path}/files/adapter_model.safetensors")).error(500, "internal");
    assert!(!body.to_string().contains("safetensors"), "a path of ours is shown: {body}");
    std::fs::remove_dir_all(&directory).expect("remove");
    server.get(&format!("{path}/files")).error(404, "checkpoint_not_found");
}

#[test]
fn a_checkpoint_is_deleted_unless_its_job_goes_on_from_it_or_a_model_lies_in_it() {
    let server = Server::start();
    let path = checkpoint(&server);
    let (list, id) = path.rsplit_once('/').expect("a path");
    let (job, _) = list.rsplit_once('/').expect("a path");
    let used = server.delete(&path).error(409, "in_use");
    assert!(used["detail"].as_str().is_some_and(|text| text.contains("goes on from it")), "{used}");
    let used = server.delete(&format!("{job}/run")).error(409, "in_use");
    assert!(used["detail"].as_str().is_some_and(|text| text.contains("cancel it")), "{used}");

    server.post_empty(&format!("{job}/cancel")).ok();
    server.make_ready("other");
    let run = std::fs::read_dir(server.data_dir().join("runs"))
        .expect("runs")
        .next()
        .expect("one")
        .expect("entry")
        .file_name();
    let home = format!("/data/runs/{}/checkpoints/step-000010", run.to_string_lossy());
    server.add_model("other");
    server.make_ready("other");
    server.execute(
        "update models set info = json_set(info, '$.location.adapters', json_array(?)) where id = 'other'",
        &[&home],
    );
    let used = server.delete(&path).error(409, "in_use");
    assert!(used["detail"].as_str().is_some_and(|text| text.contains("model 'other'")), "{used}");
    assert_eq!(server.delete(&format!("{job}/run")).ok()["object"], "fine_tuning.job.run");
    assert_eq!(ids(&server.get(list).ok()).len(), 1, "what a model lies in stays");

    server.delete("/v1/models/other").ok();
    let gone = server.delete(&path).ok();
    assert_eq!((&gone["id"], &gone["object"]), (&json!(id), &json!("fine_tuning.job.checkpoint")));
    assert_eq!(ids(&server.get(list).ok()).len(), 0);
    for path in [path.clone(), format!("{list}/ckpt-x")] {
        server.delete(&path).error(404, "checkpoint_not_found");
    }
    server.get(&format!("{path}/files")).error(404, "checkpoint_not_found");
    server.get(job).ok();
}

#[test]
fn what_is_kept_is_said_with_the_job_or_by_the_operator() {
    let server = Server::with(|settings| settings.retention.keep_last = Some(3));
    server.add_model("smol");
    let file = server.checked_file(&crate::support::pairs(4))["id"].clone();
    let body = |retention: serde_json::Value| json!({"model": "smol", "training_file": file, "retention": retention, "method": {"type": "dpo"}});
    let create = |retention| server.post("/v1/fine_tuning/jobs", &body(retention));
    let kept = create(json!(null)).ok()["retention"].clone();
    assert_eq!(kept, json!({"keep_last": 3, "keep_best": 0, "best_by": "eval_loss", "keep_days": null}));
    assert_eq!(create(json!({"keep_last": 1, "keep_days": 7})).ok()["retention"]["keep_days"], 7);
    let wrong = create(json!({"keep_last": 0, "keep_best": 1, "keep_days": 0})).error(400, "out_of_range");
    let pointers: Vec<_> = wrong["errors"].as_array().expect("a list").iter().map(|e| e["pointer"].clone()).collect();
    assert_eq!(pointers, ["/retention/keep_last", "/retention/keep_days", "/retention/keep_best"]);
    create(json!({"keep": 1})).error(400, "unknown_field");
}
