//! A server that webhooks are sent to, in this process: it notes what comes, and answers as it is told.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

/// What it does with a request; where it is told nothing, it answers 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A status, and lines of headers.
    Status(u16, &'static str),
    /// None, while it lives.
    Silence,
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("{name} is not in {:?}", self.headers))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// How many of its signatures are by this secret: worked out here from what came.
    pub(crate) fn n_signatures_by(&self, secret: &str) -> usize {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").expect("a secret")).expect("base64");
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any key");
        mac.update(
            format!("{}.{}.{}", self.header("webhook-id"), self.header("webhook-timestamp"), self.body).as_bytes(),
        );
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        self.header("webhook-signature").split(' ').filter(|signature| *signature == expected).count()
    }
}

#[derive(Debug, Default)]
struct State {
    replies: VecDeque<Reply>,
    received: Vec<Received>,
    /// Connections that wait for an answer; they end with it.
    silent: Vec<TcpStream>,
}

/// The server; its port is free again when the test's process ends.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// `HOST:PORT`.
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

impl Receiver {
    pub(crate) fn start(replies: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let state = Arc::new(Mutex::new(State { replies: replies.iter().copied().collect(), ..State::default() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that hangs up is its own affair.
                let _ = answer(stream, &shared);
            }
        });
        Self { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Everything that came, oldest first.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.lock().expect("held by nobody").received.clone()
    }

    /// Breaks off the connections that wait for an answer.
    pub(crate) fn hang_up(&self) {
        self.state.lock().expect("held by nobody").silent.clear();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.hang_up();
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut headers) = (String::new(), BTreeMap::new());
    reader.read_line(&mut line)?;
    assert!(line.starts_with("POST /hook HTTP/1.1"), "{line}");
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8(body).expect("text");
    let mut state = state.lock().expect("held by nobody");
    state.received.push(Received { headers, body });
    match state.replies.pop_front().unwrap_or(Reply::Status(200, "")) {
        Reply::Status(status, lines) => {
            write!(stream, "HTTP/1.1 {status} X\r\n{lines}content-length: 9\r\nconnection: close\r\n\r\nno secret")
        }
        Reply::Silence => {
            state.silent.push(stream);
            Ok(())
        }
    }
}
