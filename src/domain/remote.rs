//! References on other servers: their addresses, and which the operator allows.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{ModelId, ModelLocation};

/// A model behind an OpenAI-compatible completions API. Written `URL#MODEL`, or `URL#MODEL&tokenizer=ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteModel {
    /// Where the API begins, `http://HOST[:PORT]/v1`; without a last slash.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// The registered model whose chat template renders the prompts; without one the plain format is used.
    pub tokenizer: Option<ModelId>,
}

/// How a server tells the log-probabilities of given text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoteDialect {
    /// `echo` with `logprobs`, as OpenAI's completions had it.
    Echo,
    /// vLLM's `prompt_logprobs`.
    PromptLogprobs,
}

/// What a run needs to know of a remote reference; the file a registration writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteRecord {
    /// Where the API begins.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// How it tells log-probabilities.
    pub dialect: RemoteDialect,
    /// Whose template renders the prompts.
    pub tokenizer: Option<RemoteTokenizer>,
}

/// The registered model that renders a remote reference's prompts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteTokenizer {
    /// Digest of its files.
    pub digest: String,
    /// Where they lie.
    pub location: ModelLocation,
}

impl RemoteModel {
    /// Host and port as they stand in the address.
    fn authority(&self) -> &str {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }
}

impl FromStr for RemoteModel {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (url, rest) = text.split_once('#').ok_or("the model's name (#MODEL) is missing")?;
        let (model, tokenizer) = match rest.split_once("&tokenizer=") {
            None => (rest, None),
            Some((model, id)) => (model, Some(id.parse().map_err(|_| "the tokenizer is no model's id")?)),
        };
        if model.is_empty() || model.len() > 200 || !model.chars().all(|c| c.is_ascii_graphic() && c != '&' && c != '#')
        {
            return Err("the model's name has characters it cannot have, or none");
        }
        let url = url.trim_end_matches('/');
        let address = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let address = address.ok_or("the address begins with http:// or https://")?;
        let (authority, path) = address.split_once('/').unwrap_or((address, ""));
        // No user or password (they would stand in the database and in answers), no query, nothing percent-encoded.
        let is_authority = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
        if authority.is_empty() || authority.starts_with(':') || !authority.chars().all(is_authority) {
            return Err("the address is http://HOST[:PORT]/PATH, without a user or a password");
        }
        if !path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)) || path.contains("..") {
            return Err("the address is http://HOST[:PORT]/PATH, without a query");
        }
        Ok(Self { url: url.to_owned(), model: model.to_owned(), tokenizer })
    }
}

impl fmt::Display for RemoteModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.url, self.model)?;
        self.tokenizer.as_ref().map_or(Ok(()), |id| write!(f, "&tokenizer={id}"))
    }
}

/// The servers that may be asked: `HOST` for every port of it, `HOST:PORT` for one. Whoever can register a model could else
/// make this server call any address it reaches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowedRemotes(Vec<String>);

impl AllowedRemotes {
    /// From what an operator wrote.
    pub fn new(hosts: impl IntoIterator<Item = String>) -> Self {
        Self(hosts.into_iter().map(|host| host.trim().to_ascii_lowercase()).filter(|host| !host.is_empty()).collect())
    }

    /// Whether the operator has allowed this one. The name counts as it is written; what it resolves to is the operator's care.
    pub fn allow(&self, remote: &RemoteModel) -> bool {
        let authority = remote.authority().to_ascii_lowercase();
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let (host, with_port) = if has_port {
            (authority.rsplit_once(':').map_or("", |(host, _)| host).to_owned(), authority)
        } else {
            let port = if remote.url.starts_with("https:") { 443 } else { 80 };
            (authority.clone(), format!("{authority}:{port}"))
        };
        self.0.iter().any(|allowed| *allowed == host || *allowed == with_port)
    }

    /// What to say where one is not allowed.
    pub fn refusal(remote: &RemoteModel) -> String {
        format!(
            "this server may not call {}: its operator allows servers by name, mrpo serve --allow-remote {}",
            remote.authority(),
            remote.authority()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(text: &str) -> RemoteModel {
        text.parse().expect(text)
    }

    #[test]
    fn an_address_is_plain_and_written_as_it_was_read() {
        for text in [
            "http://127.0.0.1:8000/v1#Qwen/Qwen2.5-0.5B",
            "https://models.example.org/team/v1#judge&tokenizer=smollm2",
            "http://[::1]:8000/v1#x",
        ] {
            assert_eq!(remote(text).to_string(), text);
        }
        for text in [
            "http://a/v1",
            "http://a/v1#",
            "file:///etc/passwd#x",
            "ftp://a/v1#x",
            "http://user:secret@a/v1#x",
            "http://a/v1?key=secret#x",
            "http:///v1#x",
            "http://:80/v1#x",
            "http://a/../v1#x",
            "http://a/%2e%2e/v1#x",
            "http://a b/v1#x",
            "http://a/v1#x y",
            "http://a/v1#x&tokenizer=a/b",
        ] {
            assert!(text.parse::<RemoteModel>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_is_allowed_is_called() {
        let allowed = AllowedRemotes::new(["Models.example.org".into(), "127.0.0.1:8000".into(), "b:443".into()]);
        for text in ["http://models.EXAMPLE.org:1/v1#x", "http://127.0.0.1:8000/v1#x", "https://b/v1#x"] {
            assert!(allowed.allow(&remote(text)), "{text}");
        }
        let others =
            ["http://127.0.0.1/v1#x", "http://127.0.0.1:80001/v1#x", "http://b/v1#x", "http://example.org/v1#x"];
        for text in others.into_iter().chain(["http://models.example.org.evil.net/v1#x", "http://[::1]:8000/v1#x"]) {
            assert!(!allowed.allow(&remote(text)), "{text}");
        }
        assert!(!AllowedRemotes::default().allow(&remote("http://127.0.0.1:8000/v1#x")));
    }
}
