//! Whether a server gives log-probabilities of given text at all, how, and whether they are those of that text.

use super::{Remote, RemoteError};
use crate::domain::RemoteDialect;

/// A token is given the same log-probability where the server writes it and where it reads it; servers that compute in batches
/// round differently, one that tells its numbers a token too late is off by whole nats.
const MAX_DIFFERENCE: f64 = 0.25;

/// What both signs of it mean. Seen at llama-cpp-python 0.3.36.
const SHIFTED: &str = "its numbers are not those of the text; some servers do so where a text does not begin with the token that \
                       begins texts: name a `tokenizer` whose template writes it";

/// Finds out how the server is to be asked, with prompts as they will be sent.
///
/// The server goes on with a prompt by one token and says how likely that was. Then it is given the same text with that token
/// at its end: what it says of it now must be the same. Some servers tell the numbers of the wrong tokens, depending on how the
/// text begins, and nothing else would show it.
pub fn probe(
    remote: &Remote,
    prompts: &[String],
    should_stop: &dyn Fn() -> bool,
) -> Result<RemoteDialect, RemoteError> {
    if let Some(names) = remote.models(should_stop)?
        && !names.iter().any(|name| name == remote.model())
    {
        let shown = names.iter().take(10).map(String::as_str).collect::<Vec<_>>().join("', '");
        return Err(RemoteError::Unfit(format!("the server has no model '{}'; it has '{shown}'", remote.model())));
    }
    let mut reasons = Vec::new();
    for (dialect, how) in [(RemoteDialect::Echo, "echo"), (RemoteDialect::PromptLogprobs, "prompt_logprobs")] {
        match check(remote, dialect, prompts, should_stop) {
            Ok(()) => return Ok(dialect),
            Err(RemoteError::Unfit(why)) => reasons.push(format!("asked with {how}, {why}")),
            Err(other) => return Err(other),
        }
    }
    Err(RemoteError::Unfit(format!(
        "the server does not tell the log-probabilities of given text, so it cannot be a reference: {} (vLLM can, and \
         llama-cpp-python with --logits_all true; chat APIs cannot)",
        reasons.join("; ")
    )))
}

fn check(
    remote: &Remote,
    dialect: RemoteDialect,
    prompts: &[String],
    should_stop: &dyn Fn() -> bool,
) -> Result<(), RemoteError> {
    for prompt in prompts {
        let read = remote.tokens(prompt, dialect, should_stop)?;
        if read.len() < 2 {
            return Err(RemoteError::Unfit(format!("it tells {} tokens of a whole prompt", read.len())));
        }
        // It ended instead of going on, or its token is no text of its own: the next prompt may do.
        let Some((next, written)) = read.next().filter(|(text, _)| !text.is_empty()) else { continue };
        if let Some(text) = read.written().filter(|text| *text != next) {
            return Err(RemoteError::Unfit(format!(
                "it goes on with '{text}' and tells the number of '{next}': {SHIFTED}"
            )));
        }
        let again = remote.tokens(&format!("{prompt}{next}"), dialect, should_stop)?;
        if again.len() != read.len() + 1 {
            continue;
        }
        let difference = again.last().map(|(_, read)| (read - written).abs());
        return match difference {
            Some(difference) if difference <= MAX_DIFFERENCE => Ok(()),
            found => Err(RemoteError::Unfit(format!(
                "of a token it had given {written:.2} it says {} when it reads it: {SHIFTED}",
                found.map_or("nothing".to_owned(), |d| format!("{d:.2} more or less")),
            ))),
        };
    }
    Err(RemoteError::Unfit("it goes on with none of the prompts by a token that is one when it is read again".into()))
}
