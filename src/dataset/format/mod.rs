//! Which format a row is in, and what every format checks in the same way.

mod alpaca_ranking;
mod anthropic_hh;
mod axolotl_argilla;
mod axolotl_chat_template;
mod axolotl_icr;
mod axolotl_intel;
mod detect;
mod h2o;
mod nectar;
mod nemo_rl;
mod openai_preference;
mod ranks;
mod sharegpt_ranking;
mod texts;
mod trl_conversational;
mod trl_conversational_implicit;
mod trl_standard;
mod trl_standard_implicit;
mod ultrafeedback_binarized;

use serde_json::{Map, Value};

pub(super) use self::detect::{detect, is_another_family, is_never_a_text, is_optional, is_read, names_a_format};
use super::{Example, Prompt, fields::Notes, messages};
use crate::domain::DatasetFormat;

/// What to show to those whose row fits no format.
pub(super) const SHAPES: &str = "expected {\"prompt\", \"chosen\", \"rejected\"}, {\"chosen\", \"rejected\"} with a shared \
    beginning (texts or lists of messages), {\"input\": {\"messages\"}, \"preferred_output\", \"non_preferred_output\"}, or \
    another one of docs/datasets.md";

/// Reads a row that is in `format`.
pub(super) fn parse(format: DatasetFormat, row: &Map<String, Value>, notes: &mut Notes) -> Option<Example> {
    match format {
        DatasetFormat::OpenaiPreference => openai_preference::parse(row, notes),
        DatasetFormat::TrlStandard => trl_standard::parse(row, notes),
        DatasetFormat::TrlStandardImplicit => trl_standard_implicit::parse(row, notes),
        DatasetFormat::TrlConversational => trl_conversational::parse(row, notes),
        DatasetFormat::TrlConversationalImplicit => trl_conversational_implicit::parse(row, notes),
        DatasetFormat::AnthropicHh => anthropic_hh::parse(row, notes),
        DatasetFormat::UltrafeedbackBinarized => ultrafeedback_binarized::parse(row, notes),
        DatasetFormat::AlpacaRanking => alpaca_ranking::parse(row, notes),
        DatasetFormat::SharegptRanking => sharegpt_ranking::parse(row, notes),
        DatasetFormat::AxolotlArgilla => axolotl_argilla::parse(row, notes),
        DatasetFormat::AxolotlIntel => axolotl_intel::parse(row, notes),
        DatasetFormat::AxolotlIcr => axolotl_icr::parse(row, notes),
        DatasetFormat::AxolotlChatTemplate => axolotl_chat_template::parse(row, notes),
        DatasetFormat::Nectar => nectar::parse(row, notes),
        DatasetFormat::NemoRl => nemo_rl::parse(row, notes),
        DatasetFormat::H2o => h2o::parse(row, notes),
    }
}

/// Puts a pair together once its completions hold something and differ; `pointers` say where they stand.
pub(super) fn finish(
    prompt: Option<Prompt>,
    completions: [Option<String>; 2],
    pointers: [&str; 2],
    notes: &mut Notes,
) -> Option<Example> {
    match &prompt {
        Some(Prompt::Text(text)) if text.trim().is_empty() => {
            notes.problem("/prompt", "empty_prompt", "the prompt is empty: give the text the completions answer");
        }
        _ => {}
    }
    for (completion, pointer) in completions.iter().zip(pointers) {
        if completion.as_ref().is_some_and(|text| text.trim().is_empty()) {
            let message = "the completion is empty: give its text or remove the line";
            notes.problem(pointer, "empty_completion", message);
        }
    }
    let [Some(chosen), Some(rejected)] = completions else { return None };
    if chosen == rejected && !chosen.trim().is_empty() {
        let message = "both completions are the same, so there is nothing to prefer: remove the line";
        notes.problem(pointers[1], "identical_completions", message);
    }
    Some(Example { prompt: prompt?, chosen, rejected })
}

/// The prompt that a list of messages is.
pub(super) fn conversation(value: &Value, pointer: &str, notes: &mut Notes) -> Option<Prompt> {
    let list = messages::parse(value, pointer, notes)?;
    messages::check_prompt(&list, pointer, notes);
    Some(Prompt::Messages(list))
}

/// Tools are part of what a chat template renders; we do not hand them to it, and say so.
pub(super) fn warn_of_tools(tools: Option<&Value>, pointer: &str, notes: &mut Notes) {
    if tools.is_some_and(|tools| tools.as_array().is_some_and(|list| !list.is_empty())) {
        notes.warning(pointer, "ignored_tools", "tools are not rendered into the prompt: the model does not see them");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use crate::{
        dataset::{PairReader, PreferencePair, Row},
        domain::DatasetFormat,
    };

    /// The only row of `line`, which may be written over several lines, and the format it was read in.
    fn row(line: &str, format: Option<DatasetFormat>) -> (Row, Option<DatasetFormat>) {
        let line = line.replace('\n', "");
        let mut reader = PairReader::new(line.as_bytes(), format);
        let row = reader.read().expect("a slice is readable").expect("one row");
        (row, reader.format())
    }

    /// The pair on a line, whose format is found without being told.
    pub(in crate::dataset) fn pair(format: DatasetFormat, line: &str) -> PreferencePair {
        let (row, found) = row(line, None);
        assert_eq!(found, Some(format));
        row.pair.expect("a pair")
    }

    /// Pointer and code of everything wrong with a line.
    pub(in crate::dataset) fn problems(format: DatasetFormat, line: &str) -> Vec<String> {
        let (row, _) = row(line, Some(format));
        let problems = row.pair.expect_err("problems");
        problems.into_iter().map(|p| format!("{} {}", p.pointer.unwrap_or_default(), p.code)).collect()
    }
}
