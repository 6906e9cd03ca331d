//! What a completions API answers, as far as it tells the tokens of the text it was given.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

use crate::domain::RemoteDialect;

/// The server's tokens of a text, each with its log-probability given those before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokens {
    /// What names each token (its text, or its id) and its log-probability; the first has none.
    given: Vec<(String, Option<f64>)>,
    /// What the server would go on with, and the log-probability it gives to it.
    next: Option<(String, f64)>,
    /// The same as its answer's text has it, where that repeats the text before.
    written: Option<String>,
}

impl Tokens {
    /// How many there are of the text.
    pub fn len(&self) -> usize {
        self.given.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// What the server would go on with, and the log-probability it gives to it.
    pub fn next(&self) -> Option<(&str, f64)> {
        self.next.as_ref().map(|(text, logp)| (text.as_str(), *logp))
    }

    /// The text it goes on with, as the answer's own text has it.
    pub fn written(&self) -> Option<&str> {
        self.written.as_deref()
    }

    /// The last token of the text and its log-probability.
    pub fn last(&self) -> Option<(&str, f64)> {
        let (text, logp) = self.given.last()?;
        Some((text, (*logp)?))
    }
}

/// Log-probability and number of tokens of what `whole` has after `start`.
///
/// # Errors
/// In words, if the one is not the beginning of the other, or a number is missing.
pub fn between(start: &Tokens, whole: &Tokens) -> Result<(f64, f64), String> {
    let n_common = start.given.iter().zip(&whole.given).take_while(|(a, b)| a.0 == b.0).count();
    // A token across the seam changes the last few of the prompt's, never all of them.
    if n_common == 0 {
        return Err("it tells other tokens of the prompt alone than of the prompt with a completion".into());
    }
    if whole.given.len() <= n_common {
        return Err(format!("it tells {} tokens, no more than the prompt alone has", whole.given.len()));
    }
    let sum = |tokens: &[(String, Option<f64>)]| tokens.iter().map(|(_, logp)| *logp).sum::<Option<f64>>();
    let (of_start, of_whole) = (sum(&start.given[n_common..]), sum(&whole.given[n_common..]));
    let logp = of_whole.zip(of_start).map(|(whole, start)| whole - start);
    let logp = logp.filter(|logp| logp.is_finite()).ok_or("a token of the completion has no log-probability")?;
    Ok((logp, (whole.given.len() - n_common) as f64))
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    logprobs: Option<Logprobs>,
    #[serde(default)]
    prompt_logprobs: Option<Vec<Option<BTreeMap<String, PromptLogprob>>>>,
}

#[derive(Deserialize)]
struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f64>>,
}

#[derive(Deserialize)]
struct PromptLogprob {
    logprob: f64,
    #[serde(default)]
    rank: Option<u64>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    completion_tokens: Option<usize>,
}

/// Reads an answer to a request for one new token after `prompt`.
pub(super) fn read(answer: Value, dialect: RemoteDialect, prompt: &str) -> Result<Tokens, String> {
    let completion: Completion =
        serde_json::from_value(answer).map_err(|e| format!("the answer is not one of a completions API: {e}"))?;
    let choice = completion.choices.into_iter().next().ok_or("the answer has no choice")?;
    let logprobs = choice.logprobs.map(|l| {
        let n = l.tokens.len();
        (n == l.token_logprobs.len())
            .then_some(l)
            .ok_or(format!("it tells {n} tokens and not as many log-probabilities"))
    });
    let logprobs = logprobs.transpose()?;
    let listed = |l: Logprobs| l.tokens.into_iter().zip(l.token_logprobs).collect::<Vec<_>>();
    match dialect {
        RemoteDialect::PromptLogprobs => {
            let given =
                choice.prompt_logprobs.ok_or("it gives no prompt_logprobs")?.into_iter().map(of_prompt).collect();
            let next =
                logprobs.and_then(|l| listed(l).into_iter().next_back()).and_then(|(text, logp)| Some((text, logp?)));
            Ok(Tokens { given, next, written: None })
        }
        RemoteDialect::Echo => {
            let mut given = listed(logprobs.ok_or("it gives no log-probabilities of the text it is given")?);
            // One token was asked for; where the server ended its answer instead, there is none.
            let n_new = completion.usage.and_then(|usage| usage.completion_tokens).unwrap_or(1).min(1);
            let next = if n_new == 1 { given.pop() } else { None };
            let written = choice.text.as_deref().and_then(|text| text.strip_prefix(prompt)).map(str::to_owned);
            Ok(Tokens { given, next: next.and_then(|(text, logp)| Some((text, logp?))), written })
        }
    }
}

