//! H2O LLM Studio's columns: prompts, answers and rejected answers, under the names it proposes, and perhaps `system`.
//!
//! `prompt` may be called `instruction`, `answer` `output` or `chosen_response`, `rejected_answer` `rejected` or
//! `rejected_response`. Rows that go on with another one (`parent_id`) are not put together.

use serde_json::{Map, Value};

use super::texts::{self, Names};
use crate::dataset::{Example, extra::present, fields::Notes};

const PROMPTS: [&str; 2] = ["prompt", "instruction"];
const ANSWERS: [&str; 3] = ["answer", "output", "chosen_response"];
const REJECTED: [&str; 3] = ["rejected_answer", "rejected", "rejected_response"];

/// The names that stand in a row, where all three do.
pub(super) fn names(row: &Map<String, Value>) -> Option<Names> {
    let first = |names: &[&'static str]| names.iter().copied().find(|name| present(row, name).is_some());
    // With `chosen` it is another format, whose answers these are not.
    let is_chosen_elsewhere = row.contains_key("chosen");
    let (prompt, chosen, rejected) = (first(&PROMPTS)?, first(&ANSWERS)?, first(&REJECTED)?);
    (!is_chosen_elsewhere).then_some(Names { prompt, chosen, rejected })
}

pub(super) fn parse(row: &Map<String, Value>, notes: &mut Notes) -> Option<Example> {
    if present(row, "parent_id").is_some_and(|id| id.as_str().is_none_or(|id| !id.is_empty())) {
        let message = "the row goes on with another one, and rows are not put together: write the whole conversation into one \
            row, for instance as trl_conversational";
        notes.problem("/parent_id", "unsupported_chain", message);
    }
    let first = |names: &[&'static str]| names.iter().copied().find(|name| row.contains_key(*name)).unwrap_or(names[0]);
    let names = Names { prompt: first(&PROMPTS), chosen: first(&ANSWERS), rejected: first(&REJECTED) };
    texts::parse(row, names, notes)
}

#[cfg(test)]
mod tests {
    use crate::{
        dataset::{
            Prompt,
            format::tests::{pair, problems},
        },
        domain::DatasetFormat::H2o,
    };

    #[test]
    fn each_of_its_names_is_read() {
        for [prompt, answer, rejected] in [
            ["prompt", "answer", "rejected_answer"],
            ["instruction", "output", "rejected_answer"],
            ["prompt", "answer", "rejected"],
            ["prompt", "chosen_response", "rejected_response"],
        ] {
            let pair = pair(H2o, &format!(r#"{{"{prompt}":"q","{answer}":"A","{rejected}":"B","parent_id":""}}"#));
            assert_eq!(
                (pair.prompt, pair.chosen.as_str(), pair.rejected.as_str()),
                (Prompt::Text("q".into()), "A", "B")
            );
        }
    }

    #[test]
    fn everything_wrong_with_a_row_is_named() {
        let chained = r#"{"parent_id":"7","prompt":"q","answer":"A","rejected_answer":"B"}"#;
        assert_eq!(problems(H2o, chained), ["/parent_id unsupported_chain"]);
        let expected = ["/prompt wrong_type", "/rejected_answer missing_field", "/answer empty_completion"];
        assert_eq!(problems(H2o, r#"{"prompt":1,"answer":""}"#), expected);
    }
}
