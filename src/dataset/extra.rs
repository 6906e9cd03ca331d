//! What a row may hold beyond its pair: fields at its top level, under the same names in every format, each optional.
//!
//! `null` counts as absent: that is how tables write a missing value.

use std::ops::Range;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Example, fields::Notes, messages, rewards, spans};
use crate::domain::{DatasetFormat, ExtraField, Sides};

/// The extra fields of one pair.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ExtraFields {
    /// Rewards of each completion under the other objectives, 1 to 64 finite numbers, as many on every line (MODPO).
    pub margin_rewards: Option<Sides<Vec<f64>>>,
    /// Auxiliary rewards of each completion, under the same rules (HPO).
    pub aux_rewards: Option<Sides<Vec<f64>>>,
    /// The dimension of quality the preference is about (SPO).
    pub dimension: Option<String>,
    /// What an earlier policy answered (SELM).
    pub reference_response: Option<String>,
    /// The parts of each completion that count, in characters of it: ascending, apart, not empty, on at least one side.
    pub spans: Option<Sides<Vec<Range<usize>>>>,
    /// The rejected completion after somebody's minimal edits (arXiv 2406.02756); never together with `spans`.
    pub edited_response: Option<String>,
}

impl ExtraFields {
    /// Whether the row has this.
    pub fn has(&self, field: ExtraField) -> bool {
        match field {
            ExtraField::MarginRewards => self.margin_rewards.is_some(),
            ExtraField::AuxRewards => self.aux_rewards.is_some(),
            ExtraField::Dimension => self.dimension.is_some(),
            ExtraField::ReferenceResponse => self.reference_response.is_some(),
            ExtraField::TokenSpans => self.spans.is_some() || self.edited_response.is_some(),
        }
    }
}

/// How many rewards each line of the file has, once a line has some.
#[derive(Debug, Default)]
pub(super) struct ListLengths {
    margin_rewards: Option<rewards::Length>,
    aux_rewards: Option<rewards::Length>,
}

/// Reads the extra fields of a row of `format`; `example` is its pair, where it has one.
pub(super) fn parse(
    row: &Map<String, Value>,
    format: DatasetFormat,
    example: Option<&Example>,
    lengths: &mut ListLengths,
    notes: &mut Notes,
) -> ExtraFields {
    let completions = example.map(|e| Sides { chosen: e.chosen.as_str(), rejected: e.rejected.as_str() });
    ExtraFields {
        margin_rewards: rewards::MARGIN.parse(row, &mut lengths.margin_rewards, notes),
        aux_rewards: rewards::AUX.parse(row, &mut lengths.aux_rewards, notes),
        dimension: dimension(row, notes),
        reference_response: response(row, "reference_response", format, notes),
        spans: spans::parse(row, completions, notes),
        edited_response: edited_response(row, format, completions, notes),
    }
}

/// A field that is there and not null.
pub(super) fn present<'a>(row: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    row.get(name).filter(|value| !value.is_null())
}

fn dimension(row: &Map<String, Value>, notes: &mut Notes) -> Option<String> {
    const MAX_CHARS: usize = ExtraField::MAX_DIMENSION_CHARS;
    let text = notes.text(present(row, "dimension")?, "/dimension")?;
    if text.trim().is_empty() {
        notes.problem("/dimension", "empty_field", "the dimension is empty: name it or remove the field");
        return None;
    }
    let n_chars = text.chars().count();
    if n_chars > MAX_CHARS {
        let message = format!("the dimension has {n_chars} characters: give it a name of at most {MAX_CHARS}");
        notes.problem("/dimension", "out_of_range", message);
        return None;
    }
    Some(text.to_owned())
}

/// One more answer to the prompt, written as the completions of the format are, or as a text.
fn response(row: &Map<String, Value>, name: &str, format: DatasetFormat, notes: &mut Notes) -> Option<String> {
    let takes_messages = matches!(
        format,
        DatasetFormat::OpenaiPreference
            | DatasetFormat::TrlConversational
            | DatasetFormat::TrlConversationalImplicit
            | DatasetFormat::UltrafeedbackBinarized
            | DatasetFormat::AxolotlChatTemplate
            | DatasetFormat::NemoRl
    );
    let pointer = format!("/{name}");
    let text = match present(row, name)? {
        // As the completions of these formats: the white space around a turn goes.
        Value::String(text) if matches!(format, DatasetFormat::AnthropicHh | DatasetFormat::Nectar) => {
            text.trim().to_owned()
        }
        Value::String(text) => text.clone(),
        list @ Value::Array(_) if takes_messages => {
            messages::completion(&messages::parse(list, &pointer, notes)?, &pointer, notes)?
        }
        other => {
            let expected = if takes_messages { "a text or a list with one assistant message" } else { "a text" };
            notes.wrong_type(other, &pointer, expected);
            return None;
        }
    };
    if text.trim().is_empty() {
        let message = "the response is empty: give its text or remove the field";
        notes.problem(pointer, "empty_completion", message);
        return None;
    }
    Some(text)
}

