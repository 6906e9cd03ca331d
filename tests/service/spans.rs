//! Requests as spans, for a collector that speaks OTLP.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread::{self, JoinHandle},
};

use crate::server::Server;

/// Takes one POST. Its head and its body.
fn take_one(listener: TcpListener) -> JoinHandle<(String, Vec<u8>)> {
    let take = |stream: TcpStream| {
        let mut reader = BufReader::new(stream);
        let (mut head, mut n_bytes) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            let begin = head.len();
            assert!(reader.read_line(&mut head).expect("a head") > 0, "cut off: {head}");
            let line = head[begin..].to_ascii_lowercase();
            n_bytes = line.strip_prefix("content-length:").map_or(n_bytes, |n| n.trim().parse().expect("a number"));
        }
        let mut body = vec![0; n_bytes];
        reader.read_exact(&mut body).expect("a body");
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("answered");
        (head, body)
    };
    thread::spawn(move || take(listener.accept().expect("a connection").0))
}

#[test]
fn a_request_is_a_span_below_its_clients() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let collector = format!("http://{}", listener.local_addr().expect("bound"));
    let collected = take_one(listener);
    let mut server = Server::start_with(&["--otlp-endpoint", &collector]);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    // It asks not to be recorded (00), which is not its own to say.
    server
        .get_with("/v1/files/file-none", "traceparent", &format!("00-{trace}-b7ad6b7169203331-00"))
        .error(404, "file_not_found");
    // What has not been sent is sent at the end.
    server.terminate();
    let (head, body) = collected.join().expect("it collects");
    assert!(head.starts_with("POST /v1/traces"), "{head}");
    let trace: Vec<u8> =
        (0..16).map(|i| u8::from_str_radix(&trace[2 * i..2 * i + 2], 16).expect("hexadecimal")).collect();
    for part in [trace.as_slice(), b"GET /v1/files/{file_id}", b"http.response.status_code", b"service.name", b"mrpo"] {
        assert!(body.windows(part.len()).any(|window| window == part), "{}", String::from_utf8_lossy(&body));
    }
}
