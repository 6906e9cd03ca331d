//! A completions server in this process: each character is a token, likely by the one before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};

/// What the server always goes on with.
const NEXT: char = 'z';
/// How likely that is, after whatever.
const NEXT_LOGP: f64 = -0.125;

/// How a server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// As it should.
    Right,
    /// As vLLM with `prompt_logprobs`; `echo` is not known to it.
    PromptLogprobs,
    /// It tells each token the log-probability of the one after it, and nothing of what it writes: as llama-cpp-python does of
    /// texts that do not begin with its first token.
    Shifted,
    /// It tells each token the log-probability of the one after it.
    Garbled,
    /// It tells the log-probabilities of what it has written only.
    NoEcho,
    /// It tells the prompt's tokens only, of whatever text.
    TooFew,
    /// Every so many requests it is too slow; each text once at most, so that another attempt helps.
    SlowEvery(usize),
    /// The same, but it has too much to do, and says for how long: a second.
    BusyEvery(usize),
    /// The same, but it breaks the connection.
    BreaksEvery(usize),
    /// From this request on it never answers.
    HangsFrom(usize),
    /// It has failed for good.
    Fails,
    /// It sends elsewhere.
    Redirects,
}

impl Behaviour {
    /// Whether it is the turn of the request of this number.
    fn hits(self, n: usize) -> bool {
        matches!(self, Self::SlowEvery(every) | Self::BusyEvery(every) | Self::BreaksEvery(every) if n.is_multiple_of(every))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    /// How often each text was asked and answered.
    pub(crate) answered: BTreeMap<String, usize>,
    n_requests: usize,
    /// Texts that have had their bad luck.
    pub(crate) unlucky: BTreeSet<String>,
    pub(crate) keys: Vec<Option<String>>,
}

pub(crate) struct FakeServer {
    pub(crate) url: String,
    behaviour: Arc<Mutex<Behaviour>>,
    pub(crate) log: Arc<Mutex<Log>>,
}

impl FakeServer {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/v1", listener.local_addr().expect("bound"));
        let (behaviour, log) = (Arc::new(Mutex::new(behaviour)), Arc::new(Mutex::new(Log::default())));
        let (behaves, logs) = (behaviour.clone(), log.clone());
        // Ends with the test's process; a connection that breaks is the client's to notice.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (behaves, logs) = (behaves.clone(), logs.clone());
                std::thread::spawn(move || {
                    let behaviour = *behaves.lock().expect("held by nobody");
                    let _ = serve(stream, behaviour, &logs);
                });
            }
        });
        Self { url, behaviour, log }
    }

    /// Lets it answer so many requests more, and then none.
    pub(crate) fn hang_after(&self, n_more: usize) {
        let n_requests = self.log.lock().expect("held by nobody").n_requests;
        self.become_(Behaviour::HangsFrom(n_requests + n_more + 1));
    }

    pub(crate) fn become_(&self, behaviour: Behaviour) {
        *self.behaviour.lock().expect("held by nobody") = behaviour;
    }
}

/// The log-probability of each character, given the one before it.
pub(crate) fn logps(text: &str) -> Vec<f64> {
    let chars: Vec<char> = text.chars().collect();
    let of = |pair: &[char]| match pair[1] {
        NEXT => NEXT_LOGP,
        next => -0.5 - f64::from((pair[0] as u32 * 31 + next as u32 * 17) % 97) / 16.0,
    };
    chars.windows(2).map(of).collect()
}

fn serve(mut stream: TcpStream, behaviour: Behaviour, log: &Mutex<Log>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut lines = reader.by_ref().lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        let found = headers.iter().filter_map(|line| line.split_once(": "));
        found.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    };
    let mut body = vec![0; header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body)?;
    if request.starts_with("GET") {
        return answer(&mut stream, "200 OK", "", &json!({"object": "list", "data": [{"id": "fake"}]}));
    }
    let body: Value = serde_json::from_slice(&body)?;
    let text = body["prompt"].as_str().unwrap_or_default();
    let (n, is_unlucky) = {
        let mut log = log.lock().expect("held by nobody");
        log.n_requests += 1;
        log.keys.push(header("authorization"));
        let n = log.n_requests;
        (n, behaviour.hits(n) && log.unlucky.insert(text.to_owned()))
    };
    let busy = json!({"error": {"message": "too many requests", "type": "rate_limit"}});
    match behaviour {
        Behaviour::HangsFrom(first) if n >= first => std::thread::sleep(Duration::from_mins(5)),
        Behaviour::SlowEvery(_) if is_unlucky => std::thread::sleep(Duration::from_secs(4)),
        Behaviour::BusyEvery(_) if is_unlucky => {
            return answer(&mut stream, "429 Too Many Requests", "retry-after: 1\r\n", &busy);
        }
        Behaviour::BreaksEvery(_) if is_unlucky => return Ok(()),
        Behaviour::Fails => return answer(&mut stream, "503 Service Unavailable", "", &busy),
        Behaviour::Redirects => return answer(&mut stream, "307 Temporary Redirect", "location: /v2\r\n", &json!({})),
        _ => {}
    }
    *log.lock().expect("held by nobody").answered.entry(text.to_owned()).or_default() += 1;
    answer(&mut stream, "200 OK", "", &completion(text, &body, behaviour))
}

fn completion(text: &str, body: &Value, behaviour: Behaviour) -> Value {
    let mut tokens: Vec<String> = text.chars().map(String::from).collect();
    let mut of_tokens: Vec<Option<f64>> = std::iter::once(None).chain(logps(text).into_iter().map(Some)).collect();
    match behaviour {
        Behaviour::Shifted | Behaviour::Garbled => {
            of_tokens.remove(0);
            of_tokens.push(Some(-7.0));
        }
        Behaviour::TooFew => {
            let n = tokens.len().min(20);
            tokens.truncate(n);
            of_tokens.truncate(n);
        }
        _ => {}
    }
    let entry = |(token, logp): (&String, &Option<f64>)| {
        logp.map(|logp| json!({token: {"logprob": logp, "rank": 3}, "top": {"logprob": -0.01, "rank": 1}}))
    };
    let prompt_logprobs: Vec<_> = tokens.iter().zip(&of_tokens).map(entry).collect();
    let is_echo = !matches!(behaviour, Behaviour::NoEcho | Behaviour::PromptLogprobs) && body["echo"] == true;
    if !is_echo {
        tokens.clear();
        of_tokens.clear();
    }
    if behaviour != Behaviour::Shifted {
        tokens.push(NEXT.into());
        of_tokens.push(Some(NEXT_LOGP));
    }
    let whole = format!("{}{NEXT}", if is_echo { text } else { "" });
    let mut choice = json!({"index": 0, "text": whole, "logprobs": {"tokens": tokens, "token_logprobs": of_tokens}});
    if behaviour == Behaviour::PromptLogprobs && body["prompt_logprobs"].is_u64() {
        choice["prompt_logprobs"] = json!(prompt_logprobs);
    } else if behaviour == Behaviour::PromptLogprobs {
        choice["logprobs"] = json!(null);
    }
    json!({"object": "text_completion", "choices": [choice], "usage": {"completion_tokens": 1}})
}

fn answer(stream: &mut TcpStream, status: &str, headers: &str, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
