//! What becomes of datasets in other formats, containers and packings.

use serde_json::{Value, json};

use crate::support::{Server, pair, pairs};

const PARQUET: &[u8] = include_bytes!("../fixtures/datasets/ultrafeedback_binarized.zstd.parquet");
const AMBIGUOUS: &str = r#"{"instruction": "i", "question": "q", "chosen": "c", "rejected": "r"}"#;

/// Uploads a file with these further parts and waits for its check.
fn checked(server: &Server, content: &[u8], further: &[(&str, &str)]) -> Value {
    let mut parts = vec![("purpose", None, b"fine-tune".as_slice())];
    parts.extend(further.iter().map(|(name, text)| (*name, None, text.as_bytes())));
    parts.push(("file", Some("pairs"), content));
    let file = server.upload(&parts).ok();
    server.wait_for_check(file["id"].as_str().expect("id"))
}

#[test]
fn a_parquet_file_is_told_from_its_bytes_and_served_as_it_came() {
    let server = Server::start();
    let file = checked(&server, PARQUET, &[]);
    assert_eq!(file["status"], "processed", "{file}");
    let report = &file["report"];
    assert_eq!((&report["container"], &report["format"]), (&json!("parquet"), &json!("ultrafeedback_binarized")));
    assert_eq!((&report["n_pairs"], &file["format"]), (&json!(20), &Value::Null));
    let statistics = &report["statistics"];
    assert_eq!((&statistics["n_rows"], statistics["samples"].as_array().expect("samples").len()), (&json!(20), 2));
    assert!(statistics["lengths"]["chosen"]["histogram"].as_array().expect("bins").len() > 1);
    let content = server.get(&format!("/v1/files/{}/content", file["id"].as_str().expect("id")));
    assert_eq!(content.body, PARQUET);
    let list = server.get("/v1/files").ok();
    assert_eq!(list["data"][0]["report"]["n_pairs"], 20);
    assert_eq!(list["data"][0]["report"]["statistics"], Value::Null, "lists stay short");
}

#[test]
fn a_given_format_holds_also_after_a_restart() {
    let server = Server::start();
    let file = checked(&server, AMBIGUOUS.as_bytes(), &[]);
    assert_eq!(file["report"]["problems"]["first"][0]["code"], "ambiguous_format", "{file}");
    let file = checked(&server, AMBIGUOUS.as_bytes(), &[("format", "axolotl_intel")]);
    assert_eq!((&file["status"], &file["format"]), (&json!("processed"), &json!("axolotl_intel")), "{file}");
    assert_eq!(file["report"]["statistics"]["samples"][0]["prompt"], "q");

    let id = file["id"].as_str().expect("id").to_owned();
    server.execute("update files set status = 'uploaded', report = null where id = ?", &[&id]);
    let server = Server::on(server.stop(), |_| {});
    assert_eq!(server.wait_for_check(&id)["report"]["format"], "axolotl_intel");
}

#[test]
fn a_format_that_there_is_not_is_refused() {
    let server = Server::start();
    let file = ("file", Some("x"), AMBIGUOUS.as_bytes());
    let body =
        server.upload(&[("purpose", None, b"fine-tune"), ("format", None, b"intel"), file]).error(400, "invalid_value");
    assert!(body["detail"].as_str().expect("text").contains("axolotl_intel"), "{body}");
    let scores = ("purpose", None, b"reference-scores".as_slice());
    server.upload(&[scores, ("format", None, b"h2o"), file]).error(400, "invalid_value");
}

#[test]
fn the_place_of_a_problem_has_its_word() {
    let server = Server::start();
    let list = format!("[{},\n{}]", pair("p", "c", "r"), pair("p", "c", "c"));
    let file = checked(&server, list.as_bytes(), &[]);
    assert!(file["status_details"].as_str().expect("text").starts_with("row 2: "), "{file}");
    let csv = "prompt,chosen,rejected\np,c,r\np,c,c\n";
    let file = checked(&server, csv.as_bytes(), &[]);
    assert!(file["status_details"].as_str().expect("text").starts_with("line 3: "), "{file}");
}

#[test]
fn what_two_files_share_is_told() {
    let server = Server::start();
    let id = |file: &Value| file["id"].as_str().expect("id").to_owned();
    let training = id(&checked(&server, pairs(5).as_bytes(), &[]));
    let held_out = [pair("question 1", "yes", "no"), pair("new", "a", "b"), pair("question 2", "no", "yes")].join("\n");
    let held_out = id(&checked(&server, held_out.as_bytes(), &[]));
    let found = server.get(&format!("/v1/files/{training}/overlap?with={held_out}")).ok();
    let expected = json!({
        "object": "file.overlap", "file": training, "with": held_out, "n_pairs": 3, "n_shared_prompts": 2,
        "n_shared_pairs": 1, "n_swapped_pairs": 1, "is_complete": true,
        "first": [
            {"line": 1, "line_within": 2, "part": "pair"},
            {"line": 3, "line_within": 3, "part": "swapped_pair"},
        ],
    });
    assert_eq!(found, expected);

    let broken = id(&checked(&server, b"{}", &[]));
    server.get(&format!("/v1/files/{training}/overlap?with={broken}")).error(409, "not_ready");
    server.get(&format!("/v1/files/{training}/overlap")).error(400, "invalid_query");
    server.get(&format!("/v1/files/{training}/overlap?with=file-1")).error(400, "invalid_query");
}
