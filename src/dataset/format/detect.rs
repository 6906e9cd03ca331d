//! Tells a row's format by its fields; `docs/datasets.md` has the table.

use serde_json::{Map, Value};

use super::{anthropic_hh, h2o, openai_preference};
use crate::{dataset::extra::present, domain::DatasetFormat};

/// The fields that some format reads. Other columns of a table are not even decoded.
const FIELDS: &[&str] = &[
    "answer",
    "answers",
    "chosen",
    "chosen_response",
    "completions",
    "context",
    "conversations",
    "history",
    "input",
    "instruction",
    "messages",
    "non_preferred_completion",
    "non_preferred_output",
    "output",
    "parent_id",
    "preferred_completion",
    "preferred_output",
    "prompt",
    "question",
    "rejected",
    "rejected_answer",
    "rejected_response",
    "tools",
];
/// The fields that may be left out of any row, and so may be empty in a table.
const OPTIONAL: &[&str] = &["dimension", "edited_response", "parent_id", "reference_response", "system"];
/// The optional fields that are numbers or lists, never texts.
const NEVER_TEXTS: &[&str] = &[
    "aux_rewards_chosen",
    "aux_rewards_rejected",
    "chosen_spans",
    "margin_rewards_chosen",
    "margin_rewards_rejected",
    "rejected_spans",
];

/// Whether anything is read from a field of this name.
pub(in crate::dataset) fn is_read(name: &str) -> bool {
    FIELDS.contains(&name) || is_optional(name)
}

/// Whether a row may leave a field out.
pub(in crate::dataset) fn is_optional(name: &str) -> bool {
    OPTIONAL.contains(&name) || is_never_a_text(name)
}

/// Whether a field holds numbers or lists, whatever a table without types writes them as.
pub(in crate::dataset) fn is_never_a_text(name: &str) -> bool {
    NEVER_TEXTS.contains(&name)
}

/// Whether the names of a table's columns are the fields of a format.
pub(in crate::dataset) fn names_a_format(row: &Map<String, Value>) -> bool {
    !detect(row).is_empty()
}

/// The formats a row's fields look like: one, where it is clear.
pub(in crate::dataset) fn detect(row: &Map<String, Value>) -> Vec<DatasetFormat> {
    let has = |name: &str| present(row, name).is_some();
    let mut found = Vec::new();
    let mut add = |is_it: bool, format: DatasetFormat| {
        if is_it {
            found.push(format);
        }
    };
    add(
        openai_preference::FIELDS.iter().flatten().any(|name| row.contains_key(*name)),
        DatasetFormat::OpenaiPreference,
    );
    add(has("completions") && has("context"), DatasetFormat::NemoRl);
    add(has("prompt") && present(row, "answers").is_some_and(Value::is_array), DatasetFormat::Nectar);
    let has_responses = has("chosen_response") && has("rejected_response");
    add(has_responses && (has("instruction") || !has("prompt")), DatasetFormat::AxolotlArgilla);
    let has_answers = h2o::names(row).is_some_and(|names| names.chosen != "chosen_response");
    add(has_answers || (has_responses && has("prompt")), DatasetFormat::H2o);
    found.extend(by_sides(row));
    found
}

