//! `/v1/files`.

use serde_json::{Value, json};
use ureq::http::Method;

use crate::support::{Server, ids, pair, pairs, sha256, wait_until};

fn lines(file: &Value) -> Vec<(u64, String)> {
    let problems = file["report"]["problems"]["first"].as_array().expect("problems");
    problems.iter().map(|p| (p["line"].as_u64().expect("line"), p["code"].as_str().expect("code").to_owned())).collect()
}

/// Nothing of an upload is left.
fn assert_nothing_kept(server: &Server) {
    for folder in ["files", "tmp"] {
        let left = std::fs::read_dir(server.data_dir().join(folder)).expect("folder").count();
        assert_eq!(left, 0, "{folder}");
    }
    assert_eq!(ids(&server.get("/v1/files").ok()).len(), 0);
}

#[test]
fn a_file_is_stored_checked_and_served_as_it_came() {
    let server = Server::start();
    let content = pairs(5);
    let file = server.checked_file(&content);
    assert_eq!(file["status"], "processed", "{file}");
    assert_eq!(
        (&file["object"], &file["purpose"], &file["filename"]),
        (&json!("file"), &json!("fine-tune"), &json!("pairs.jsonl"))
    );
    assert_eq!((&file["report"]["n_pairs"], &file["report"]["format"]), (&json!(5), &json!("trl_standard")));
    assert_eq!(file["bytes"], content.len());
    let digest = sha256(content.as_bytes());
    assert_eq!(file["sha256"], digest);

    let id = file["id"].as_str().expect("id");
    let answer = server.get(&format!("/v1/files/{id}/content"));
    assert_eq!((answer.status, answer.body.as_slice()), (200, content.as_bytes()));
    assert_eq!(answer.header("etag"), Some(format!("\"{digest}\"").as_str()));
    let part = server.get_with(&format!("/v1/files/{id}/content"), &[("range", "bytes=2-5")]);
    assert_eq!((part.status, part.body.as_slice()), (206, &content.as_bytes()[2..=5]));

    assert_eq!(server.delete(&format!("/v1/files/{id}")).ok(), json!({"id": id, "object": "file", "deleted": true}));
    server.get(&format!("/v1/files/{id}")).error(404, "file_not_found");
    server.delete(&format!("/v1/files/{id}")).error(404, "file_not_found");
    assert_nothing_kept(&server);
}

#[test]
fn every_bad_line_is_named() {
    let server = Server::start();
    let mut lines_of_file: Vec<String> = pairs(40).lines().map(str::to_owned).collect();
    lines_of_file[36] = r#"{"prompt": "cut of"#.into();
    let file = server.checked_file(&lines_of_file.join("\n"));
    assert_eq!(file["status"], "error");
    assert_eq!(lines(&file).iter().map(|(line, _)| *line).collect::<Vec<_>>(), [37]);
    assert!(file["status_details"].as_str().expect("text").starts_with("line 37: "), "{file}");

    let mixed = [pair("q", "yes", ""), pair("q", "same", "same"), pair("q", "yes", "no")].join("\n");
    let file = server.checked_file(&mixed);
    assert_eq!(lines(&file).iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2], "{file}");
}

#[test]
fn the_parts_may_come_in_any_order() {
    let server = Server::start();
    let content = pairs(2);
    let purpose = ("purpose", None, b"fine-tune".as_slice());
    let file = ("file", Some("../../etc/x.jsonl"), content.as_bytes());
    for parts in [[purpose, file], [file, purpose]] {
        assert_eq!(server.upload(&parts).ok()["filename"], "x.jsonl");
    }
}

#[test]
fn a_form_that_is_not_right_leaves_nothing_behind() {
    let server = Server::start();
    let content = pairs(2);
    let purpose = ("purpose", None, b"fine-tune".as_slice());
    let file = ("file", Some("x.jsonl"), content.as_bytes());
    server.upload(&[purpose]).error(400, "missing_field");
    server.upload(&[file]).error(400, "missing_field");
    server.upload(&[]).error(400, "missing_field");
    server.upload(&[purpose, file, file]).error(400, "duplicate_field");
    server.upload(&[purpose, ("file", None, b"x")]).error(400, "missing_filename");
    server.upload(&[file, ("purpose", None, b"assistants")]).error(400, "invalid_value");
    server.upload(&[file, ("colour", None, b"red")]).error(400, "unknown_field");
    server.upload(&[file, ("purpose", None, &[b'x'; 100])]).error(400, "too_long");

    let send = |content_type: &str, body: &[u8]| {
        server.send(Method::POST, "/v1/files", &[("content-type", content_type)], Some(body.to_vec()))
    };
    send("application/json", b"{}").error(415, "unsupported_media_type");
    send("multipart/form-data", b"--XX--").error(400, "invalid_multipart");
    let cut = b"--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\nhalf a fi";
    send("multipart/form-data; boundary=XX", cut).error(400, "invalid_multipart");
    assert_nothing_kept(&server);
}

