//! Alpaca for ranking, as LLaMA-Factory reads it: `{"instruction","input","chosen","rejected"}`, texts.
//!
//! The prompt is the instruction and, on the next line, the input, where there is one. `system` and `history` (a list of
//! `[question, answer]`) make it a conversation.

use serde_json::{Map, Value};

use super::texts::{self, message};
use crate::dataset::{Example, Message, Prompt, extra::present, fields::Notes, messages};

pub(super) fn parse(row: &Map<String, Value>, notes: &mut Notes) -> Option<Example> {
    let instruction = notes.text_field(row, "instruction").map(str::to_owned);
    let input = present(row, "input").map(|value| notes.text(value, "/input").map(str::to_owned));
    let history = history(row, notes);
    let prompt = match (instruction, input, history) {
        (Some(instruction), None, Some(history)) => prompt(row, instruction, history, notes),
        (Some(instruction), Some(Some(input)), Some(history)) => {
            let is_blank = |text: &str| text.trim().is_empty();
            let text = if is_blank(&input) {
                instruction
            } else if is_blank(&instruction) {
                input
            } else {
                format!("{instruction}\n{input}")
            };
            prompt(row, text, history, notes)
        }
        _ => None,
    };
    texts::sides(row, prompt, ["chosen", "rejected"], notes)
}

fn prompt(row: &Map<String, Value>, text: String, history: Vec<Message>, notes: &mut Notes) -> Option<Prompt> {
    if history.is_empty() {
        return texts::instruction(row, &text, "/instruction", notes);
    }
    let messages: Vec<_> =
        texts::system(row, notes).into_iter().chain(history).chain([message("user", &text)]).collect();
    messages::check_prompt(&messages, "/history", notes);
    Some(Prompt::Messages(messages))
}

/// The turns before the instruction; `None` where they cannot be read.
fn history(row: &Map<String, Value>, notes: &mut Notes) -> Option<Vec<Message>> {
    let Some(value) = present(row, "history") else { return Some(Vec::new()) };
    let Some(turns) = value.as_array() else {
        notes.wrong_type(value, "/history", "a list of [question, answer]");
        return None;
    };
    let mut messages = Vec::with_capacity(2 * turns.len());
    for (i, turn) in turns.iter().enumerate() {
        let texts = turn.as_array().map(|turn| turn.iter().map(Value::as_str).collect::<Vec<_>>());
        let Some([Some(question), Some(answer)]) = texts.as_deref() else {
            notes.problem(format!("/history/{i}"), "wrong_type", "a turn is [question, answer], two texts");
            return None;
        };
        messages.extend([message("user", question), message("assistant", answer)]);
    }
    Some(messages)
}

#[cfg(test)]
mod tests {
    use crate::{
        dataset::{
            Prompt,
            format::tests::{pair, problems},
        },
        domain::DatasetFormat::AlpacaRanking,
    };

    #[test]
    fn instruction_and_input_are_the_prompt() {
        for (fields, expected) in [
            (r#""instruction":"i","input":"x","#, "i\nx"),
            (r#""instruction":"i","input":"","#, "i"),
            (r#""instruction":"i","history":[],"#, "i"),
            (r#""instruction":"","input":"x","#, "x"),
        ] {
            let pair = pair(AlpacaRanking, &format!(r#"{{{fields}"chosen":"A","rejected":"B","output":"A"}}"#));
            assert_eq!(pair.prompt, Prompt::Text(expected.into()));
        }
    }

    #[test]
    fn system_and_history_make_it_a_conversation() {
        let line = r#"{"system":"s","history":[["q","a"]],"instruction":"i","chosen":"A","rejected":"B"}"#;
        let Prompt::Messages(messages) = pair(AlpacaRanking, line).prompt else { panic!("messages") };
        let found: Vec<_> = messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
        assert_eq!(found, [("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "i")]);
    }

    #[test]
    fn everything_wrong_with_a_row_is_named() {
        let expected =
            ["/input wrong_type", "/history wrong_type", "/rejected missing_field", "/chosen empty_completion"];
        assert_eq!(problems(AlpacaRanking, r#"{"instruction":"i","input":3,"history":4,"chosen":""}"#), expected);
        let line = r#"{"instruction":"i","history":[["q"]],"chosen":"A","rejected":"B"}"#;
        assert_eq!(problems(AlpacaRanking, line), ["/history/0 wrong_type"]);
        let line = r#"{"instruction":" ","chosen":"A","rejected":"B"}"#;
        assert_eq!(problems(AlpacaRanking, line), ["/instruction empty_prompt"]);
    }
}
