//! Axolotl's `argilla` format: `{"instruction","chosen_response","rejected_response"}`, texts, and perhaps `system`.

use serde_json::{Map, Value};

use super::texts::{self, Names};
use crate::dataset::{Example, fields::Notes};

const NAMES: Names = Names { prompt: "instruction", chosen: "chosen_response", rejected: "rejected_response" };

pub(super) fn parse(row: &Map<String, Value>, notes: &mut Notes) -> Option<Example> {
    texts::parse(row, NAMES, notes)
}