#[test]
fn a_file_that_is_too_large_is_refused_announced_or_not() {
    let server = Server::with(|settings| settings.max_upload_bytes = 1000);
    let large = vec![b'x'; 200_000];
    let purpose = ("purpose", None, b"fine-tune".as_slice());
    let body = server.upload(&[purpose, ("file", Some("x.jsonl"), &large)]).error(413, "body_too_large");
    assert!(body["detail"].as_str().expect("text").contains("--max-upload-bytes"));
    // Below what a form may add to its file: found out while it is read.
    server.upload(&[purpose, ("file", Some("x.jsonl"), &large[..1001])]).error(413, "body_too_large");
    assert_nothing_kept(&server);
    server.upload(&[purpose, ("file", Some("x.jsonl"), &large[..1000])]).ok();
}

#[test]
fn an_upload_whose_client_hangs_up_leaves_nothing_behind() {
    let server = Server::start();
    let uploads = || std::fs::read_dir(server.data_dir().join("tmp")).expect("folder").count();
    let connection = server.begin(
        b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=XX\r\ncontent-length: 1000\r\n\r\n\
          --XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\nhalf a fi",
    );
    wait_until("the upload begins", || uploads() == 1);
    drop(connection);
    wait_until("the upload is cleared away", || uploads() == 0);
    assert_nothing_kept(&server);
}

#[test]
fn files_are_listed_page_by_page() {
    let server = Server::start();
    let made: Vec<String> =
        (1..=3).map(|n| server.checked_file(&pairs(n))["id"].as_str().expect("id").to_owned()).collect();
    let newest_first: Vec<String> = made.iter().rev().cloned().collect();
    let all = server.get("/v1/files").ok();
    assert_eq!((ids(&all), &all["has_more"]), (newest_first.clone(), &json!(false)));
    assert_eq!((&all["first_id"], &all["last_id"]), (&json!(made[2]), &json!(made[0])));
    assert_eq!(ids(&server.get("/v1/files?order=asc").ok()), made);

    let first = server.get("/v1/files?limit=2").ok();
    assert_eq!((ids(&first), &first["has_more"]), (newest_first[..2].to_vec(), &json!(true)));
    let rest = server.get(&format!("/v1/files?limit=2&after={}", newest_first[1])).ok();
    assert_eq!((ids(&rest), &rest["has_more"]), (newest_first[2..].to_vec(), &json!(false)));
    let end = server.get(&format!("/v1/files?after={}", newest_first[2])).ok();
    assert_eq!((ids(&end).len(), &end["first_id"]), (0, &Value::Null));
    assert_eq!(ids(&server.get("/v1/files?purpose=fine-tune-results").ok()).len(), 0);
    for unknown in ["file-1", &made[0].replace("file-0", "file-f")] {
        let body = server.get(&format!("/v1/files?after={unknown}")).error(400, "unknown_cursor");
        assert_eq!(body["error"]["param"], "after");
    }
}

#[test]
fn an_id_is_never_a_path() {
    let server = Server::start();
    for id in ["..%2F..%2Fetc%2Fpasswd", "file-..%2F..%2Fmrpo.sqlite", "%2e%2e", "file-%00", "ftjob-1"] {
        let answer = server.get(&format!("/v1/files/{id}/content"));
        assert_eq!(answer.status, 404, "{id}");
        answer.error(404, "file_not_found");
    }
}

#[test]
fn a_check_that_a_restart_cut_off_is_made_again() {
    let server = Server::start();
    let id = server.checked_file(&pairs(3))["id"].as_str().expect("id").to_owned();
    server.execute("update files set status = 'uploaded', report = null where id = ?", &[&id]);
    std::fs::write(server.data_dir().join("tmp/upload-cut-off"), "half").expect("write");
    let server = Server::on(server.stop(), |_| {});
    assert_eq!(server.wait_for_check(&id)["status"], "processed");
    assert!(!server.data_dir().join("tmp/upload-cut-off").exists());
}

#[test]
fn a_file_in_use_stays() {
    let server = Server::start();
    let job = server.add_job();
    let file =
        server.get(&format!("/v1/fine_tuning/jobs/{job}")).ok()["training_file"].as_str().expect("id").to_owned();
    server.delete(&format!("/v1/files/{file}")).error(409, "in_use");
    server.post_empty(&format!("/v1/fine_tuning/jobs/{job}/cancel")).ok();
    server.delete(&format!("/v1/files/{file}")).ok();
}
