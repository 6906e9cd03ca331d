//! Streams: what they replay, what they tell as it happens, how they end, and who may open them.

use std::{io::Read, net::TcpStream};

use serde_json::{Value, json};
use ureq::http::Method;

use crate::{
    people::{Person, key, team, things_of},
    support::{Server, ids, wait_until},
};

/// An open stream and what has come so far. HTTP 1.0, so that the body is the bytes as they are.
struct Stream {
    socket: TcpStream,
    text: String,
}

/// One frame, taken apart.
#[derive(Debug, PartialEq)]
struct Frame {
    event: Option<String>,
    id: Option<String>,
    data: String,
}

impl Stream {
    fn open(server: &Server, path: &str, headers: &[(&str, &str)]) -> Self {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let socket = server.begin(format!("GET {path} HTTP/1.0\r\n{headers}\r\n").as_bytes());
        socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("timeout");
        Self { socket, text: String::new() }
    }

    /// Reads on until this has come.
    fn until(&mut self, what: &str) -> &mut Self {
        let mut bytes = [0; 4096];
        while !self.text.contains(what) {
            let n = self.socket.read(&mut bytes).expect("more");
            assert!(n > 0, "it ended before {what}: {}", self.text);
            self.text.push_str(std::str::from_utf8(&bytes[..n]).expect("ASCII"));
        }
        self
    }

    /// Reads to the end.
    fn rest(mut self) -> String {
        self.socket.read_to_string(&mut self.text).expect("an end");
        self.text
    }
}

fn frames(text: &str) -> Vec<Frame> {
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.0 200") && head.contains("content-type: text/event-stream"), "{head}");
    let of = |frame: &str, field: &str| {
        frame.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": ")).map(str::to_owned)
    };
    body.split("\n\n")
        .filter_map(|frame| Some(Frame { event: of(frame, "event"), id: of(frame, "id"), data: of(frame, "data")? }))
        .collect()
}

fn data(frame: &Frame) -> Value {
    serde_json::from_str(&frame.data).expect("JSON")
}

fn events_of(job: &str) -> String {
    format!("/v1/fine_tuning/jobs/{job}/events")
}

const SSE: (&str, &str) = ("accept", "text/event-stream");

/// The job among somebody's things.
fn job_of(person: &Person<'_>) -> String {
    let [.., job, _] = things_of(person);
    assert_eq!(job.0, "{job_id}");
    job.1
}

#[test]
fn a_stream_tells_what_was_then_what_comes_and_ends_with_the_job() {
    let server = Server::start();
    let job = server.add_job();
    let mut stream = Stream::open(&server, &events_of(&job), &[SSE]);
    stream.until("event: status");
    server.post_empty(&format!("/v1/fine_tuning/jobs/{job}/pause")).ok();
    stream.until("\"paused\",\"is_final\"");
    server.post_empty(&format!("/v1/fine_tuning/jobs/{job}/cancel")).ok();
    let frames = frames(&stream.rest());

    let listed = server.get(&events_of(&job)).ok();
    let told: Vec<_> = frames.iter().rev().filter_map(|f| f.id.clone()).collect();
    assert_eq!(told, ids(&listed));
    let events: Vec<_> = frames.iter().filter_map(|f| f.event.as_deref()).collect();
    assert_eq!(events, ["message", "message", "status", "message", "status", "message", "status"]);
    let mut newest = data(&frames[5]);
    assert_eq!((&newest["status"], &newest["job_id"]), (&json!("cancelled"), &json!(job)));
    newest.as_object_mut().expect("an object").retain(|key, _| key != "status" && key != "job_id");
    assert_eq!(newest, listed["data"][0]);
    let last = json!({"object": "fine_tuning.job.status", "job_id": job, "status": "cancelled", "is_final": true});
    assert_eq!(data(&frames[6]), last);
}

#[test]
fn who_comes_back_goes_on_after_what_they_have() {
    let server = Server::start();
    let job = server.add_job();
    server.post_empty(&format!("/v1/fine_tuning/jobs/{job}/cancel")).ok();
    let all = ids(&server.get(&events_of(&job)).ok());
    let told = |path: &str, headers: &[(&str, &str)]| -> Vec<String> {
        let text = Stream::open(&server, path, headers).rest();
        frames(&text).into_iter().rev().filter_map(|frame| frame.id).collect()
    };
    let path = events_of(&job);
    assert_eq!(told(&format!("{path}?stream=true"), &[]), all);
    assert_eq!(told(&format!("{path}?stream=true&after={}", all[2]), &[]), all[..2]);
    // The header is newer than the address a browser was given.
    assert_eq!(told(&format!("{path}?after={}", all[2]), &[SSE, ("last-event-id", &all[1])]), all[..1]);
    let done = server.get_with(&path, &[SSE, ("last-event-id", &all[0])]);
    assert_eq!((done.status, done.body.len()), (204, 0));

    let unknown = format!("ftevent-{:032}", 7);
    server.get(&format!("{path}?stream=true&after={unknown}")).error(400, "unknown_cursor");
    server.get_with(&path, &[SSE, ("last-event-id", "x")]).error(400, "unknown_cursor");
    server.get(&format!("{path}?stream=true&limit=3")).error(400, "invalid_query");
    server.get(&format!("{path}?format=openai")).error(400, "invalid_query");
    server.get(&format!("{path}?stream=false&token=x")).error(400, "invalid_query");
    server.get("/v1/events?stream=false").error(400, "invalid_query");
    server.get_with(&events_of(&format!("ftjob-{:032}", 7)), &[SSE]).error(404, "job_not_found");
}

