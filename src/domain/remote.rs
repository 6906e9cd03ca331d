//! References on other servers.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{HttpAddress, InvalidAddress, ModelId, ModelLocation};

/// A model behind an OpenAI-compatible completions API. Written `URL#MODEL`, or `URL#MODEL&tokenizer=ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteModel {
    /// Where the API begins, `http://HOST[:PORT]/v1`; without a last slash.
    pub url: HttpAddress,
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
        let url: HttpAddress = url.trim_end_matches('/').parse().map_err(|InvalidAddress(why)| why)?;
        Ok(Self { url, model: model.to_owned(), tokenizer })
    }
}

impl fmt::Display for RemoteModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.url, self.model)?;
        self.tokenizer.as_ref().map_or(Ok(()), |id| write!(f, "&tokenizer={id}"))
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
            "http://user:secret@a/v1#x",
            "http://a/v1?key=secret#x",
            "http://a/v1#x y",
            "http://a/v1#x&tokenizer=a/b",
        ] {
            assert!(text.parse::<RemoteModel>().is_err(), "{text}");
        }
    }
}
