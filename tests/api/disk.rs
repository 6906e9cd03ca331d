//! A disk that fills: what is refused, what waits, and limits that bodies on their way in count against.

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use mrpo::run_dir::{Disk, Space};
use serde_json::json;
use ureq::http::Method;

use crate::{
    people::team,
    support::{Server, pairs, wait_until},
};

const RESERVE: u64 = 1000;
static FREE: AtomicU64 = AtomicU64::new(u64::MAX);

/// Nothing known is told as 0.
fn ask(_: &Path) -> io::Result<Space> {
    match FREE.load(Ordering::Relaxed) {
        0 => Err(io::Error::other("not known")),
        free_bytes => Ok(Space { free_bytes, total_bytes: 100_000_000 }),
    }
}

#[test]
fn a_low_disk_refuses_what_fills_it_and_lets_jobs_wait() {
    let server = Server::with(|settings| settings.disk = Disk::new(&settings.data_dir, RESERVE).asking(ask));
    server.add_model("smol");
    server.make_ready("smol");
    let file = server.checked_file(&pairs(4))["id"].clone();
    let upload = || server.upload(&[("purpose", None, b"fine-tune"), ("file", Some("x.jsonl"), b"{}")]);
    let in_parts = |bytes: u64| json!({"filename": "x.jsonl", "purpose": "fine-tune", "bytes": bytes});
    server.get("/readyz").ok();
    let begun = server.post("/v1/uploads", &in_parts(2)).ok();

    FREE.store(RESERVE + 500, Ordering::Relaxed);
    server.post("/v1/uploads", &in_parts(501)).error(507, "disk_full");
    server.post("/v1/uploads", &in_parts(500)).ok();
    FREE.store(RESERVE - 1, Ordering::Relaxed);
    let refused = upload().error(507, "disk_full");
    assert!(refused["detail"].as_str().is_some_and(|text| text.contains("delete files")), "{refused}");
    let parts = format!("/v1/uploads/{}/parts", begun["id"].as_str().expect("an id"));
    let form = b"--XX\r\nContent-Disposition: form-data; name=\"data\"; filename=\"upload\"\r\n\r\n{}\r\n--XX--\r\n";
    let headers = [("content-type", "multipart/form-data; boundary=XX")];
    server.send(Method::POST, &parts, &headers, Some(form.to_vec())).error(507, "disk_full");
    server.post("/v1/models/smol/exports", &json!({"format": "gguf"})).error(507, "disk_full");
    let unready = server.get("/readyz").error(503, "unready");
    assert!(unready["detail"].as_str().is_some_and(|text| text.contains("disk")), "{unready}");
    let job = |hyperparameters| {
        let method = json!({"type": "dpo", "dpo": {"hyperparameters": hyperparameters}});
        server.post("/v1/fine_tuning/jobs", &json!({"model": "smol", "training_file": file, "method": method}))
    };
    job(json!({})).ok();
    let never = job(json!({"lora": null})).error(400, "too_large");
    assert!(never["detail"].as_str().is_some_and(|text| text.contains("keep fewer")), "{never}");
    for enough in [u64::MAX, 0] {
        FREE.store(enough, Ordering::Relaxed);
        upload().ok();
    }
}

#[test]
fn bodies_that_arrive_at_once_count_against_each_other() {
    let server = Server::with(|settings| settings.queue.max_disk_bytes_per_user = Some(1_000_000));
    let [_, ana, bo] = team(&server);
    let form = |n_bytes: usize| {
        let head = "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n--XX\r\n\
                    Content-Disposition: form-data; name=\"file\"; filename=\"pairs.jsonl\"\r\n\r\n";
        [head.as_bytes(), &vec![b'x'; n_bytes], b"\r\n--XX--\r\n"].concat()
    };
    let upload = |person: &crate::people::Person<'_>| {
        let headers =
            [("authorization", person.authorization.as_str()), ("content-type", "multipart/form-data; boundary=XX")];
        server.send(Method::POST, "/v1/files", &headers, Some(form(200_000)))
    };
    let whole = form(900_000);
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: here\r\nauthorization: {}\r\ncontent-type: multipart/form-data; boundary=XX\r\n\
         content-length: {}\r\n\r\n",
        ana.authorization,
        whole.len()
    );
    let slow = server.begin(&[head.as_bytes(), &whole[..1000]].concat());
    let arriving = || std::fs::read_dir(server.data_dir().join("tmp")).expect("a folder").count();
    wait_until("the first has begun", || arriving() > 0);
    let refused = upload(&ana).error(409, "disk_limit");
    assert!(refused["detail"].as_str().is_some_and(|text| text.contains("being uploaded")), "{refused}");
    upload(&bo).ok();
    drop(slow);
    wait_until("the first has been given up", || arriving() == 0);
    wait_until("its room is free", || upload(&ana).status == 200);
    // Announced is taken, although nothing has arrived.
    let in_parts = |bytes: u64| json!({"filename": "x.jsonl", "purpose": "fine-tune", "bytes": bytes});
    ana.post("/v1/uploads", &in_parts(700_000)).ok();
    ana.post("/v1/uploads", &in_parts(200_000)).error(409, "disk_limit");
    upload(&ana).error(409, "disk_limit");
}

#[test]
fn bodies_that_arrive_at_once_cannot_fill_what_is_kept_free() {
    #[expect(clippy::unnecessary_wraps, reason = "a disk may not tell")]
    fn ask(_: &Path) -> io::Result<Space> {
        Ok(Space { free_bytes: 1_000_000 + RESERVE, total_bytes: 100_000_000 })
    }
    let server = Server::with(|settings| settings.disk = Disk::new(&settings.data_dir, RESERVE).asking(ask));
    let upload = |n_bytes: usize| {
        let text = vec![b'x'; n_bytes];
        server.upload(&[("purpose", None, b"fine-tune"), ("file", Some("x.jsonl"), &text)])
    };
    upload(300_000).ok();
    let head = "POST /v1/files HTTP/1.1\r\nhost: here\r\ncontent-type: multipart/form-data; boundary=XX\r\n\
                content-length: 900000\r\n\r\n--XX\r\nContent-Disposition: form-data; name=\"file\"; \
                filename=\"pairs.jsonl\"\r\n\r\n";
    let slow = server.begin(head.as_bytes());
    let arriving = || std::fs::read_dir(server.data_dir().join("tmp")).expect("a folder").count();
    wait_until("the first has begun", || arriving() > 0);
    upload(300_000).error(507, "disk_full");
    drop(slow);
    wait_until("its room is free", || upload(300_000).status == 200);
}
