//! A server with a certificate, configured by a file.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use crate::server::Server;

#[test]
fn a_server_with_a_certificate_is_spoken_to_in_tls_and_in_nothing_else() {
    let server = Server::start_with_tls();
    assert_eq!(server.get("/healthz").ok()["status"], "ok");

    let mut plain = TcpStream::connect(server.address()).expect("connected");
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    // An alert of TLS, or nothing: no answer of HTTP. How the connection ends does not matter.
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(server.get("/healthz").ok()["status"], "ok");
}
