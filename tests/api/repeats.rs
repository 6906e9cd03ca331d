//! The same request sent again: by its `Idempotency-Key`, or by an SDK whose connection was cut.

use serde_json::{Value, json};
use ureq::http::Method;

use crate::support::{Answer, Server, id_of, ids, pairs, wait_until};

const JOBS: &str = "/v1/fine_tuning/jobs";

fn post(server: &Server, path: &str, header: (&str, &str), body: &Value) -> Answer {
    let headers = [("content-type", "application/json"), header];
    server.send(Method::POST, path, &headers, Some(body.to_string().into_bytes()))
}

fn n_jobs(server: &Server) -> usize {
    ids(&server.get(JOBS).ok()).len()
}

/// A server with a model and a file, and a job's request.
fn prepared() -> (Server, Value) {
    let server = Server::start();
    server.add_model("smol");
    let file = server.checked_file(&pairs(4));
    let body = json!({"model": "smol", "training_file": file["id"], "method": {"type": "dpo"}});
    (server, body)
}

/// Sends a request and hangs up without reading its answer, when the server has done what it asks.
fn cut(server: &Server, header: (&str, &str), body: &Value) {
    let body = body.to_string();
    let head = format!(
        "POST {JOBS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{}: {}\r\nContent-Length: {}\r\n\r\n",
        header.0,
        header.1,
        body.len()
    );
    let connection = server.begin(&[head.into_bytes(), body.into_bytes()].concat());
    wait_until("the job is there", || n_jobs(server) == 1);
    drop(connection);
}

#[test]
fn a_key_makes_one_thing_of_the_same_request_and_refuses_another() {
    let (server, body) = prepared();
    let key = ("idempotency-key", "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"");
    let first = post(&server, JOBS, key, &body);
    assert_eq!(first.header("idempotent-replayed"), None);
    let again = post(&server, JOBS, key, &body);
    assert_eq!((again.ok(), again.header("idempotent-replayed")), (first.ok(), Some("true")));
    let other = json!({"model": "smol", "training_file": body["training_file"], "method": {"type": "dpo"}, "seed": 1});
    post(&server, JOBS, key, &other).error(422, "idempotency_key_reused");
    let list = json!({"name": "x", "references": [{"model": "smol"}]});
    post(&server, "/v1/reference_lists", key, &list).error(422, "idempotency_key_reused");
    assert_eq!(n_jobs(&server), 1);
    post(&server, JOBS, ("idempotency-key", "another"), &body).ok();
    assert_eq!(n_jobs(&server), 2);
    for bad in ["", "a b", &"x".repeat(256)] {
        assert_eq!(post(&server, JOBS, ("idempotency-key", bad), &body).status, 400, "{bad}");
    }
}

#[test]
fn what_was_refused_may_be_tried_again_with_its_key() {
    let server = Server::start();
    let key = ("idempotency-key", "k");
    let list = json!({"name": "x", "references": [{"model": "smol"}]});
    post(&server, "/v1/reference_lists", key, &list).error(400, "model_not_found");
    server.add_model("smol");
    post(&server, "/v1/reference_lists", key, &list).ok();
}

#[test]
fn a_request_that_is_still_worked_on_is_asked_again_later() {
    let (server, body) = prepared();
    let key = ("idempotency-key", "k");
    let first = id_of(&post(&server, JOBS, key, &body).ok());
    server.execute("update kept_replies set status = null", &[]);
    let busy = post(&server, JOBS, key, &body);
    busy.error(409, "in_progress");
    assert_eq!(busy.header("retry-after"), Some("1"));
    server.execute("update kept_replies set status = 200", &[]);
    assert_eq!(id_of(&post(&server, JOBS, key, &body).ok()), first);
    // After a day the key is forgotten; after a restart nobody works on what was begun.
    server.execute("update kept_replies set created_at = created_at - 90000", &[]);
    assert_ne!(id_of(&post(&server, JOBS, key, &body).ok()), first);
    server.execute("update kept_replies set status = null", &[]);
    let server = Server::on(server.stop(), |_| {});
    post(&server, JOBS, key, &body).ok();
}

#[test]
fn a_job_whose_answer_was_lost_is_not_made_twice() {
    for (first, again) in [
        (("idempotency-key", "k"), ("idempotency-key", "k")),
        (("x-stainless-retry-count", "0"), ("x-stainless-retry-count", "1")),
    ] {
        let (server, body) = prepared();
        cut(&server, first, &body);
        let found = ids(&server.get(JOBS).ok());
        wait_until("the first request is done with", || post(&server, JOBS, again, &body).status == 200);
        assert_eq!([id_of(&post(&server, JOBS, again, &body).ok())].as_slice(), found, "{again:?}");
        assert_eq!(n_jobs(&server), 1);
    }
}

#[test]
fn an_sdk_that_does_not_repeat_itself_makes_as_many_jobs_as_it_asks_for() {
    let (server, body) = prepared();
    let (first, again) = (("x-stainless-retry-count", "0"), ("x-stainless-retry-count", "1"));
    let one = id_of(&post(&server, JOBS, first, &body).ok());
    let two = id_of(&post(&server, JOBS, first, &body).ok());
    assert_ne!(one, two);
    assert_eq!(id_of(&post(&server, JOBS, again, &body).ok()), two);
    // Nothing was heard of it before, or too long ago: it is made.
    let mut other = body.clone();
    other["seed"] = json!(5);
    post(&server, JOBS, again, &other).ok();
    server.execute("update kept_replies set created_at = created_at - 1000", &[]);
    post(&server, JOBS, again, &body).ok();
    assert_eq!(n_jobs(&server), 4);
}

#[test]
fn what_openai_has_and_this_server_has_not_says_what_to_do() {
    let server = Server::start();
    for (path, word) in [
        ("/v1/fine_tuning/checkpoints/ft:a/b:ckpt-step-1/permissions", "/sharing"),
        ("/v1/fine_tuning/alpha/graders/run", "preference pairs"),
        ("/v1/chat/completions", "vLLM"),
    ] {
        let said = server.post(path, &json!({})).error(404, "route_not_found");
        assert!(said["detail"].as_str().expect("text").contains(word), "{said}");
    }
}
