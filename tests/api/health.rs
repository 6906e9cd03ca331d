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
