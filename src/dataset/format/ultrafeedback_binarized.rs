//! UltraFeedback binarized: `{"prompt","chosen","rejected"}`, a text and two lists of messages that begin with it.

use serde_json::{Map, Value};

use super::trl_conversational_implicit;
use crate::dataset::{Example, Prompt, fields::Notes};

/// The prompt is what the lists share; the text must be in it, or else they answer something else than the row says.
pub(super) fn parse(row: &Map<String, Value>, notes: &mut Notes) -> Option<Example> {
    let text = notes.text_field(row, "prompt");
    let example = trl_conversational_implicit::parse(row, notes)?;
    let text = text?.trim();
    if let Prompt::Messages(messages) = &example.prompt
        && !messages.iter().any(|m| m.role == "user" && m.content.trim() == text)
    {
        let message = "the prompt is none of the messages that both sides begin with: remove it, or correct them";
        notes.problem("/prompt", "prompts_differ", message);
    }
    Some(example)
}

#[cfg(test)]
mod tests {
    use crate::{
        dataset::{
            Prompt,
            format::tests::{pair, problems},
        },
        domain::DatasetFormat::UltrafeedbackBinarized,
    };

    fn line(prompt: &str, question: &str, rejected: &str) -> String {
        let side = |answer: &str| {
            format!(r#"[{{"role":"user","content":"{question}"}},{{"role":"assistant","content":"{answer}"}}]"#)
        };
        let (chosen, rejected) = (side("A"), side(rejected));
        format!(
            r#"{{"prompt":{prompt},"chosen":{chosen},"rejected":{rejected},"score_chosen":8.5,"messages":{chosen}}}"#
        )
    }

    #[test]
    fn the_prompt_is_what_both_sides_begin_with() {
        let pair = pair(UltrafeedbackBinarized, &line(r#""q""#, "q ", "B"));
        assert!(matches!(&pair.prompt, Prompt::Messages(m) if m.len() == 1 && m[0].content == "q "));
        assert_eq!((pair.chosen.as_str(), pair.rejected.as_str()), ("A", "B"));
    }

    #[test]
    fn everything_wrong_with_a_row_is_named() {
        let found = |prompt, question, rejected| problems(UltrafeedbackBinarized, &line(prompt, question, rejected));
        assert_eq!(found(r#""other""#, "q", "B"), ["/prompt prompts_differ"]);
        assert_eq!(found("[]", "q", "A"), ["/prompt wrong_type", "/rejected identical_completions"]);
        assert_eq!(found(r#""q""#, "q", " "), ["/rejected empty_completion"]);
    }
}
