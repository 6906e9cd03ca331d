//! NeMo-RL's preference format: `{"context":[..],"completions":[{"rank","completion":[..]},..]}` of messages.
//!
//! The pair is the completions of the lowest and of the highest rank; those between are not used.

use serde_json::{Map, Value};

use super::{conversation, finish, ranks};
use crate::dataset::{Example, fields::Notes, messages};

pub(super) fn parse(row: &Map<String, Value>, notes: &mut Notes) -> Option<Example> {
    let prompt = notes.field(row, "context").and_then(|list| conversation(list, "/context", notes));
    let pair = ranks::best_and_worst(row, "completions", notes)?;
    let pointers = pair.map(|(i, _)| format!("/completions/{i}/completion"));
    let completions = [0, 1].map(|side| {
        let Some(list) = pair[side].1.get("completion") else {
            notes.problem(&pointers[side], "missing_field", "the field `completion` is missing");
            return None;
        };
        messages::completion(&messages::parse(list, &pointers[side], notes)?, &pointers[side], notes)
    });
    finish(prompt, completions, [&pointers[0], &pointers[1]], notes)
}

#[cfg(test)]
mod tests {
    use crate::{
        dataset::{
            Prompt,
            format::tests::{pair, problems},
        },
        domain::DatasetFormat::NemoRl,
    };

    fn completion(rank: i32, text: &str) -> String {
        format!(r#"{{"rank":{rank},"completion":[{{"role":"assistant","content":"{text}"}}]}}"#)
    }

    #[test]
    fn the_lower_rank_is_preferred() {
        let completions = [completion(1, "B"), completion(0, "A")].join(",");
        let line = format!(r#"{{"context":[{{"role":"user","content":"q"}}],"completions":[{completions}]}}"#);
        let pair = pair(NemoRl, &line);
        assert!(matches!(&pair.prompt, Prompt::Messages(m) if m.len() == 1 && m[0].content == "q"));
        assert_eq!((pair.chosen.as_str(), pair.rejected.as_str()), ("A", "B"));
    }

    #[test]
    fn everything_wrong_with_a_row_is_named() {
        let line =
            r#"{"context":[],"completions":[{"rank":0},{"rank":1,"completion":[{"role":"user","content":"x"}]}]}"#;
        let expected = [
            "/context empty_prompt",
            "/completions/0/completion missing_field",
            "/completions/1/completion/0/role misplaced_role",
        ];
        assert_eq!(problems(NemoRl, line), expected);
        assert_eq!(problems(NemoRl, r#"{"completions":{}}"#), ["/context missing_field", "/completions wrong_type"]);
    }
}
