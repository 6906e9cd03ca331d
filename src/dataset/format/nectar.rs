//! Nectar: `{"prompt","answers":[{"answer","rank"},..]}`. The pair is the best and the worst answer; those between are not used.
//!
//! A prompt of `\n\nHuman:` and `\n\nAssistant:` turns, as in the data set itself, is read as a conversation.

use serde_json::{Map, Value};

use super::{anthropic_hh, finish, ranks};
use crate::dataset::{Example, Prompt, fields::Notes, messages};

pub(super) fn parse(row: &Map<String, Value>, notes: &mut Notes) -> Option<Example> {
    let prompt = notes.text_field(row, "prompt").map(|text| {
        let Some(turns) = anthropic_hh::turns_before_an_answer(text) else { return Prompt::Text(text.to_owned()) };
        messages::check_prompt_of_text(&turns, "/prompt", notes);
        Prompt::Messages(turns)
    });
    let pair = ranks::best_and_worst(row, "answers", notes)?;
    let pointers = pair.map(|(i, _)| format!("/answers/{i}/answer"));
    let [chosen, rejected] = [0, 1].map(|side| match pair[side].1.get("answer") {
        Some(answer) => notes.text(answer, &pointers[side]).map(|text| text.trim().to_owned()),
        None => {
            notes.problem(&pointers[side], "missing_field", "the field `answer` is missing");
            None
        }
    });
    finish(prompt, [chosen, rejected], [&pointers[0], &pointers[1]], notes)
}

#[cfg(test)]
mod tests {
    use crate::{
        dataset::{
            Prompt,
            format::tests::{pair, problems},
        },
        domain::DatasetFormat::Nectar,
    };

    #[test]
    fn the_best_and_the_worst_are_the_pair() {
        let answers =
            r#"[{"answer":"B","rank":2.0},{"answer":" A ","rank":1},{"answer":"C","rank":3},{"answer":"D","rank":3}]"#;
        let plain = pair(Nectar, &format!(r#"{{"prompt":"q","answers":{answers}}}"#));
        assert_eq!(
            (plain.prompt, plain.chosen.as_str(), plain.rejected.as_str()),
            (Prompt::Text("q".into()), "A", "C")
        );
        let turns = pair(Nectar, &format!(r#"{{"prompt":"\n\nHuman: q\n\nAssistant: ","answers":{answers}}}"#));
        assert!(
            matches!(&turns.prompt, Prompt::Messages(m) if m.len() == 1 && m[0].role == "user" && m[0].content == "q")
        );
    }

    #[test]
    fn everything_wrong_with_a_row_is_named() {
        let found = |answers: &str| problems(Nectar, &format!(r#"{{"prompt":"q","answers":{answers}}}"#));
        assert_eq!(found("[]"), ["/answers no_preference"]);
        assert_eq!(found(r#"[{"answer":"A","rank":1},{"answer":"B","rank":1}]"#), ["/answers no_preference"]);
        assert_eq!(
            found(r#"[{"answer":"A"},{"answer":"B","rank":"1"},3]"#),
            ["/answers/0/rank missing_field", "/answers/1/rank wrong_type", "/answers/2 wrong_type"]
        );
        assert_eq!(
            found(r#"[{"rank":1},{"answer":" ","rank":2}]"#),
            ["/answers/0/answer missing_field", "/answers/1/answer empty_completion"]
        );
        assert_eq!(found("3"), ["/answers wrong_type"]);
    }
}
