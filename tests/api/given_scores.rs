//! Scores made elsewhere: uploaded, checked, registered as a reference, refused where they do not serve.

use serde_json::{Value, json};

use crate::support::{Server, pair, pairs};

fn upload(server: &Server, content: &str) -> Value {
    let parts = [("purpose", None, &b"reference-scores"[..]), ("file", Some("scores.jsonl"), content.as_bytes())];
    let file = server.upload(&parts).ok();
    server.wait_for_check(file["id"].as_str().expect("id"))
}

fn row(n: u64) -> String {
    json!({"row": n, "chosen": -1.5, "rejected": -2, "chosen_tokens": 3, "rejected_tokens": 4}).to_string()
}

#[test]
fn a_file_of_scores_is_checked_line_by_line() {
    let server = Server::start();
    let file = upload(&server, &[row(1), row(2)].join("\n"));
    assert_eq!((&file["status"], &file["purpose"]), (&json!("processed"), &json!("reference-scores")));
    assert_eq!((&file["report"]["n_pairs"], &file["report"]["scores"]["n_with_token_counts"]), (&json!(2), &json!(2)));
    let list = server.get("/v1/files?purpose=reference-scores").ok();
    assert_eq!(list["data"].as_array().map(Vec::len), Some(1));

    let bad = upload(&server, &[row(1), row(1), r#"{"row": 3, "chosen": 0.5, "rejected": -1}"#.into()].join("\n"));
    assert_eq!(bad["status"], "error");
    let words = bad["status_details"].as_str().expect("text");
    assert!(
        words.contains("line 2: row 1 stands on line 1") && words.contains("line 3: 0.5 is no log-prob"),
        "{words}"
    );
    // Preference pairs are no scores.
    assert_eq!(upload(&server, &pairs(1))["report"]["problems"]["first"][0]["code"], "unknown_field");
}

#[test]
fn only_a_file_of_scores_becomes_a_model() {
    let server = Server::start();
    let post = |id: &str, file: &Value| {
        server.post("/v1/models", &json!({"id": id, "source": format!("scores:{}", file.as_str().expect("id"))}))
    };
    let good = upload(&server, &row(1));
    assert_eq!(post("teacher", &good["id"]).ok()["status"], "pending");
    post("data", &server.checked_file(&pairs(2))["id"]).error(400, "wrong_purpose");
    let body = post("bad", &upload(&server, "{}")["id"]).error(400, "file_in_error");
    assert_eq!(body["error"]["param"], "source");
    post("gone", &json!(format!("file-{}", "0".repeat(32)))).error(400, "file_not_found");
    post("x", &json!("smol")).error(400, "invalid_value");

    server.make_ready_with_scores("teacher", &good["report"]["scores"]);
    let model = server.get("/v1/models/teacher").ok();
    assert_eq!((&model["status"], &model["scores"]["n_of_training_file"]), (&json!("ready"), &json!(1)));
    for null in ["architecture", "n_parameters", "vocab_size", "max_position_embeddings", "has_chat_template"] {
        assert_eq!(model[null], json!(null), "{null}");
    }
}

#[test]
fn scores_are_a_reference_only_and_only_where_they_are_enough() {
    let server = Server::start();
    server.add_model("smol");
    let scores = upload(&server, r#"{"row": 1, "chosen": -1, "rejected": -2}"#);
    let source = format!("scores:{}", scores["id"].as_str().expect("id"));
    server.post("/v1/models", &json!({"id": "teacher", "source": source})).ok();
    let file = server.checked_file(&pairs(2));
    let spans: String = (0..2)
        .map(|i| {
            let mut row: Value = serde_json::from_str(&pair(&format!("q{i}"), "yes", "no")).expect("a pair");
            row["chosen_spans"] = json!([[0, 1]]);
            format!("{row}\n")
        })
        .collect();
    let spans = server.checked_file(&spans);
    let job = |model: &str, file: &Value, kind: &str, reference: &str, settings: Value| {
        let section = json!({"references": [{"model": reference}], "hyperparameters": settings});
        let method = json!({"type": kind, kind: section});
        server.post("/v1/fine_tuning/jobs", &json!({"model": model, "training_file": file["id"], "method": method}))
    };
    let body = job("teacher", &file, "mrpo", "smol", json!({})).error(400, "reference_only");
    assert_eq!(body["error"]["param"], "model");
    let detail = body["detail"].as_str().expect("text");
    assert!(detail.contains("'teacher'") && detail.contains("name it among the references"), "{detail}");
    let body = job("smol", &spans, "token_level", "teacher", json!({})).error(400, "unfit_scores");
    assert_eq!(body["error"]["param"], "method.token_level.references.0.model");

    // While it is pending nobody knows whether it has token counts; then it is refused here.
    let per_token = json!({"length_normalized": true});
    job("smol", &file, "mrpo", "teacher", per_token.clone()).ok();
    server.make_ready_with_scores("teacher", &scores["report"]["scores"]);
    let body = job("smol", &file, "mrpo", "teacher", per_token).error(400, "unfit_scores");
    assert!(body["detail"].as_str().expect("text").contains("line 1 of the scores has none"));
    let job = job("smol", &file, "mrpo", "teacher", json!({})).ok();
    assert_eq!(job["references"], json!([{"model": "smol"}, {"model": "teacher"}]));
}
