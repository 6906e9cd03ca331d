//! TRL's conversational format with an explicit prompt: `{"prompt","chosen","rejected"}`, lists of messages.
//!
//! A completion may also be a text: the content of the one assistant message it stands for.

use serde_json::{Map, Value};

use crate::dataset::{Example, fields::Notes, format, messages};

pub(super) fn parse(row: &Map<String, Value>, notes: &mut Notes) -> Option<Example> {
    format::warn_of_tools(row.get("tools"), "/tools", notes);
    let prompt = notes.field(row, "prompt").and_then(|value| {
        if value.is_string() {
            let message = "the prompt is a text and the completions are messages: write the prompt as a list of messages, or \
                remove it where both completions repeat it";
            notes.problem("/prompt", "wrong_type", message);
            return None;
        }
        format::conversation(value, "/prompt", notes)
    });
    let completions = ["chosen", "rejected"].map(|name| {
        let pointer = format!("/{name}");
        match notes.field(row, name)? {
            Value::String(text) => Some(text.clone()),
            list => messages::completion(&messages::parse(list, &pointer, notes)?, &pointer, notes),
        }
    });
    format::finish(prompt, completions, ["/chosen", "/rejected"], notes)
}

#[cfg(test)]
mod tests {
    use crate::{
        dataset::{
            Prompt,
            format::tests::{pair, problems},
        },
        domain::DatasetFormat::TrlConversational,
    };

    #[test]
    fn completions_are_messages_or_texts() {
        for completions in [
            r#""chosen":[{"role":"assistant","content":"A"}],"rejected":[{"role":"assistant","content":"B"}]"#,
            r#""chosen":"A","rejected":"B""#,
        ] {
            let line = format!(
                r#"{{"prompt":[{{"role":"system","content":"Be kind."}},{{"role":"user","content":"Hi"}}],{completions}}}"#
            );
            let pair = pair(TrlConversational, &line);
            assert!(matches!(&pair.prompt, Prompt::Messages(m) if m.len() == 2 && m[1].role == "user"));
            assert_eq!((pair.chosen.as_str(), pair.rejected.as_str()), ("A", "B"));
        }
    }

    #[test]
    fn everything_wrong_with_a_line_is_named() {
        let line =
            r#"{"prompt":[],"chosen":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],"rejected":7}"#;
        let expected = ["/prompt empty_prompt", "/chosen too_many_messages", "/rejected wrong_type"];
        assert_eq!(problems(TrlConversational, line), expected);
        let line = r#"{"prompt":"text","chosen":[{"role":"assistant","content":"a"}],"rejected":[{"role":"assistant","content":"a"}]}"#;
        assert_eq!(problems(TrlConversational, line), ["/prompt wrong_type", "/rejected identical_completions"]);
    }
}
