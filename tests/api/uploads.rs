//! `/v1/uploads`: a file in parts.

use md5::{Digest, Md5};
use serde_json::{Value, json};
use ureq::http::Method;

use crate::support::{Answer, Server, id_of, ids, pairs, sha256};

const HALF: usize = 40;

fn begin(server: &Server, n_bytes: usize) -> String {
    let body = json!({"filename": "pairs.jsonl", "purpose": "fine-tune", "bytes": n_bytes, "mime_type": "text/jsonl"});
    let upload = server.post("/v1/uploads", &body).ok();
    assert_eq!(
        (&upload["object"], &upload["status"], &upload["file"]),
        (&json!("upload"), &json!("pending"), &Value::Null)
    );
    let [made, expires] = ["created_at", "expires_at"].map(|name| upload[name].as_i64().expect("a time"));
    assert_eq!(expires - made, 3600);
    id_of(&upload)
}

fn send(server: &Server, upload: &str, content: &[u8]) -> Answer {
    let head = b"--XX\r\nContent-Disposition: form-data; name=\"data\"; filename=\"upload\"\r\n\r\n";
    let body = [head.as_slice(), content, b"\r\n--XX--\r\n"].concat();
    let headers = [("content-type", "multipart/form-data; boundary=XX")];
    server.send(Method::POST, &format!("/v1/uploads/{upload}/parts"), &headers, Some(body))
}

fn part(server: &Server, upload: &str, content: &[u8]) -> String {
    let part = send(server, upload, content).ok();
    assert_eq!((&part["object"], &part["upload_id"]), (&json!("upload.part"), &json!(upload)));
    assert_eq!((&part["bytes"], &part["sha256"]), (&json!(content.len()), &json!(sha256(content))));
    id_of(&part)
}

fn complete(server: &Server, upload: &str, body: &Value) -> Answer {
    server.post(&format!("/v1/uploads/{upload}/complete"), body)
}

fn n_in(server: &Server, folder: &str) -> usize {
    std::fs::read_dir(server.data_dir().join(folder)).expect("folder").count()
}

#[test]
fn parts_in_any_order_become_one_file_that_is_checked() {
    let server = Server::start();
    let content = pairs(5).into_bytes();
    let (first, last) = content.split_at(HALF);
    let upload = begin(&server, content.len());
    let last_id = part(&server, &upload, last);
    part(&server, &upload, first);
    let first_id = part(&server, &upload, first); // sent again
    assert_eq!((n_in(&server, "files"), ids(&server.get("/v1/files").ok()).len()), (0, 0));

    let md5: String = Md5::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let body = json!({"part_ids": [first_id, last_id], "md5": md5});
    let done = complete(&server, &upload, &body).ok();
    assert_eq!((&done["status"], &done["file"]["sha256"]), (&json!("completed"), &json!(sha256(&content))));
    let file = server.wait_for_check(done["file"]["id"].as_str().expect("id"));
    assert_eq!((&file["status"], &file["report"]["n_pairs"]), (&json!("processed"), &json!(5)));
    assert_eq!(server.get(&format!("/v1/files/{}/content", id_of(&file))).body, content);

    // The answer was lost: the same again is no second file.
    assert_eq!(complete(&server, &upload, &body).ok()["file"]["id"], file["id"]);
    complete(&server, &upload, &json!({"part_ids": [first_id]})).error(409, "upload_ended");
    send(&server, &upload, b"x").error(409, "upload_ended");
    server.post_empty(&format!("/v1/uploads/{upload}/cancel")).error(409, "upload_ended");
    assert_eq!((n_in(&server, "files"), n_in(&server, "tmp")), (1, 0));
}

#[test]
fn what_is_not_what_was_announced_makes_no_file() {
    let server = Server::start();
    let content = pairs(5).into_bytes();
    let (first, last) = content.split_at(HALF);
    let upload = begin(&server, content.len());
    let [first, last] = [first, last].map(|content| part(&server, &upload, content));
    let refused = |body: Value, code: &str, param: &str| {
        assert_eq!(complete(&server, &upload, &body).error(400, code)["error"]["param"], param);
    };
    refused(json!({"part_ids": [first]}), "wrong_size", "part_ids");
    refused(json!({"part_ids": []}), "wrong_size", "part_ids");
    refused(json!({"part_ids": [first, first]}), "part_not_found", "part_ids.1");
    refused(json!({"part_ids": ["../../etc/passwd"]}), "part_not_found", "part_ids.0");
    let md5: String = Md5::digest(&content).iter().map(|byte| format!("{byte:02X}")).collect();
    refused(json!({"part_ids": [last, first], "md5": md5}), "wrong_digest", "md5");
    assert_eq!((n_in(&server, "files"), n_in(&server, "tmp")), (0, 0));
    complete(&server, &upload, &json!({"part_ids": [first, last], "md5": md5})).ok();
}

