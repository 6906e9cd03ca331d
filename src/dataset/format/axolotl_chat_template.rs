//! Axolotl's `chat_template.default` format: `{"messages":[..],"chosen":{..},"rejected":{..}}` of `{"role","content"}`.
//!
//! A side may also be a text, or a list with one message.

use serde_json::{Map, Value};

use super::{conversation, finish, warn_of_tools};
use crate::dataset::{Example, fields::Notes, messages};

pub(super) fn parse(row: &Map<String, Value>, notes: &mut Notes) -> Option<Example> {
    warn_of_tools(row.get("tools"), "/tools", notes);
    let prompt = notes.field(row, "messages").and_then(|list| conversation(list, "/messages", notes));
    let completions = ["chosen", "rejected"].map(|name| {
        let pointer = format!("/{name}");
        match notes.field(row, name)? {
            Value::String(text) => Some(text.clone()),
            list @ Value::Array(_) => messages::completion(&messages::parse(list, &pointer, notes)?, &pointer, notes),
            message => {
                let message = messages::parse_one(message, &pointer, notes)?;
                messages::completion_of(message, &format!("{pointer}/role"), notes)
            }
        }
    });
    finish(prompt, completions, ["/chosen", "/rejected"], notes)
}

#[cfg(test)]
mod tests {
    use crate::{
        dataset::{
            Prompt,
            format::tests::{pair, problems},
        },
        domain::DatasetFormat::AxolotlChatTemplate,
    };

    #[test]
    fn sides_are_messages() {
        let line = r#"{"messages":[{"role":"user","content":"q"}],
            "chosen":{"role":"assistant","content":"A"},"rejected":{"role":"assistant","content":"B"}}"#;
        let pair = pair(AxolotlChatTemplate, line);
        assert!(matches!(&pair.prompt, Prompt::Messages(m) if m.len() == 1 && m[0].content == "q"));
        assert_eq!((pair.chosen.as_str(), pair.rejected.as_str()), ("A", "B"));
    }

    #[test]
    fn everything_wrong_with_a_row_is_named() {
        let line = r#"{"messages":"q","chosen":{"role":"user","content":"A"},"rejected":{"role":"assistant"}}"#;
        let expected = ["/messages wrong_type", "/chosen/role misplaced_role", "/rejected/content missing_field"];
        assert_eq!(problems(AxolotlChatTemplate, line), expected);
        let line = r#"{"messages":[{"role":"user","content":"q"}],"chosen":[],"rejected":3}"#;
        assert_eq!(problems(AxolotlChatTemplate, line), ["/chosen empty_completion", "/rejected wrong_type"]);
    }
}
