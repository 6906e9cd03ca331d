//! Axolotl's `argilla` format: `{"instruction","chosen_response","rejected_response"}`, texts, and perhaps `system`.

use serde_json::{Map, Value};

use super::texts::{self, Names};
use crate::dataset::{Example, fields::Notes};

const NAMES: Names = Names { prompt: "instruction", chosen: "chosen_response", rejected: "rejected_response" };

pub(super) fn parse(row: &Map<String, Value>, notes: &mut Notes) -> Option<Example> {
    texts::parse(row, NAMES, notes)
}

#[cfg(test)]
mod tests {
    use crate::{
        dataset::{
            Prompt,
            format::tests::{pair, problems},
        },
        domain::DatasetFormat::AxolotlArgilla,
    };

    #[test]
    fn a_system_prompt_makes_it_a_conversation() {
        let line =
            |system: &str| format!(r#"{{{system}"instruction":"q","chosen_response":"A","rejected_response":"B"}}"#);
        for system in ["", r#""system":null,"#, r#""system":" ","#] {
            let pair = pair(AxolotlArgilla, &line(system));
            assert_eq!(pair.prompt, Prompt::Text("q".into()));
            assert_eq!((pair.chosen.as_str(), pair.rejected.as_str()), ("A", "B"));
        }
        let pair = pair(AxolotlArgilla, &line(r#""system":"Be brief.","#));
        assert!(
            matches!(&pair.prompt, Prompt::Messages(m) if m.len() == 2 && m[0].role == "system" && m[1].content == "q")
        );
    }

    #[test]
    fn everything_wrong_with_a_row_is_named() {
        assert_eq!(
            problems(AxolotlArgilla, r#"{"system":3,"instruction":"q","chosen_response":" ","rejected_response":[]}"#),
            ["/system wrong_type", "/rejected_response wrong_type", "/chosen_response empty_completion"]
        );
        assert_eq!(
            problems(AxolotlArgilla, r#"{"instruction":" ","chosen_response":"A","rejected_response":"B"}"#),
            ["/instruction empty_prompt"]
        );
        assert_eq!(
            problems(AxolotlArgilla, r#"{"chosen_response":"A","rejected_response":"A"}"#),
            ["/instruction missing_field", "/rejected_response identical_completions"]
        );
    }
}