#[test]
fn an_upload_has_its_limits() {
    let server = Server::start();
    let create = |change: Value| {
        let mut body = json!({"filename": "x", "purpose": "fine-tune", "bytes": 10, "mime_type": "text/jsonl"});
        body.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        server.post("/v1/uploads", &body)
    };
    create(json!({"bytes": 0})).error(400, "out_of_range");
    create(json!({"bytes": (1 << 20) + 1})).error(413, "body_too_large");
    create(json!({"purpose": "assistants"})).error(400, "invalid_value");
    create(json!({"filename": "a/"})).error(400, "missing_filename");
    create(json!({"expires_after": {"anchor": "created_at", "seconds": 10}})).error(400, "out_of_range");
    let upload = id_of(&create(json!({"filename": "../../x"})).ok());
    send(&server, &upload, &[b'x'; 11]).error(413, "body_too_large");
    for _ in 0..2 {
        send(&server, &upload, &[b'x'; 10]).ok();
    }
    send(&server, &upload, b"x").error(409, "too_many");
    assert_eq!(n_in(&server, "uploads"), 2);
    for _ in 1..32 {
        create(json!({})).ok();
    }
    create(json!({})).error(409, "too_many");
    assert_eq!(server.post_empty(&format!("/v1/uploads/{upload}/cancel")).ok()["status"], "cancelled");
    assert_eq!(server.post_empty(&format!("/v1/uploads/{upload}/cancel")).ok()["status"], "cancelled");
    create(json!({})).ok();
    complete(&server, &upload, &json!({"part_ids": []})).error(409, "upload_ended");
    server.post_empty("/v1/uploads/upload_x/cancel").error(404, "upload_not_found");
}

#[test]
fn an_upload_has_an_hour() {
    let server = Server::start();
    let upload = begin(&server, 10);
    let id = part(&server, &upload, &[b'x'; 10]);
    server.execute("update uploads set expires_at = unixepoch() where id = ?", &[&upload]);
    send(&server, &upload, b"x").error(409, "upload_ended");
    let said = complete(&server, &upload, &json!({"part_ids": [id]})).error(409, "upload_ended");
    assert!(said["detail"].as_str().expect("text").contains("expired"), "{said}");
}

#[test]
fn what_a_crash_left_of_a_part_is_removed_and_what_was_recorded_goes_on() {
    let server = Server::start();
    let content = pairs(3).into_bytes();
    let upload = begin(&server, content.len());
    let id = part(&server, &upload, &content);
    let data_dir = server.stop();
    let orphan = data_dir.path().join("uploads").join(format!("part_{:032}", 0));
    std::fs::write(&orphan, "half").expect("written");
    std::fs::write(data_dir.path().join("tmp/upload-1"), "half").expect("written");

    let server = Server::on(data_dir, |_| {});
    assert!(!orphan.exists());
    assert_eq!((n_in(&server, "uploads"), n_in(&server, "tmp")), (1, 0));
    let done = complete(&server, &upload, &json!({"part_ids": [id]})).ok();
    assert_eq!(server.wait_for_check(&id_of(&done["file"]))["status"], "processed");
}

#[test]
fn a_file_may_expire() {
    let server = Server::start();
    let with = |parts: &[(&str, &str)]| {
        let content = pairs(2);
        let mut form = vec![("purpose", None, b"fine-tune".as_slice()), ("file", Some("x"), content.as_bytes())];
        form.extend(parts.iter().map(|(name, text)| (*name, None, text.as_bytes())));
        server.upload(&form)
    };
    let (anchor, seconds) = ("expires_after[anchor]", "expires_after[seconds]");
    let file = with(&[(anchor, "created_at"), (seconds, "3600")]).ok();
    assert_eq!(file["expires_at"].as_i64(), file["created_at"].as_i64().map(|at| at + 3600));
    assert_eq!(with(&[]).ok()["expires_at"], Value::Null);
    for (parts, code, param) in [
        (vec![(anchor, "created_at"), (seconds, "3599")], "out_of_range", "expires_after.seconds"),
        (vec![(anchor, "created_at"), (seconds, "soon")], "out_of_range", "expires_after.seconds"),
        (vec![(anchor, "yesterday"), (seconds, "3600")], "invalid_value", "expires_after.anchor"),
        (vec![(anchor, "created_at")], "missing_field", "expires_after.seconds"),
        (vec![(seconds, "3600")], "missing_field", "expires_after.anchor"),
    ] {
        assert_eq!(with(&parts).error(400, code)["error"]["param"], param, "{parts:?}");
    }
}
