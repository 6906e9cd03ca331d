//! What the formats of three texts have in common: an instruction, perhaps a system prompt before it, and two answers.

use serde_json::{Map, Value};

use super::finish;
use crate::dataset::{Example, Message, Prompt, extra::present, fields::Notes};

/// The names of the three texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) prompt: &'static str,
    pub(super) chosen: &'static str,
    pub(super) rejected: &'static str,
}

/// Reads a row of such a format.
pub(super) fn parse(row: &Map<String, Value>, names: Names, notes: &mut Notes) -> Option<Example> {
    let prompt = notes.text_field(row, names.prompt).map(str::to_owned);
    let prompt = prompt.and_then(|text| instruction(row, &text, &format!("/{}", names.prompt), notes));
    sides(row, prompt, [names.chosen, names.rejected], notes)
}

/// Puts a pair together whose sides are the texts of these names.
pub(super) fn sides(
    row: &Map<String, Value>,
    prompt: Option<Prompt>,
    names: [&str; 2],
    notes: &mut Notes,
) -> Option<Example> {
    let completions = names.map(|name| notes.text_field(row, name).map(str::to_owned));
    let pointers = names.map(|name| format!("/{name}"));
    finish(prompt, completions, [&pointers[0], &pointers[1]], notes)
}

/// The prompt that an instruction is: a text, and below a system prompt a conversation.
pub(super) fn instruction(row: &Map<String, Value>, text: &str, pointer: &str, notes: &mut Notes) -> Option<Prompt> {
    if text.trim().is_empty() {
        notes.problem(pointer, "empty_prompt", "the prompt is empty: give the text the completions answer");
        return None;
    }
    Some(match system(row, notes) {
        Some(system) => Prompt::Messages(vec![system, message("user", text)]),
        None => Prompt::Text(text.to_owned()),
    })
}

/// The system prompt of a row, unless it is blank.
pub(super) fn system(row: &Map<String, Value>, notes: &mut Notes) -> Option<Message> {
    let text = notes.text(present(row, "system")?, "/system")?;
    (!text.trim().is_empty()).then(|| message("system", text))
}

pub(super) fn message(role: &str, content: &str) -> Message {
    Message { role: role.to_owned(), content: content.to_owned() }
}

#[cfg(test)]
mod tests {
    use crate::{
        dataset::{
            Prompt,
            format::tests::{pair, problems},
        },
        domain::DatasetFormat::{self, AxolotlArgilla, AxolotlIcr, AxolotlIntel},
    };

    /// The formats, and what they call prompt, chosen and rejected.
    const FORMATS: [(DatasetFormat, [&str; 3]); 3] = [
        (AxolotlArgilla, ["instruction", "chosen_response", "rejected_response"]),
        (AxolotlIcr, ["input", "chosen", "rejected"]),
        (AxolotlIntel, ["question", "chosen", "rejected"]),
    ];

    #[test]
    fn a_system_prompt_makes_it_a_conversation() {
        for (format, [prompt, chosen, rejected]) in FORMATS {
            let line = |system: &str| format!(r#"{{{system}"{prompt}":"q","{chosen}":"A","{rejected}":"B"}}"#);
            for system in ["", r#""system":null,"#, r#""system":" ","#] {
                let pair = pair(format, &line(system));
                assert_eq!(pair.prompt, Prompt::Text("q".into()));
                assert_eq!((pair.chosen.as_str(), pair.rejected.as_str()), ("A", "B"));
            }
            let pair = pair(format, &line(r#""system":"Be brief.","#));
            let Prompt::Messages(messages) = &pair.prompt else { panic!("{format:?}: no conversation") };
            assert_eq!((messages.len(), messages[0].role.as_str(), messages[1].content.as_str()), (2, "system", "q"));
        }
    }

    #[test]
    fn everything_wrong_with_a_row_is_named() {
        for (format, [prompt, chosen, rejected]) in FORMATS {
            assert_eq!(
                problems(format, &format!(r#"{{"system":3,"{prompt}":"q","{chosen}":" ","{rejected}":[]}}"#)),
                ["/system wrong_type", &format!("/{rejected} wrong_type"), &format!("/{chosen} empty_completion")]
            );
            assert_eq!(
                problems(format, &format!(r#"{{"{prompt}":" ","{chosen}":"A","{rejected}":"B"}}"#)),
                [format!("/{prompt} empty_prompt")]
            );
            assert_eq!(
                problems(format, &format!(r#"{{"{chosen}":"A","{rejected}":"A"}}"#)),
                [format!("/{prompt} missing_field"), format!("/{rejected} identical_completions")]
            );
        }
    }
}
