//! Axolotl's `icr` format: `{"input","chosen","rejected"}`, texts, and perhaps `system`.

use serde_json::{Map, Value};

use super::texts::{self, Names};
use crate::dataset::{Example, fields::Notes};

const NAMES: Names = Names { prompt: "input", chosen: "chosen", rejected: "rejected" };

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
        domain::DatasetFormat::AxolotlIcr,
    };

    #[test]
    fn a_system_prompt_makes_it_a_conversation() {
        let line = |system: &str| format!(r#"{{{system}"input":"q","chosen":"A","rejected":"B"}}"#);
        for system in ["", r#""system":null,"#, r#""system":" ","#] {
            let pair = pair(AxolotlIcr, &line(system));
            assert_eq!(pair.prompt, Prompt::Text("q".into()));
            assert_eq!((pair.chosen.as_str(), pair.rejected.as_str()), ("A", "B"));
        }
        let pair = pair(AxolotlIcr, &line(r#""system":"Be brief.","#));
        assert!(
            matches!(&pair.prompt, Prompt::Messages(m) if m.len() == 2 && m[0].role == "system" && m[1].content == "q")
        );
    }

    #[test]
    fn everything_wrong_with_a_row_is_named() {
        assert_eq!(
            problems(AxolotlIcr, r#"{"system":3,"input":"q","chosen":" ","rejected":[]}"#),
            ["/system wrong_type", "/rejected wrong_type", "/chosen empty_completion"]
        );
        assert_eq!(problems(AxolotlIcr, r#"{"input":" ","chosen":"A","rejected":"B"}"#), ["/input empty_prompt"]);
        assert_eq!(
            problems(AxolotlIcr, r#"{"chosen":"A","rejected":"A"}"#),
            ["/input missing_field", "/rejected identical_completions"]
        );
    }
}
