//! `/v1/models/{model}/exports` and `/v1/exports`.

use std::io::Read;

use mrpo::{
    domain::{ExportedFiles, HashedFile, RunId},
    run_dir::RunDir,
};
use serde_json::{Value, json};

use crate::support::{Server, ids, sha256};

const CONTENT: &[u8] = b"GGUF0123456789abcdef";

fn server_with_model() -> Server {
    let server = Server::start();
    server.add_model("smol");
    server.make_ready("smol");
    server
}

fn export(server: &Server, body: &Value) -> Value {
    server.post("/v1/models/smol/exports", body).ok()
}

/// Marks an export as the worker does when its run has succeeded, and leaves the files such a run leaves. Returns its address.
fn make_ready(server: &Server, export: &Value, names: &[&str]) -> String {
    let (id, run) = (export["id"].as_str().expect("id"), RunId::new());
    let directory = RunDir::new(server.data_dir().join("runs").join(run.as_str())).export_files();
    std::fs::create_dir_all(&directory).expect("directory");
    std::fs::write(directory.join("secret.txt"), "no file of the export").expect("written");
    let files = names.iter().map(|name| {
        std::fs::write(directory.join(name), CONTENT).expect("written");
        HashedFile { name: (*name).into(), size_bytes: CONTENT.len() as u64, sha256: sha256(CONTENT) }
    });
    let result = ExportedFiles { files: files.collect(), warnings: vec!["a window is lost".into()] };
    let result = serde_json::to_string(&result).expect("serialises");
    server.execute("insert into runs (run_id, export_id) values (?, ?)", &[run.as_str(), id]);
    server.execute(
        "update exports set status = 'ready', result = ?, finished_at = 1700000000 where id = ?",
        &[&result, id],
    );
    format!("/v1/exports/{id}")
}

#[test]
fn an_export_is_asked_for_shown_listed_and_deleted() {
    let server = server_with_model();
    let made = export(&server, &json!({"format": "gguf"}));
    assert_eq!(
        (&made["object"], &made["model"], &made["format"], &made["dtype"], &made["status"]),
        (&json!("model.export"), &json!("smol"), &json!("gguf"), &json!("float16"), &json!("pending"))
    );
    assert_eq!(
        (&made["size_bytes"], &made["sha256"], &made["files"], &made["error"], &made["finished_at"]),
        (&Value::Null, &Value::Null, &json!([]), &Value::Null, &Value::Null)
    );
    let address = format!("/v1/exports/{}", made["id"].as_str().expect("id"));
    assert_eq!(server.get(&address).ok(), made);

    let other = export(&server, &json!({"format": "huggingface"}));
    assert_eq!(other["dtype"], "float32");
    let third = export(&server, &json!({"format": "gguf", "dtype": "q8_0"}));
    let all = [&third["id"], &other["id"], &made["id"]].map(|id| id.as_str().expect("id").to_owned());
    let page = server.get("/v1/models/smol/exports?limit=2").ok();
    assert_eq!((ids(&page), &page["has_more"]), (all[..2].to_vec(), &json!(true)));
    assert_eq!(ids(&server.get(&format!("/v1/models/smol/exports?after={}", all[1])).ok()), all[2..]);
    server.get("/v1/models/smol/exports?after=export-0").error(400, "unknown_cursor");

    let id = &made["id"];
    assert_eq!(server.delete(&address).ok(), json!({"id": id, "object": "model.export", "deleted": true}));
    server.get(&address).error(404, "export_not_found");
    server.delete(&address).error(404, "export_not_found");
    assert_eq!(ids(&server.get("/v1/models/smol/exports").ok()), all[..2]);
}

#[test]
fn who_asks_for_the_same_again_gets_the_same() {
    let server = server_with_model();
    let first = export(&server, &json!({"format": "gguf"}));
    assert_eq!(export(&server, &json!({"format": "gguf", "dtype": "float16"})), first);
    let address = make_ready(&server, &first, &["model.gguf"]);
    let ready = export(&server, &json!({"format": "gguf"}));
    assert_eq!((&ready["id"], &ready["status"]), (&first["id"], &json!("ready")));
    assert_ne!(export(&server, &json!({"format": "gguf", "dtype": "float32"}))["id"], first["id"]);
    server.delete(&address).ok();
    let anew = export(&server, &json!({"format": "gguf"}));
    assert_ne!(anew["id"], first["id"]);

    // One that failed does not stand in the way of another try.
    let error = r#"{"code":"disk_full","message":"free some space"}"#;
    server.execute(
        "update exports set status = 'error', error = ? where id = ?",
        &[error, anew["id"].as_str().expect("id")],
    );
    let address = format!("/v1/exports/{}", anew["id"].as_str().expect("id"));
    assert_eq!(server.get(&address).ok()["error"]["code"], "disk_full");
    server.get(&format!("{address}/content")).error(409, "not_ready");
    assert_ne!(export(&server, &json!({"format": "gguf"}))["id"], anew["id"]);
}

