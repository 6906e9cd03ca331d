//! Asking the server: one request at a time, with a limit on its time, and again where it may help.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use serde_json::{Value, json};
use ureq::{
    Agent, Body,
    http::{Response, header::RETRY_AFTER},
};

use super::answer::{self, Tokens};
use crate::domain::RemoteDialect;

/// The longest first pause before another attempt, and at least half of it, by chance; each one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause, also where the server asks for more.
const MAX_PAUSE: Duration = Duration::from_mins(2);
/// How often it is looked whether one should stop, in a pause.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// The largest answer: some kilobytes per token.
const MAX_ANSWER_BYTES: u64 = 256 << 20;
/// How much of what a server says of an error is passed on.
const MAX_SAID_CHARS: usize = 200;

/// How patient a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long one request may take.
    pub timeout: Duration,
    /// How often one is sent at most.
    pub n_attempts: u32,
}

/// A model on another server. Not to be printed: it holds the key.
pub struct Remote {
    agent: Agent,
    url: String,
    model: String,
    key: Option<String>,
    limits: Limits,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// It was told to stop asking.
    #[error("stopped")]
    Stopped,
    /// The server does not answer, not in time, or not now.
    #[error("{0}")]
    Unavailable(String),
    /// The server answers, and not what is needed; it will not next time either.
    #[error("{0}")]
    Unfit(String),
}

/// One attempt's failure.
enum Attempt {
    /// Another attempt may do better; after this time, if the server says one.
    Again(String, Option<Duration>),
    Never(String),
}

impl Remote {
    /// A client of the model `model` at `url`. The key is sent with every request and stands in no message.
    pub fn new(url: &str, model: &str, key: Option<String>, limits: Limits) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // Only the address that was allowed is called: no redirect, no proxy of the environment.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_global(Some(limits.timeout))
            .build()
            .new_agent();
        Self { agent, url: url.to_owned(), model: model.to_owned(), key, limits }
    }

    /// The model's name there.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The names of the models there, where the server tells them.
    pub fn models(&self, should_stop: &dyn Fn() -> bool) -> Result<Option<Vec<String>>, RemoteError> {
        let list = self.patiently(should_stop, || {
            let request = self.agent.get(format!("{}/models", self.url));
            match self.call(|| self.authorized(request.header("accept", "application/json")).call()) {
                Err(Attempt::Never(_)) => Ok(Value::Null), // some have no such list
                other => other,
            }
        })?;
        let names = list["data"].as_array().map(|models| {
            models.iter().filter_map(|model| model["id"].as_str().map(str::to_owned)).collect::<Vec<_>>()
        });
        Ok(names.filter(|names| !names.is_empty()))
    }

    /// The server's tokens of a text.
    pub fn tokens(
        &self,
        text: &str,
        dialect: RemoteDialect,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<Tokens, RemoteError> {
        // One new token, not none: llama-cpp-python takes 0 for "as many as fit".
        let mut body = json!({"model": self.model, "prompt": text, "max_tokens": 1, "temperature": 0, "logprobs": 1});
        match dialect {
            RemoteDialect::Echo => body["echo"] = json!(true),
            RemoteDialect::PromptLogprobs => body["prompt_logprobs"] = json!(1),
        }
        let answer = self.patiently(should_stop, || {
            let request = self.agent.post(format!("{}/completions", self.url));
            self.call(|| self.authorized(request).send_json(&body))
        })?;
        answer::read(answer, dialect, text).map_err(RemoteError::Unfit)
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        }
    }

    /// Attempts until one succeeds, none can, or there were too many.
    fn patiently(
        &self,
        should_stop: &dyn Fn() -> bool,
        attempt: impl Fn() -> Result<Value, Attempt>,
    ) -> Result<Value, RemoteError> {
        for n_failed in 1.. {
            if should_stop() {
                return Err(RemoteError::Stopped);
            }
            match attempt() {
                Ok(answer) => return Ok(answer),
                Err(Attempt::Never(why)) => return Err(RemoteError::Unfit(why)),
                Err(Attempt::Again(why, _)) if n_failed >= self.limits.n_attempts => {
                    return Err(RemoteError::Unavailable(format!("{why}; given up after {n_failed} attempts")));
                }
                Err(Attempt::Again(_, asked)) => wait(pause(n_failed, asked), should_stop),
            }
        }
        unreachable!("attempts have an end")
    }

    fn call(&self, send: impl FnOnce() -> Result<Response<Body>, ureq::Error>) -> Result<Value, Attempt> {
        let mut response = send().map_err(|e| self.no_answer(&e))?;
        let status = response.status();
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        if status.is_success() {
            let body = body.map_err(|e| self.no_answer(&e))?;
            return serde_json::from_slice(&body)
                .map_err(|_| Attempt::Never(format!("{} answers with something that is not JSON", self.url)));
        }
        let said = self.said(&body.unwrap_or_default());
        let why = format!("{} answers {}{said}", self.url, status.as_u16());
        Err(match status.as_u16() {
            // Asked too often or too fast, or the server's own trouble.
            408 | 425 | 429 | 500..=599 => Attempt::Again(why, asked.map(Duration::from_secs)),
            401 | 403 => Attempt::Never(format!(
                "{why}: it wants a key, or another one: set MRPO_REMOTE_KEY_<ID> for the server (docs/references.md)"
            )),
            300..=399 => Attempt::Never(format!("{why}: it sends elsewhere, which is not followed")),
            _ => Attempt::Never(why),
        })
    }

    fn no_answer(&self, error: &ureq::Error) -> Attempt {
        let why = match error {
            ureq::Error::Timeout(_) => format!("no answer within {} s", self.limits.timeout.as_secs_f32()),
            ureq::Error::HostNotFound => "there is no such host".to_owned(),
            other => other.to_string(),
        };
        Attempt::Again(format!("{} cannot be asked: {why}", self.url), None)
    }

    /// What the server says of an error, if it says it as OpenAI does; never the key.
    fn said(&self, body: &[u8]) -> String {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let said = [&body["error"]["message"], &body["message"], &body["detail"]].into_iter().find_map(Value::as_str);
        let Some(said) = said else { return String::new() };
        let said = match self.key.as_deref().filter(|key| !key.is_empty()) {
            Some(key) => said.replace(key, "***"),
            None => said.to_owned(),
        };
        format!(" ({})", said.chars().filter(|c| !c.is_control()).take(MAX_SAID_CHARS).collect::<String>())
    }
}