fn edited_response(
    row: &Map<String, Value>,
    format: DatasetFormat,
    completions: Option<Sides<&str>>,
    notes: &mut Notes,
) -> Option<String> {
    const NAME: &str = "edited_response";
    let text = response(row, NAME, format, notes)?;
    if completions.is_some_and(|c| c.rejected == text) {
        let message = "the edited response is the rejected completion as it was: edit it or remove the field";
        notes.problem(format!("/{NAME}"), "identical_completions", message);
    }
    if spans::FIELDS.iter().any(|name| present(row, name).is_some()) {
        let message = "an edited response and spans both say which tokens count: give one of them";
        notes.problem(format!("/{NAME}"), "conflicting_fields", message);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dataset::format::tests::{pair, problems};

    const FORMATS: [DatasetFormat; 16] = DatasetFormat::ALL;

    /// Formats whose completions lose the white space around them.
    const TRIMMED: [DatasetFormat; 2] = [DatasetFormat::AnthropicHh, DatasetFormat::Nectar];

    /// A pair of completions " yes" and " no" (without their spaces in [`TRIMMED`]) and the fields of `extra`.
    fn line(format: DatasetFormat, extra: &Value) -> String {
        let message = |role: &str, content: &str| json!({"role": role, "content": content});
        let (user, yes, no) = (message("user", "q"), message("assistant", " yes"), message("assistant", " no"));
        let mut row = match format {
            DatasetFormat::OpenaiPreference => {
                json!({"input": {"messages": [user]}, "preferred_output": [yes], "non_preferred_output": [no]})
            }
            DatasetFormat::TrlStandard => json!({"prompt": "q", "chosen": " yes", "rejected": " no"}),
            DatasetFormat::TrlStandardImplicit => json!({"chosen": "q yes", "rejected": "q no"}),
            DatasetFormat::TrlConversational => json!({"prompt": [user], "chosen": [yes], "rejected": [no]}),
            DatasetFormat::TrlConversationalImplicit => json!({"chosen": [user, yes], "rejected": [user, no]}),
            DatasetFormat::AnthropicHh => json!({
                "chosen": "\n\nHuman: q\n\nAssistant: yes", "rejected": "\n\nHuman: q\n\nAssistant: no"
            }),
            DatasetFormat::UltrafeedbackBinarized => {
                json!({"prompt": "q", "chosen": [user, yes], "rejected": [user, no]})
            }
            DatasetFormat::AlpacaRanking => json!({"instruction": "q", "chosen": " yes", "rejected": " no"}),
            DatasetFormat::SharegptRanking => json!({
                "conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": " yes"},
                "rejected": {"from": "gpt", "value": " no"}
            }),
            DatasetFormat::AxolotlArgilla => {
                json!({"instruction": "q", "chosen_response": " yes", "rejected_response": " no"})
            }
            DatasetFormat::AxolotlIntel => json!({"question": "q", "chosen": " yes", "rejected": " no"}),
            DatasetFormat::AxolotlIcr => json!({"input": "q", "chosen": " yes", "rejected": " no"}),
            DatasetFormat::AxolotlChatTemplate => json!({"messages": [user], "chosen": yes, "rejected": no}),
            DatasetFormat::Nectar => {
                json!({"prompt": "q", "answers": [{"rank": 1, "answer": " yes"}, {"rank": 2, "answer": " no"}]})
            }
            DatasetFormat::NemoRl => json!({
                "context": [user],
                "completions": [{"rank": 0, "completion": [yes]}, {"rank": 1, "completion": [no]}]
            }),
            DatasetFormat::H2o => json!({"prompt": "q", "answer": " yes", "rejected_answer": " no"}),
        };
        let extra = extra.as_object().expect("an object").clone();
        row.as_object_mut().expect("an object").extend(extra);
        row.to_string()
    }

    fn wrong(extra: &Value) -> Vec<String> {
        problems(DatasetFormat::TrlStandard, &line(DatasetFormat::TrlStandard, extra))
    }

    #[test]
    fn every_format_has_them_under_the_same_names() {
        let all = json!({
            "margin_rewards_chosen": [1, 2], "margin_rewards_rejected": [0, -1],
            "aux_rewards_chosen": 0.5, "aux_rewards_rejected": 0.25,
            "dimension": "helpful", "reference_response": " maybe ",
            "chosen_spans": [[0, 2]], "rejected_spans": [],
        });
        for format in FORMATS {
            let found = pair(format, &line(format, &all));
            let response = if TRIMMED.contains(&format) { "maybe" } else { " maybe " };
            let expected = ExtraFields {
                margin_rewards: Some(Sides { chosen: vec![1.0, 2.0], rejected: vec![0.0, -1.0] }),
                aux_rewards: Some(Sides { chosen: vec![0.5], rejected: vec![0.25] }),
                dimension: Some("helpful".into()),
                reference_response: Some(response.into()),
                spans: Some(Sides { chosen: std::iter::once(0..2).collect(), rejected: vec![] }),
                edited_response: None,
            };
            assert_eq!(found.extra, expected, "{format:?}");
            assert_eq!(pair(format, &line(format, &json!({}))).extra, ExtraFields::default(), "{format:?}");
        }
    }

    #[test]
    fn a_response_is_written_as_the_completions_of_its_format() {
        let as_message = json!([{"role": "assistant", "content": " maybe"}]);
        let both = json!({"reference_response": as_message, "edited_response": as_message});
        for format in FORMATS {
            let line = line(format, &both);
            let takes_messages = [
                DatasetFormat::OpenaiPreference,
                DatasetFormat::TrlConversational,
                DatasetFormat::TrlConversationalImplicit,
                DatasetFormat::UltrafeedbackBinarized,
                DatasetFormat::AxolotlChatTemplate,
                DatasetFormat::NemoRl,
            ];
            if takes_messages.contains(&format) {
                let extra = pair(format, &line).extra;
                assert_eq!(extra.reference_response.as_deref(), Some(" maybe"), "{format:?}");
                assert_eq!(extra.edited_response.as_deref(), Some(" maybe"), "{format:?}");
            } else {
                assert_eq!(
                    problems(format, &line),
                    ["/reference_response wrong_type", "/edited_response wrong_type"],
                    "{format:?}"
                );
            }
        }
        let two =
            json!({"reference_response": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]});
        let format = DatasetFormat::TrlConversational;
        assert_eq!(problems(format, &line(format, &two)), ["/reference_response too_many_messages"]);
        let number = json!({"reference_response": 3});
        assert_eq!(problems(format, &line(format, &number)), ["/reference_response wrong_type"]);
    }

    #[test]
    fn everything_wrong_with_a_line_is_named() {
        assert_eq!(wrong(&json!({"dimension": 3})), ["/dimension wrong_type"]);
        assert_eq!(wrong(&json!({"dimension": " "})), ["/dimension empty_field"]);
        assert_eq!(wrong(&json!({"dimension": "é".repeat(65)})), ["/dimension out_of_range"]);
        assert_eq!(wrong(&json!({"reference_response": " \n"})), ["/reference_response empty_completion"]);
        assert_eq!(wrong(&json!({"edited_response": ""})), ["/edited_response empty_completion"]);
        assert_eq!(wrong(&json!({"edited_response": " no"})), ["/edited_response identical_completions"]);
        assert_eq!(
            wrong(&json!({"edited_response": " not", "rejected_spans": [[0, 1]]})),
            ["/edited_response conflicting_fields"]
        );
        let several = json!({"chosen": "", "dimension": [], "chosen_spans": [[1, 0]], "aux_rewards_chosen": 1});
        assert_eq!(
            wrong(&several),
            [
                "/chosen empty_completion",
                "/aux_rewards_rejected missing_field",
                "/dimension wrong_type",
                "/chosen_spans/0 out_of_range",
            ]
        );
        let without_pair = json!({"chosen": 3, "dimension": "", "chosen_spans": [[0, 999]]});
        assert_eq!(wrong(&without_pair), ["/chosen wrong_type", "/dimension empty_field"], "no length to compare with");
    }

    #[test]
    fn spans_are_of_the_completion_as_it_is_read() {
        let spans = |end: usize| json!({"rejected_spans": [[0, end]]});
        for format in FORMATS {
            let n_chars = if TRIMMED.contains(&format) { 2 } else { 3 };
            let found = pair(format, &line(format, &spans(n_chars)));
            assert_eq!(found.rejected.chars().count(), n_chars, "{format:?}");
            assert_eq!(problems(format, &line(format, &spans(n_chars + 1))), ["/rejected_spans/0 out_of_range"]);
        }
    }
}