/// The entry of the token that stands there: the only one, or the one that is not merely the likeliest.
fn of_prompt(entries: Option<BTreeMap<String, PromptLogprob>>) -> (String, Option<f64>) {
    let entry = entries.into_iter().flatten().max_by_key(|(_, entry)| entry.rank.unwrap_or(0));
    entry.map_or((String::new(), None), |(id, entry)| (id, Some(entry.logprob)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn echo(tokens: &[(&str, Option<f64>)], n_new: usize) -> Tokens {
        let (texts, logprobs): (Vec<_>, Vec<_>) = tokens.iter().copied().unzip();
        let logprobs = json!({"tokens": texts, "token_logprobs": logprobs});
        let answer =
            json!({"choices": [{"text": "A and on", "logprobs": logprobs}], "usage": {"completion_tokens": n_new}});
        read(answer, RemoteDialect::Echo, "A").expect("an answer")
    }

    #[test]
    fn a_completion_is_what_comes_after_its_prompt() {
        let prompt = echo(&[("A", None), ("\n", Some(-1.0)), ("x", Some(-0.5))], 1);
        let whole = echo(&[("A", None), ("\n", Some(-1.0)), ("yes", Some(-2.0)), ("", Some(-0.25))], 0);
        assert_eq!((prompt.next(), prompt.written()), (Some(("x", -0.5)), Some(" and on")));
        assert_eq!((whole.next(), whole.last()), (None, Some(("", -0.25))));
        assert_eq!(between(&prompt, &whole), Ok((-2.25, 2.0)));
    }

    #[test]
    fn a_token_across_the_seam_is_one_of_the_completion() {
        let prompt = echo(&[("A", None), (" b", Some(-1.0)), ("?", Some(-3.0))], 0);
        let whole = echo(&[("A", None), (" b", Some(-1.0)), ("?!", Some(-4.5)), ("yes", Some(-2.0))], 0);
        // log p(xy) - log p(x) = (-1 - 4.5 - 2) - (-1 - 3)
        assert_eq!(between(&prompt, &whole), Ok((-3.5, 2.0)));
    }

    #[test]
    fn an_answer_that_does_not_do_is_said_in_words() {
        let prompt = echo(&[("A", None), ("\n", Some(-1.0))], 0);
        let says = |tokens: &[(&str, Option<f64>)]| between(&prompt, &echo(tokens, 0)).expect_err("refused");
        assert!(says(&[("A", None), ("\n", Some(-1.0))]).contains("tells 2 tokens"));
        assert!(says(&[("B", None), ("\n", Some(-1.0)), ("c", Some(-1.0))]).contains("other tokens"));
        assert!(says(&[("A", None), ("\n", Some(-1.0)), ("c", None)]).contains("no log-probability"));
        let error = |answer: Value| read(answer, RemoteDialect::Echo, "A").expect_err("refused");
        assert!(error(json!({"choices": [{"text": "x", "logprobs": null}]})).contains("no log-probabilities"));
        assert!(error(json!({"choices": []})).contains("no choice"));
        assert!(error(json!({"error": "x"})).contains("completions API"));
        let uneven = json!({"choices": [{"logprobs": {"tokens": ["a", "b"], "token_logprobs": [null]}}]});
        assert!(error(uneven).contains("not as many"));
    }

    #[test]
    fn of_two_entries_the_text_s_own_is_not_merely_the_likeliest() {
        let entry = |logprob: f64, rank: u64| json!({"logprob": logprob, "rank": rank, "decoded_token": "?"});
        let answer = json!({"choices": [{"text": "z", "prompt_logprobs": [null, {"7": entry(-0.1, 1)},
            {"5": entry(-0.2, 1), "12": entry(-9.0, 40)}], "logprobs": {"tokens": ["z"], "token_logprobs": [-0.5]}}]});
        let tokens = read(answer, RemoteDialect::PromptLogprobs, "A").expect("an answer");
        assert_eq!(tokens.given, [(String::new(), None), ("7".into(), Some(-0.1)), ("12".into(), Some(-9.0))]);
        assert_eq!(tokens.next(), Some(("z", -0.5)));
    }
}