/// How long to wait after so many failures: what the server asked for, else longer each time, by chance so that those who failed
/// together do not come back together.
fn pause(n_failed: u32, asked: Option<Duration>) -> Duration {
    let pause = asked.unwrap_or_else(|| {
        let longest = FIRST_PAUSE.saturating_mul(1 << (n_failed - 1).min(16));
        let chance = RandomState::new().hash_one(n_failed) as f64 / u64::MAX as f64;
        longest.mul_f64(0.5 + 0.5 * chance)
    });
    pause.min(MAX_PAUSE)
}

fn wait(pause: Duration, should_stop: &dyn Fn() -> bool) {
    let mut left = pause;
    while !left.is_zero() && !should_stop() {
        let step = left.min(BETWEEN_LOOKS);
        std::thread::sleep(step);
        left -= step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_and_the_server_s_word_counts() {
        for n_failed in 1..30 {
            let found = pause(n_failed, None);
            let longest = FIRST_PAUSE.saturating_mul(1 << (n_failed - 1).min(16)).min(MAX_PAUSE);
            assert!(found <= longest && found >= longest / 2, "{n_failed}: {found:?}");
        }
        assert_eq!(pause(9, Some(Duration::from_secs(3))), Duration::from_secs(3));
        assert_eq!(pause(1, Some(Duration::from_hours(24))), MAX_PAUSE);
    }

    #[test]
    fn a_key_stands_in_no_message() {
        let limits = Limits { timeout: Duration::from_secs(1), n_attempts: 1 };
        let remote = Remote::new("http://a/v1", "m", Some("sk-secret".into()), limits);
        let body = br#"{"error": {"message": "Incorrect API key provided: sk-secret\n."}}"#;
        assert_eq!(remote.said(body), " (Incorrect API key provided: ***.)");
        assert_eq!(remote.said(b"<html>"), "");
    }
}