#[test]
fn what_cannot_be_is_refused_at_once() {
    let server = server_with_model();
    let refused = |body: &Value, status, code| server.post("/v1/models/smol/exports", body).error(status, code);
    let body = refused(&json!({"format": "huggingface", "dtype": "q8_0"}), 400, "conflicting_fields");
    assert_eq!(body["error"]["param"], "dtype");
    assert!(body["detail"].as_str().expect("text").contains("GGUF"), "{body}");
    refused(&json!({"format": "scores"}), 400, "invalid_value");
    refused(&json!({}), 400, "missing_field");
    refused(&json!({"format": "gguf", "dtype": "q4_k"}), 400, "invalid_value");
    refused(&json!({"format": "gguf", "out": "/etc"}), 400, "unknown_field");

    let gguf = json!({"format": "gguf"});
    server.post("/v1/models/nobody/exports", &gguf).error(404, "model_not_found");
    server.get("/v1/models/nobody/exports").error(404, "model_not_found");
    server.add_model("pending");
    server.post("/v1/models/pending/exports", &gguf).error(409, "not_ready");
    server.add_model("teacher");
    let summary = json!({"n_of_training_file": 1, "files": {}, "n_with_token_counts": 0});
    server.make_ready_with_scores("teacher", &summary);
    server.post("/v1/models/teacher/exports", &gguf).error(400, "reference_only");
    for name in ["export-1", "..%2F..%2Fetc"] {
        server.get(&format!("/v1/exports/{name}")).error(404, "export_not_found");
    }
}

#[test]
fn a_gguf_file_is_downloaded_as_it_is_or_in_part() {
    let server = server_with_model();
    let pending = export(&server, &json!({"format": "gguf"}));
    let address = format!("/v1/exports/{}/content", pending["id"].as_str().expect("id"));
    server.get(&address).error(409, "not_ready");
    let export = make_ready(&server, &pending, &["model.gguf"]);
    let shown = server.get(&export).ok();
    assert_eq!((&shown["size_bytes"], &shown["sha256"]), (&json!(CONTENT.len()), &json!(sha256(CONTENT))));
    assert_eq!(shown["files"], json!([{"name": "model.gguf", "size_bytes": CONTENT.len(), "sha256": sha256(CONTENT)}]));
    assert_eq!((&shown["warnings"], &shown["finished_at"]), (&json!(["a window is lost"]), &json!(1_700_000_000)));

    let whole = server.get(&address);
    assert_eq!((whole.status, whole.body.as_slice()), (200, CONTENT));
    assert_eq!(whole.header("content-disposition"), Some("attachment; filename=\"smol-float16.gguf\""));
    let etag = format!("\"{}\"", sha256(CONTENT));
    assert_eq!((whole.header("etag"), whole.header("accept-ranges")), (Some(etag.as_str()), Some("bytes")));
    for address in [address, format!("{export}/files/model.gguf")] {
        let part = server.get_with(&address, &[("range", "bytes=4-7"), ("if-range", &etag)]);
        assert_eq!((part.status, part.body.as_slice()), (206, &CONTENT[4..8]));
        assert_eq!(part.header("content-range"), Some("bytes 4-7/20"));
        assert_eq!(server.get_with(&address, &[("if-none-match", &etag)]).status, 304);
        server.get_with(&address, &[("range", "bytes=99-")]).error(416, "range_not_satisfiable");
    }
    for name in ["secret.txt", "..%2F..%2Fspec.json", "model.gguf.writing"] {
        server.get(&format!("{export}/files/{name}")).error(404, "file_not_found");
    }
}

#[test]
fn a_directory_is_downloaded_as_one_archive_or_file_by_file() {
    let server = server_with_model();
    let pending = export(&server, &json!({"format": "huggingface", "dtype": "bfloat16"}));
    let names = ["config.json", "model.safetensors", "tokenizer.json"];
    let export = make_ready(&server, &pending, &names);
    let shown = server.get(&export).ok();
    assert_eq!((&shown["size_bytes"], &shown["sha256"]), (&json!(3 * CONTENT.len()), &Value::Null));
    let answer = server.get(&format!("{export}/content"));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-tar")));
    assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"smol-bfloat16.tar\""));
    let mut archive = tar::Archive::new(answer.body.as_slice());
    let mut found = Vec::new();
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("read");
        assert_eq!(content, CONTENT);
        found.push(entry.path().expect("a path").to_string_lossy().into_owned());
    }
    assert_eq!(found, names.map(|name| format!("smol-bfloat16/{name}")));
    let part = server.get_with(&format!("{export}/files/config.json"), &[("range", "bytes=-3")]);
    assert_eq!((part.status, part.body.as_slice()), (206, &CONTENT[17..]));
}

#[test]
fn a_run_that_tells_of_a_path_is_not_believed() {
    let server = server_with_model();
    let export = make_ready(&server, &export(&server, &json!({"format": "huggingface"})), &["config.json"]);
    server.execute("update exports set result = replace(result, 'config.json', '../events.jsonl')", &[]);
    server.get(&format!("{export}/content")).error(500, "internal");
    server.get(&format!("{export}/files/..%2Fevents.jsonl")).error(500, "internal");
}

#[test]
fn a_model_that_goes_takes_its_exports_along_unless_one_is_being_written() {
    let server = server_with_model();
    let ready = make_ready(&server, &export(&server, &json!({"format": "huggingface"})), &["config.json"]);
    let pending = export(&server, &json!({"format": "gguf"}));
    let id = pending["id"].as_str().expect("id");
    let body = server.delete("/v1/models/smol").error(409, "in_use");
    assert!(body["detail"].as_str().expect("text").contains(id), "{body}");
    server.delete(&format!("/v1/exports/{id}")).ok();
    server.delete("/v1/models/smol").ok();
    server.get(&ready).error(404, "export_not_found");
    // Another model under the same name has none of them.
    server.add_model("smol");
    assert_eq!(ids(&server.get("/v1/models/smol/exports").ok()).len(), 0);
}