#[test]
fn as_openai_had_it_there_are_events_then_done() {
    let server = Server::start();
    let job = server.add_job();
    server.post_empty(&format!("/v1/fine_tuning/jobs/{job}/cancel")).ok();
    let frames = frames(&Stream::open(&server, &format!("{}?stream=true&format=openai", events_of(&job)), &[]).rest());
    assert_eq!(frames.len(), 4);
    assert!(frames.iter().all(|frame| frame.event.is_none()));
    assert_eq!(data(&frames[0])["object"], "fine_tuning.job.event");
    assert_eq!(frames[3].data, "[DONE]");
}

#[test]
fn one_stream_has_all_jobs_that_one_may_see() {
    let server = Server::start();
    let [root, ana, bo] = team(&server);
    let job = job_of(&ana);
    let open = |person: &Person<'_>, query: &str| {
        let mut stream =
            Stream::open(&server, &format!("/v1/events{query}"), &[("authorization", &person.authorization)]);
        stream.until("retry:");
        stream
    };
    let [mut all, mut own, mut others] = [open(&root, ""), open(&ana, ""), open(&bo, "")];
    for stream in [&mut all, &mut own, &mut others] {
        stream.until("\n\n");
    }
    let of_bo = job_of(&bo);
    ana.post(&format!("/v1/fine_tuning/jobs/{job}/cancel"), &json!({})).ok();
    bo.post(&format!("/v1/fine_tuning/jobs/{of_bo}/cancel"), &json!({})).ok();
    let is_over = |job: &str| format!("\"job_id\":\"{job}\",\"status\":\"cancelled\",\"is_final\":true");
    all.until(&is_over(&job)).until(&is_over(&of_bo));
    own.until(&is_over(&job));
    others.until(&is_over(&of_bo));
    assert!(!own.text.contains(&of_bo) && !others.text.contains(&job));

    // What one may not see is nothing to go on after either.
    let newest = ids(&ana.get(&events_of(&job)).ok())[0].clone();
    bo.get(&format!("/v1/events?after={newest}")).error(400, "unknown_cursor");
    let oldest = ids(&ana.get(&events_of(&job)).ok()).pop().expect("an event");
    open(&ana, &format!("?after={oldest}")).until(&newest);
}

#[test]
fn a_page_opens_streams_with_a_token_and_nothing_else() {
    let server = Server::start();
    let [root, ana, bo] = team(&server);
    let job = job_of(&ana);
    let reader = key(&server, Some(&root), &json!({"user": "ana", "scope": "read"}));
    let made = reader.post("/v1/stream_tokens", &json!({})).ok();
    let token = made["token"].as_str().expect("a token").to_owned();
    assert_eq!(made["object"], "stream_token");

    let path = format!("{}?token={token}", events_of(&job));
    let mut stream = Stream::open(&server, &path, &[SSE]);
    stream.until("event: status");
    server.get_with(&path, &[("accept", "application/json")]).error(401, "unauthenticated");
    server.get(&format!("/v1/me?token={token}")).error(401, "unauthenticated");
    server.get_with("/v1/me", &[("authorization", &format!("Bearer {token}"))]).error(401, "unauthenticated");
    let of_bo = job_of(&bo);
    server.get_with(&format!("{}?token={token}", events_of(&of_bo)), &[SSE]).error(404, "job_not_found");
    server.get("/v1/events?token=mrpo_0").error(401, "unauthenticated");

    // The key goes, and with it what was opened in its name.
    root.send(Method::DELETE, &format!("/v1/api_keys/{}", reader.key_id), None).ok();
    assert!(!stream.rest().contains("\"is_final\":true"));
    server.get_with(&path, &[SSE]).error(401, "unauthenticated");
}

#[test]
fn a_stream_ends_when_its_job_is_no_longer_shared() {
    let server = Server::start();
    let [_, ana, bo] = team(&server);
    let job = job_of(&ana);
    let sharing = format!("/v1/fine_tuning/jobs/{job}/sharing");
    ana.post(&sharing, &json!({"shared": true})).ok();
    let mut stream = Stream::open(&server, &events_of(&job), &[SSE, ("authorization", &bo.authorization)]);
    stream.until("event: status");
    ana.post(&sharing, &json!({"shared": false})).ok();
    stream.rest();
}

#[test]
fn streams_are_counted_and_end_with_the_server() {
    let server = Server::with(|settings| settings.max_streams = 3);
    let [root, ana, bo] = team(&server);
    let open = |person: &Person<'_>| {
        let mut stream = Stream::open(&server, "/v1/events", &[("authorization", &person.authorization)]);
        stream.until("retry:");
        stream
    };
    let [first, second] = [open(&ana), open(&ana)];
    let refused = ana.get("/v1/events");
    refused.error(429, "too_many_streams");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let third = open(&bo);
    root.get("/v1/events").error(429, "too_many_streams");
    // Requests have places of their own.
    root.get("/v1/me").ok();
    drop(second);
    wait_until("a place is free", || {
        let mut stream = Stream::open(&server, "/v1/events", &[("authorization", &root.authorization)]);
        stream.until("\r\n\r\n").text.starts_with("HTTP/1.0 200")
    });
    let data_dir = server.stop();
    for stream in [first, third] {
        stream.rest();
    }
    drop(data_dir);
}

#[test]
fn streams_are_opened_where_no_request_finds_a_place() {
    let server = Server::with(|settings| settings.max_requests = 0);
    server.get("/v1/me").error(503, "overloaded");
    Stream::open(&server, "/v1/events", &[]).until("retry:");
}