/// The formats whose sides are called `chosen` and `rejected`, by what these are and what stands beside them.
fn by_sides(row: &Map<String, Value>) -> Vec<DatasetFormat> {
    let has_list = |name: &str| present(row, name).is_some_and(Value::is_array);
    let has_text = |name: &str| present(row, name).is_some_and(Value::is_string);
    let (Some(chosen), Some(rejected)) = (present(row, "chosen"), present(row, "rejected")) else { return Vec::new() };
    let conversations = [
        has_list("conversations").then_some(DatasetFormat::SharegptRanking),
        has_list("messages").then_some(DatasetFormat::AxolotlChatTemplate),
    ];
    // A prompt says what the sides answer, whatever else the row has.
    let prompt = present(row, "prompt");
    match (chosen, rejected, prompt) {
        // Sides that are texts belong to a conversation as well as those of one message do.
        (Value::String(_), Value::String(_), Some(Value::Array(_)))
        | (Value::Array(_), Value::Array(_), Some(Value::Array(_))) => {
            vec![DatasetFormat::TrlConversational]
        }
        (Value::String(_), Value::String(_), Some(Value::String(_))) => vec![DatasetFormat::TrlStandard],
        (Value::Array(_), Value::Array(_), Some(Value::String(_))) => vec![DatasetFormat::UltrafeedbackBinarized],
        (Value::Array(_), Value::Array(_), None) => vec![DatasetFormat::TrlConversationalImplicit],
        (Value::Object(_), Value::Object(_), None) => conversations.into_iter().flatten().collect(),
        (Value::String(chosen), Value::String(rejected), None) => {
            let instruction = has_text("instruction").then_some(DatasetFormat::AlpacaRanking);
            let question = has_text("question").then_some(DatasetFormat::AxolotlIntel);
            let input = (has_text("input") && instruction.is_none()).then_some(DatasetFormat::AxolotlIcr);
            let named: Vec<_> = conversations.into_iter().chain([instruction, question, input]).flatten().collect();
            match named.as_slice() {
                [] if [chosen, rejected].iter().all(|text| anthropic_hh::is_dialogue(text)) => {
                    vec![DatasetFormat::AnthropicHh]
                }
                [] => vec![DatasetFormat::TrlStandardImplicit],
                _ => named,
            }
        }
        _ => Vec::new(),
    }
}

/// Whether a row that looks like `other` shows by its very fields that it does not belong in a file of `format`: a row of
/// the same family more likely has a mistake, which is worth more to name.
pub(in crate::dataset) fn is_another_family(format: DatasetFormat, other: DatasetFormat) -> bool {
    family(format) != family(other)
}

/// What the sides are called and what they are.
fn family(format: DatasetFormat) -> u8 {
    match format {
        DatasetFormat::OpenaiPreference => 0,
        DatasetFormat::TrlStandard
        | DatasetFormat::TrlStandardImplicit
        | DatasetFormat::AnthropicHh
        | DatasetFormat::AlpacaRanking
        | DatasetFormat::AxolotlIntel
        | DatasetFormat::AxolotlIcr => 1,
        DatasetFormat::TrlConversational
        | DatasetFormat::TrlConversationalImplicit
        | DatasetFormat::UltrafeedbackBinarized => 2,
        DatasetFormat::SharegptRanking | DatasetFormat::AxolotlChatTemplate => 3,
        DatasetFormat::AxolotlArgilla | DatasetFormat::H2o => 4,
        DatasetFormat::Nectar => 5,
        DatasetFormat::NemoRl => 6,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(row: &Value) -> Vec<&'static str> {
        detect(row.as_object().expect("an object")).into_iter().map(DatasetFormat::as_str).collect()
    }

    #[test]
    fn a_row_that_two_formats_read_differently_is_of_both() {
        let row = json!({"instruction": "i", "question": "q", "chosen": "c", "rejected": "r"});
        assert_eq!(found(&row), ["alpaca_ranking", "axolotl_intel"]);
        let row = json!({"conversations": [], "messages": [], "chosen": {}, "rejected": {}});
        assert_eq!(found(&row), ["sharegpt_ranking", "axolotl_chat_template"]);
        let row = json!({"prompt": "p", "instruction": "i", "chosen_response": "c", "rejected_response": "r"});
        assert_eq!(found(&row), ["axolotl_argilla", "h2o"]);
        let row = json!({"prompt": "p", "answers": [], "chosen": "c", "rejected": "r"});
        assert_eq!(found(&row), ["nectar", "trl_standard"]);
    }

    #[test]
    fn a_prompt_decides_and_other_columns_do_not() {
        let row = json!({"prompt": "p", "instruction": "i", "messages": [], "chosen": "c", "rejected": "r", "id": 3});
        assert_eq!(found(&row), ["trl_standard"]);
        let row =
            json!({"prompt": null, "instruction": "i", "input": "", "chosen": "c", "rejected": "r", "output": "c"});
        assert_eq!(found(&row), ["alpaca_ranking"]);
        assert_eq!(
            found(&json!({"prompt": "p", "messages": [], "chosen": [], "rejected": []})),
            ["ultrafeedback_binarized"]
        );
        assert_eq!(found(&json!({"chosen": "c", "rejected": []})), [""; 0]);
        assert_eq!(found(&json!({"text": "t"})), [""; 0]);
    }
}
