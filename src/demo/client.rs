//! A plain client of the server's REST interface that remembers the curl line of every request that changed something.

use std::{cell::RefCell, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use ureq::{Agent, Body, http::Response, unversioned::multipart::Form};

use super::wire::File;

/// How long one request may take. No request waits for training.
const REQUEST_LIMIT: Duration = Duration::from_mins(1);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// A client of one server.
pub(super) struct Client {
    agent: Agent,
    base: String,
    curl: RefCell<Vec<String>>,
}

/// The body of an answer that is not a success, as far as it is understood here.
#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    message: String,
    code: Option<String>,
}

impl Client {
    /// A client of the server at `base`, `http://HOST:PORT`.
    pub(super) fn new(base: &str) -> Self {
        let agent = Agent::config_builder()
            // An error's body says what is wrong, so it is read like any other.
            .http_status_as_error(false)
            // The server is on this machine: a proxy from the environment would not find it.
            .proxy(None)
            .timeout_global(Some(REQUEST_LIMIT))
            .build()
            .new_agent();
        Self { agent, base: base.to_owned(), curl: RefCell::default() }
    }

    /// Whether the server takes requests.
    pub(super) fn is_ready(&self) -> bool {
        self.agent.get(self.url("/readyz")).call().is_ok_and(|answer| answer.status().is_success())
    }

    /// `GET path`.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.find(path)?.with_context(|| format!("GET {path}: the server does not know it"))
    }

    /// `GET path`, where there may be nothing.
    pub(super) fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>> {
        let answer = self.agent.get(self.url(path)).call().with_context(|| format!("GET {path}"))?;
        if answer.status() == 404 {
            return Ok(None);
        }
        read(answer).map(Some).with_context(|| format!("GET {path}"))
    }

    /// `POST path` with a JSON body or none.
    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: Option<&Value>) -> Result<T> {
        let request = self.agent.post(self.url(path));
        let (answer, data) = match body {
            Some(body) => (request.send_json(body), format!(" --json {}", quoted(&body.to_string()))),
            None => (request.send_empty(), " -X POST".to_owned()),
        };
        self.curl.borrow_mut().push(format!("curl $MRPO{path}{data}"));
        answer.map_err(Into::into).and_then(read).with_context(|| format!("POST {path}"))
    }

    /// `DELETE path`.
    pub(super) fn delete(&self, path: &str) -> Result<()> {
        let answer = self.agent.delete(self.url(path)).call().with_context(|| format!("DELETE {path}"))?;
        read::<Value>(answer).map(drop).with_context(|| format!("DELETE {path}"))
    }

    /// Uploads a file of preference pairs.
    pub(super) fn upload(&self, path: &Path) -> Result<File> {
        let form = Form::new().text("purpose", "fine-tune").file("file", path)?;
        self.curl.borrow_mut().push(format!(
            "curl $MRPO/v1/files -F purpose=fine-tune -F {}",
            quoted(&format!("file=@{}", path.display()))
        ));
        let answer = self.agent.post(self.url("/v1/files")).send(form);
        answer.map_err(Into::into).and_then(read).with_context(|| format!("cannot upload {}", path.display()))
    }

    /// What has been asked of the server so far, as lines for a shell.
    pub(super) fn curl_lines(&self) -> Vec<String> {
        self.curl.borrow().clone()
    }

    /// Drops the newest line: what it did came to nothing.
    pub(super) fn forget_last(&self) {
        self.curl.borrow_mut().pop();
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

/// Reads a successful answer, or turns the server's own words into an error.
fn read<T: DeserializeOwned>(mut answer: Response<Body>) -> Result<T> {
    let status = answer.status();
    let body = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec()?;
    if !status.is_success() {
        bail!("{}", error_text(status.as_u16(), &body));
    }
    serde_json::from_slice(&body).context("the answer is not what this version of the demo expects")
}

fn error_text(status: u16, body: &[u8]) -> String {
    match serde_json::from_slice(body) {
        Ok(ErrorBody { error: ErrorDetail { message, code: Some(code) } }) => format!("{message} ({status} {code})"),
        Ok(ErrorBody { error: ErrorDetail { message, code: None } }) => format!("{message} ({status})"),
        Err(_) => format!("the server answered {status} without a reason"),
    }
}

/// A text as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_a_quoted_text_as_one_word() {
        for text in ["file=@/tmp/train.jsonl", r#"{"name":"it's $HOME"}"#, "", "a b"] {
            let line = format!("printf %s {}", quoted(text));
            let shell = std::process::Command::new("sh").arg("-c").arg(line).output().expect("a shell");
            assert_eq!(String::from_utf8(shell.stdout).expect("text"), text);
        }
    }

    #[test]
    fn an_error_is_the_servers_own_words() {
        let body = br#"{"error":{"message":"no such model","type":"x","param":null,"code":"model_not_found"}}"#;
        assert_eq!(error_text(404, body), "no such model (404 model_not_found)");
        assert_eq!(error_text(502, b"<html>"), "the server answered 502 without a reason");
    }
}
