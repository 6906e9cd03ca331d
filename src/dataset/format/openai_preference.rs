//! OpenAI's preference format: `{"input":{"messages":[..]},"preferred_output":[..],"non_preferred_output":[..]}`.
//!
//! Their API document called the outputs `preferred_completion` and `non_preferred_completion` until 2025; both are read.

use serde_json::{Map, Value};

use crate::dataset::{Example, fields::Notes, format, messages};

/// The names of each completion, today's first.
pub(super) const FIELDS: [[&str; 2]; 2] =
    [["preferred_output", "preferred_completion"], ["non_preferred_output", "non_preferred_completion"]];

pub(super) fn parse(row: &Map<String, Value>, notes: &mut Notes) -> Option<Example> {
    let prompt = notes.field(row, "input").and_then(|input| {
        let Some(input) = input.as_object() else {
            notes.wrong_type(input, "/input", "an object {\"messages\"}");
            return None;
        };
        format::warn_of_tools(input.get("tools"), "/input/tools", notes);
        let Some(list) = input.get("messages") else {
            notes.problem("/input/messages", "missing_field", "the field `messages` is missing in `input`");
            return None;
        };
        format::conversation(list, "/input/messages", notes)
    });
    let names = FIELDS.map(|[today, before]| if row.contains_key(today) { today } else { before });
    // Where neither name stands, ask for today's.
    let names = [0, 1].map(|i| if row.contains_key(names[i]) { names[i] } else { FIELDS[i][0] });
    let pointers = names.map(|name| format!("/{name}"));
    let completions = [0, 1].map(|i| {
        let list = messages::parse(notes.field(row, names[i])?, &pointers[i], notes)?;
        messages::completion(&list, &pointers[i], notes)
    });
    format::finish(prompt, completions, [&pointers[0], &pointers[1]], notes)
}

#[cfg(test)]
mod tests {
    use crate::{
        dataset::{
            Prompt,
            format::tests::{pair, problems},
        },
        domain::DatasetFormat::OpenaiPreference,
    };

    #[test]
    fn both_pairs_of_names_are_read() {
        for (chosen, rejected) in
            [("preferred_output", "non_preferred_output"), ("preferred_completion", "non_preferred_completion")]
        {
            let line = format!(
                r#"{{"input":{{"messages":[{{"role":"user","content":"Hello"}}],"tools":[],"parallel_tool_calls":true}},
                "{chosen}":[{{"role":"assistant","content":"A"}}],"{rejected}":[{{"role":"assistant","content":"B"}}]}}"#
            );
            let pair = pair(OpenaiPreference, &line);
            assert!(matches!(&pair.prompt, Prompt::Messages(m) if m.len() == 1 && m[0].content == "Hello"));
            assert_eq!((pair.chosen.as_str(), pair.rejected.as_str()), ("A", "B"));
        }
    }

    #[test]
    fn everything_wrong_with_a_line_is_named() {
        let line = r#"{"input":{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]},
            "preferred_output":[{"role":"assistant","content":" "}],"non_preferred_completion":[{"role":"user","content":"c"}]}"#;
        let expected = [
            "/input/messages/1/role assistant_is_last",
            "/non_preferred_completion/0/role misplaced_role",
            "/preferred_output empty_completion",
        ];
        assert_eq!(problems(OpenaiPreference, line), expected);
        let expected = ["/input missing_field", "/preferred_output missing_field", "/non_preferred_output wrong_type"];
        assert_eq!(problems(OpenaiPreference, r#"{"non_preferred_output":"text"}"#), expected);
        assert_eq!(
            problems(OpenaiPreference, r#"{"input":{},"preferred_output":[],"non_preferred_output":[3]}"#),
            [
                "/input/messages missing_field",
                "/preferred_output empty_completion",
                "/non_preferred_output/0 wrong_type"
            ]
        );
    }
}
