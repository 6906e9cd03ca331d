//! Anthropic's HH-RLHF format: `{"chosen","rejected"}`, dialogues of `\n\nHuman:` and `\n\nAssistant:` turns.
//!
//! The last `\n\nAssistant:` ends the prompt; the turns before it become messages, and the white space around a turn goes.

use serde_json::{Map, Value};

use crate::dataset::{Example, Message, Prompt, fields::Notes, format, messages};

const HUMAN: &str = "\n\nHuman:";
const ASSISTANT: &str = "\n\nAssistant:";

/// Whether a text is such a dialogue.
pub(super) fn is_dialogue(text: &str) -> bool {
    text.starts_with(HUMAN) && text.contains(ASSISTANT)
}

pub(super) fn parse(row: &Map<String, Value>, notes: &mut Notes) -> Option<Example> {
    let [chosen, rejected] = ["chosen", "rejected"].map(|name| {
        let text = notes.text_field(row, name)?;
        let halves = if text.starts_with(HUMAN) { text.rsplit_once(ASSISTANT) } else { None };
        if halves.is_none() {
            let message = "not a dialogue: it begins with \"\\n\\nHuman:\" and has an \"\\n\\nAssistant:\" turn";
            notes.problem(format!("/{name}"), "not_a_dialogue", message);
        }
        halves
    });
    let ((prompt, chosen), (other_prompt, rejected)) = (chosen?, rejected?);
    if prompt != other_prompt {
        let message = "the two dialogues differ before their last assistant turn: they must answer the same prompt";
        notes.problem("/rejected", "prompts_differ", message);
    }
    let prompt = turns(prompt);
    messages::check_prompt_of_text(&prompt, "/chosen", notes);
    let completions = [chosen, rejected].map(|text| Some(text.trim().to_owned()));
    format::finish(Some(Prompt::Messages(prompt)), completions, ["/chosen", "/rejected"], notes)
}

/// The turns of a text that ends where the assistant's answer begins; `None` where it is no such text.
pub(super) fn turns_before_an_answer(text: &str) -> Option<Vec<Message>> {
    let prompt = text.trim_end().strip_suffix(ASSISTANT).filter(|text| text.starts_with(HUMAN))?;
    Some(turns(prompt))
}

/// The turns of a dialogue that begins with the human's.
fn turns(mut dialogue: &str) -> Vec<Message> {
    let mut turns = Vec::new();
    loop {
        let (role, rest) = if let Some(rest) = dialogue.strip_prefix(HUMAN) {
            ("user", rest)
        } else if let Some(rest) = dialogue.strip_prefix(ASSISTANT) {
            ("assistant", rest)
        } else {
            return turns;
        };
        let end = [HUMAN, ASSISTANT].iter().filter_map(|marker| rest.find(marker)).min().unwrap_or(rest.len());
        turns.push(Message { role: role.to_owned(), content: rest[..end].trim().to_owned() });
        dialogue = &rest[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dataset::format::tests::{pair, problems},
        domain::DatasetFormat::AnthropicHh,
    };

    fn line(chosen: &str, rejected: &str) -> String {
        serde_json::json!({"chosen": chosen, "rejected": rejected}).to_string()
    }

    #[test]
    fn turns_become_messages() {
        let prompt = "\n\nHuman: Hi\n\nthere \n\nAssistant: Hello: Human!\n\nHuman: Bye";
        let pair =
            pair(AnthropicHh, &line(&format!("{prompt}\n\nAssistant: A\n\nb"), &format!("{prompt}\n\nAssistant: B ")));
        let Prompt::Messages(messages) = &pair.prompt else { panic!("messages: {:?}", pair.prompt) };
        let found: Vec<_> = messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
        assert_eq!(found, [("user", "Hi\n\nthere"), ("assistant", "Hello: Human!"), ("user", "Bye")]);
        assert_eq!((pair.chosen.as_str(), pair.rejected.as_str()), ("A\n\nb", "B"));
    }

    #[test]
    fn everything_wrong_with_a_line_is_named() {
        let found = |chosen, rejected| problems(AnthropicHh, &line(chosen, rejected));
        let good = "\n\nHuman: Hi\n\nAssistant: A";
        assert_eq!(found("Hi", good), ["/chosen not_a_dialogue"]);
        assert_eq!(found(good, "\n\nHuman: Hi"), ["/rejected not_a_dialogue"]);
        assert_eq!(found(good, "\n\nHuman: Ho\n\nAssistant: B"), ["/rejected prompts_differ"]);
        assert_eq!(found(good, good), ["/rejected identical_completions"]);
        assert_eq!(found(good, "\n\nHuman: Hi\n\nAssistant:  "), ["/rejected empty_completion"]);
        let twice = |last| format!("\n\nHuman: Hi\n\nHuman: You\n\nAssistant: {last}");
        assert_eq!(found(&twice("A"), &twice("B")), ["/chosen roles_do_not_alternate"]);
    }
}
