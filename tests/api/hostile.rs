//! Clients that mean harm: heads without an end, forms without an end, files that unpack to more than anybody has.

use std::io::{Read, Write};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;

use crate::support::{PATIENCE, Server, id_of, pairs};

/// More than any limit of the server, and than what the system holds back on the way to it.
const ENOUGH_BYTES: usize = 64 << 20;

/// Sends a beginning and then the same piece again and again, until it is answered or hung up on. What was answered.
fn flood(server: &Server, beginning: &str, piece: &[u8]) -> String {
    let mut stream = server.begin(beginning.as_bytes());
    let n_pieces = ENOUGH_BYTES / piece.len();
    let n_sent = (0..n_pieces).take_while(|_| stream.write_all(piece).is_ok()).count();
    assert!(n_sent < n_pieces, "all of it was taken");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer); // what is still on its way to the server may cut it off
    server.get("/healthz").ok();
    String::from_utf8_lossy(&answer).into_owned()
}

fn form(beginning: &str) -> String {
    format!(
        "POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=XX\r\ncontent-length: {}\r\n\r\n{beginning}",
        2 * ENOUGH_BYTES
    )
}

#[test]
fn a_form_without_an_end_is_not_kept_in_memory() {
    // The file may have as many bytes as are announced; what is no file may not.
    let server = Server::with(|settings| settings.max_upload_bytes = 4 * ENOUGH_BYTES as u64);
    let part = "--XX\r\nContent-Disposition: form-data; name=\"file\"";
    let in_name = flood(&server, &form(&format!("{part}; filename=\"")), &vec![b'x'; 1 << 16]);
    let in_headers = flood(&server, &form(part), &b"\r\nx: y".repeat(1 << 13));
    let before_it = flood(&server, &form(""), &vec![b'x'; 1 << 16]);
    for answer in [in_name, in_headers, before_it] {
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400") && answer.contains("262144 bytes"), "{answer}");
    }
}

#[test]
fn a_part_that_is_no_file_is_short() {
    let server = Server::start();
    let purpose = "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n";
    let answer = flood(&server, &form(purpose), &vec![b'x'; 1 << 16]);
    assert!(answer.is_empty() || answer.contains("too_large") || answer.contains("too_long"), "{answer}");
}

#[test]
fn a_head_without_an_end_is_not_read() {
    let server = Server::start();
    let many = flood(&server, "GET /v1/files HTTP/1.1\r\nhost: x\r\n", &b"x-flood: y\r\n".repeat(1 << 12));
    let one = flood(&server, "GET /v1/files HTTP/1.1\r\nhost: x\r\nx-flood: ", &vec![b'x'; 1 << 16]);
    let address = flood(&server, "GET /v1/files?", &vec![b'x'; 1 << 16]);
    for (answer, status) in [(many, "431"), (one, "431"), (address, "4")] {
        assert!(answer.is_empty() || answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    // Few enough bytes that the answer always arrives.
    let headers = "x-flood: y\r\n".repeat(200);
    let answer = server.raw(format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{headers}\r\n").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[test]
fn a_bomb_is_refused_by_its_size_and_forgotten() {
    let server = Server::with(|settings| settings.max_upload_bytes = 1 << 20);
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    let piece = vec![b' '; 1 << 20];
    (0..=64).for_each(|_| packed.write_all(&piece).expect("memory"));
    let packed = packed.finish().expect("memory");
    let file = server.upload(&[("purpose", None, b"fine-tune"), ("file", Some("bomb.gz"), packed.as_slice())]).ok();
    let checked = server.wait_for_check(&id_of(&file));
    assert_eq!(checked["status"], "error", "{checked}");
    assert!(checked["status_details"].as_str().expect("text").contains("unpacks to more than 64 MiB"), "{checked}");
}

#[test]
fn what_is_nested_without_an_end_is_refused() {
    let server = Server::start();
    let deep = "[".repeat(100_000);
    let body = format!("{{\"name\":\"x\",\"references\":{deep}");
    let json = [("content-type", "application/json")];
    server
        .send("POST".parse().expect("a method"), "/v1/reference_lists", &json, Some(body.into_bytes()))
        .error(400, "wrong_type");
    let row = format!("{{\"prompt\":{deep}\n{}", pairs(2));
    let checked = server.checked_file(&row);
    assert_eq!(
        (&checked["status"], &checked["report"]["problems"]["n_total"]),
        (&json!("error"), &json!(1)),
        "{checked}"
    );
}
