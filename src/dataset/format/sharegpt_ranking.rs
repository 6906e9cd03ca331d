//! ShareGPT for ranking, as LLaMA-Factory reads it: `{"conversations":[..],"chosen":{..},"rejected":{..}}` of `{"from","value"}`.
//!
//! A side may also be a text. A `system` beside the conversation stands before it.

use serde_json::{Map, Value};

use super::{finish, texts};
use crate::dataset::{Example, Message, Prompt, fields::Notes, messages};

/// What speakers are called, and the role each has.
const SPEAKERS: [(&str, &str); 10] = [
    ("human", "user"),
    ("user", "user"),
    ("gpt", "assistant"),
    ("assistant", "assistant"),
    ("chatgpt", "assistant"),
    ("bot", "assistant"),
    ("function_call", "assistant"),
    ("system", "system"),
    ("observation", "tool"),
    ("tool", "tool"),
];

pub(super) fn parse(row: &Map<String, Value>, notes: &mut Notes) -> Option<Example> {
    let system = texts::system(row, notes);
    let prompt = notes.field(row, "conversations").and_then(|value| {
        let Some(list) = value.as_array() else {
            notes.wrong_type(value, "/conversations", "a list of messages {\"from\", \"value\"}");
            return None;
        };
        let turns: Vec<_> =
            list.iter().enumerate().map(|(i, turn)| message(turn, &format!("/conversations/{i}"), notes)).collect();
        let turns: Vec<Message> = turns.into_iter().collect::<Option<_>>()?;
        let messages: Vec<_> = system.into_iter().chain(turns).collect();
        messages::check_prompt(&messages, "/conversations", notes);
        Some(Prompt::Messages(messages))
    });
    let completions = ["chosen", "rejected"].map(|name| {
        let pointer = format!("/{name}");
        let value = notes.field(row, name)?;
        if let Some(text) = value.as_str() {
            return Some(text.to_owned());
        }
        let message = message(value, &pointer, notes)?;
        messages::completion_of(message, &format!("{pointer}/from"), notes)
    });
    finish(prompt, completions, ["/chosen", "/rejected"], notes)
}

fn message(value: &Value, pointer: &str, notes: &mut Notes) -> Option<Message> {
    let Some(turn) = value.as_object() else {
        notes.wrong_type(value, pointer, "a message {\"from\", \"value\"}");
        return None;
    };
    let mut text = |name: &str| {
        let at = format!("{pointer}/{name}");
        if let Some(value) = turn.get(name) {
            return notes.text(value, &at);
        }
        notes.problem(at, "missing_field", format!("a message needs `{name}`"));
        None
    };
    let (from, value) = (text("from"), text("value"));
    let from = from?;
    let Some((_, role)) = SPEAKERS.iter().find(|(name, _)| *name == from) else {
        let message = format!("no such speaker; there are {}", SPEAKERS.map(|(name, _)| name).join(", "));
        notes.problem(format!("{pointer}/from"), "unknown_role", message);
        return None;
    };
    Some(texts::message(role, value?))
}

#[cfg(test)]
mod tests {
    use crate::{
        dataset::{
            Prompt,
            format::tests::{pair, problems},
        },
        domain::DatasetFormat::SharegptRanking,
    };

    #[test]
    fn speakers_have_roles() {
        let line = r#"{"system":"s","conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"a"},{"from":"human","value":"r"}],
            "chosen":{"from":"gpt","value":"A"},"rejected":{"from":"gpt","value":"B"}}"#;
        let pair = pair(SharegptRanking, line);
        let Prompt::Messages(messages) = &pair.prompt else { panic!("messages") };
        let found: Vec<_> = messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
        assert_eq!(found, [("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "r")]);
        assert_eq!((pair.chosen.as_str(), pair.rejected.as_str()), ("A", "B"));
    }

    #[test]
    fn everything_wrong_with_a_row_is_named() {
        let line = r#"{"conversations":[{"from":"me","value":"q"},{"from":"human"},3],"chosen":{"from":"human","value":"A"},
            "rejected":[]}"#;
        let expected = [
            "/conversations/0/from unknown_role",
            "/conversations/1/value missing_field",
            "/conversations/2 wrong_type",
            "/chosen/from misplaced_role",
            "/rejected wrong_type",
        ];
        assert_eq!(problems(SharegptRanking, line), expected);
        let line = r#"{"conversations":[],"chosen":"A","rejected":"A"}"#;
        assert_eq!(problems(SharegptRanking, line), ["/conversations empty_prompt", "/rejected identical_completions"]);
    }
}
