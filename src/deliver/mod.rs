//! One request to one webhook: signed, within limits, and what became of it. It knows nothing of rows or jobs.

mod signature;

use std::{io::ErrorKind, time::Duration};

use ureq::{Agent, Timeout, http::header::RETRY_AFTER};

use crate::domain::{Attempt, DueDelivery};

/// How long it may take to reach the webhook.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long everything may take together.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How much of an answer's body is read, so that whoever writes one is not cut off. Nothing of it is kept.
const MAX_ANSWER_BYTES: u64 = 4 << 10;

/// What makes requests; a clone is another handle to the same.
#[derive(Debug, Clone)]
pub struct Client(Agent);

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// One that calls the address it is given and no other: no redirect, no proxy of the environment.
    pub fn new() -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(TIMEOUT))
            // Jobs end rarely: a connection that waits for the next one is in the way.
            .max_idle_connections(0)
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Self(agent)
    }

    /// Sends it, signed as of `now`, in Unix seconds. Blocks, for fifteen seconds at most.
    pub fn send(&self, due: &DueDelivery, now: i64) -> Attempt {
        let body = due.event.body();
        let request = self.0.post(due.url.as_str());
        let request = request.header("content-type", "application/json").header("webhook-id", due.event.id.as_str());
        let request = request
            .header("webhook-timestamp", now.to_string())
            .header("webhook-signature", signature::header(due, now, &body));
        let mut response = match request.send(&body) {
            Ok(response) => response,
            Err(e) => return Attempt::unanswered(in_words(&e)),
        };
        // Whatever goes wrong from here on, the answer's status is known, and it is what counts.
        let _ = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        let status = response.status();
        let error = match status.as_u16() {
            200..=299 => None,
            code @ 300..=399 => Some(format!("it answers {code}: redirects are not followed, give the last address")),
            code => Some(format!("it answers {code}")),
        };
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Attempt { status_code: Some(status.as_u16()), error, asked_s: asked }
    }
}

/// Why there is no answer. The address is known to whoever reads it, and stands in no message.
fn in_words(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            format!("it cannot be reached within {} s", CONNECT_TIMEOUT.as_secs())
        }
        ureq::Error::Timeout(_) => format!("there is no answer within {} s", TIMEOUT.as_secs()),
        ureq::Error::HostNotFound => "its name cannot be resolved".to_owned(),
        ureq::Error::Io(e) if e.kind() == ErrorKind::InvalidData => not_tls(&e.to_string()),
        ureq::Error::Io(e) => format!("it cannot be reached: {}", e.kind()),
        ureq::Error::ConnectionFailed => "it cannot be reached".to_owned(),
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => "its certificate is not accepted".to_owned(),
        _ => "its answer is not HTTP".to_owned(),
    }
}

/// What the TLS library says comes as an error of I/O.
fn not_tls(said: &str) -> String {
    match said.strip_prefix("invalid peer certificate: ") {
        Some(why) => format!("its certificate is not accepted: {why}"),
        None => "it does not speak TLS: is it http://?".to_owned(),
    }
}
