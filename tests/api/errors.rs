//! Whatever goes wrong below the handlers is answered in the same shape.

use serde_json::json;
use ureq::http::Method;

use crate::support::Server;

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn what_is_not_there_and_what_is_not_allowed() {
    let server = Server::start();
    server.get("/v1/nothing").error(404, "route_not_found");
    server.get("/v1/fine_tuning/jobs/").error(404, "route_not_found");
    let answer = server.send(Method::PATCH, "/v1/files", &[JSON], Some(Vec::new()));
    answer.error(405, "method_not_allowed");
    assert_eq!(answer.header("allow").map(|a| a.contains("POST") && a.contains("GET")), Some(true));
    server.delete("/healthz").error(405, "method_not_allowed");
}

#[test]
fn an_address_that_cannot_be_read_names_nothing() {
    let server = Server::start();
    let answer = server.raw(b"GET /v1/models/%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("route_not_found"), "{answer}");
    server.get("/v1/models/a%00b").error(404, "model_not_found");
    server.get("/v1/models/%zz").error(404, "model_not_found");
    let body = server.get("/v1/models/").error(404, "route_not_found");
    assert!(body["detail"].as_str().expect("text").contains("slash at the end"), "{body}");
}

#[test]
fn a_parameter_stands_once() {
    let server = Server::start();
    server.get("/v1/files?limit=1&limit=2").error(400, "invalid_query");
    server.get("/v1/fine_tuning/jobs?limit=1&limit=2").error(400, "invalid_query");
    server.get("/v1/fine_tuning/jobs?metadata[a]=1&metadata[a]=2").error(400, "invalid_query");
    let many: String = (0..17).map(|i| format!("&metadata[k{i}]=1")).collect();
    server.get(&format!("/v1/fine_tuning/jobs?limit=1{many}")).error(400, "invalid_query");
}

#[test]
fn what_can_be_got_has_a_head() {
    let server = Server::start();
    for path in ["/", "/docs", "/healthz", "/openapi.json", "/metrics", "/v1/models", "/v1/queue"] {
        let (got, head) = (server.get(path), server.send(Method::HEAD, path, &[], None));
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-type"), got.header("content-type"), "{path}");
        assert!(head.header("x-request-id").is_some(), "{path}");
    }
    assert_eq!(server.send(Method::HEAD, "/v1/models/nobody", &[], None).status, 404);
}

#[test]
fn a_request_id_is_taken_over_or_made() {
    let server = Server::start();
    assert_eq!(server.get_with("/healthz", &[("x-request-id", "mine-1")]).header("x-request-id"), Some("mine-1"));
    assert!(server.get("/healthz").header("x-request-id").expect("an id").starts_with("req-"));
}

#[test]
fn a_body_that_is_not_json() {
    let server = Server::start();
    let send = |headers: &[(&str, &str)], body: &[u8]| {
        server.send(Method::POST, "/v1/reference_lists", headers, Some(body.to_vec()))
    };
    send(&[("content-type", "text/plain")], b"{}").error(415, "unsupported_media_type");
    send(&[("content-type", "application/x-www-form-urlencoded")], b"{}").error(415, "unsupported_media_type");
    let packed = send(&[JSON, ("content-encoding", "gzip")], b"\x1f\x8b").error(415, "unsupported_media_type");
    assert!(packed["detail"].as_str().expect("text").contains("Content-Encoding"), "{packed}");
    send(&[JSON], b"").error(400, "invalid_json");
    let body = send(&[JSON], b"{\"name\": \"x\",").error(400, "invalid_json");
    assert!(body["detail"].as_str().expect("text").contains("line 1 column 13"), "{body}");
    send(&[JSON], b"{\"name\":\"x\",\"references\":[]} {}").error(400, "invalid_json");
}

#[test]
fn a_body_of_other_types_is_pointed_at() {
    let server = Server::start();
    let post = |body| server.post("/v1/reference_lists", &body);
    let body = post(json!({"name": 1, "references": []})).error(400, "wrong_type");
    assert_eq!((&body["error"]["param"], &body["errors"][0]["pointer"]), (&json!("name"), &json!("/name")));
    assert!(body["detail"].as_str().expect("text").contains("expected a string"), "{body}");
    let body = post(json!({"name": "x", "references": [{"model": "a"}, {"model": "a/b"}]})).error(400, "invalid_value");
    assert_eq!(body["errors"][0]["pointer"], "/references/1/model");
    let body = post(json!({"name": "x", "references": [], "colour": "red"})).error(400, "unknown_field");
    assert!(body["detail"].as_str().expect("text").contains("colour"));
    post(json!({"name": "x"})).error(400, "missing_field");
    post(json!([1])).error(400, "wrong_type");
}

#[test]
fn a_json_body_has_a_largest_size() {
    let server = Server::start();
    let long = json!({"name": "x".repeat(1 << 20), "references": []});
    server.post("/v1/reference_lists", &long).error(413, "body_too_large");
    // The same without a length announced.
    let mut request =
        b"POST /v1/reference_lists HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
        transfer-encoding: chunked\r\n\r\n"
            .to_vec();
    request.extend_from_slice(format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.to_string().len()).as_bytes());
    let answer = server.raw(&request);
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
}

#[test]
fn a_query_that_is_not_valid_names_its_parameter() {
    let server = Server::start();
    for (query, param) in [("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit")] {
        let body = server.get(&format!("/v1/reference_lists?{query}")).error(400, "invalid_query");
        assert_eq!(body["error"]["param"], param, "{query}");
    }
    server.get("/v1/reference_lists?page=2").error(400, "invalid_query");
    server.get("/v1/files?limit=10001").error(400, "invalid_query");
    server.get("/v1/files?order=up").error(400, "invalid_query");
}

#[test]
fn too_many_requests_are_told_to_come_back() {
    let server = Server::with(|settings| settings.max_requests = 0);
    let answer = server.get("/healthz");
    answer.error(503, "overloaded");
    assert_eq!(answer.header("retry-after"), Some("1"));
}
