//! `/`, `/healthz`, `/readyz`, `/openapi.json`.

use crate::support::Server;

#[test]
fn the_server_says_what_it_is_and_that_it_lives() {
    let server = Server::start();
    assert_eq!(server.get("/").ok()["name"], "mrpo");
    assert_eq!(server.get("/healthz").ok()["status"], "ok");
    assert_eq!(server.get("/openapi.json").body, mrpo::http::document().as_bytes());
}

#[test]
fn the_document_is_shown_as_a_page_that_asks_nobody_else() {
    let server = Server::start();
    let page = server.get("/docs");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(String::from_utf8_lossy(&page.body).contains("/openapi.json"));
}

#[test]
fn it_is_ready_while_its_worker_lives_and_its_disk_can_be_written() {
    let server = Server::start();
    assert_eq!(server.get("/readyz").ok()["status"], "ok");
    server.set_worker_alive(false);
    let body = server.get("/readyz").error(503, "unready");
    assert!(body["detail"].as_str().expect("text").contains("worker"));
    server.set_worker_alive(true);
    std::fs::remove_dir(server.data_dir().join("tmp")).expect("empty: a probe leaves nothing");
    let body = server.get("/readyz").error(503, "unready");
    assert!(body["detail"].as_str().expect("text").contains("data directory"));
}
