//! What a row may hold beyond its pair: fields at its top level, under the same names in every format, each optional.
//!
//! `null` counts as absent: that is how tables write a missing value.

use std::ops::Range;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Example, fields::Notes, messages, rewards, spans};
use crate::domain::{DatasetFormat, Sides};

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
    const MAX_CHARS: usize = 64;
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
        DatasetFormat::OpenaiPreference | DatasetFormat::TrlConversational | DatasetFormat::TrlConversationalImplicit
    );
    let pointer = format!("/{name}");
    let text = match present(row, name)? {
        // As the completions of that format: the white space around a turn goes.
        Value::String(text) if format == DatasetFormat::AnthropicHh => text.trim().to_owned(),
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
