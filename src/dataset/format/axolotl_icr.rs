//! Axolotl's `icr` format: `{"input","chosen","rejected"}`, texts, and perhaps `system`.

use serde_json::{Map, Value};

use super::texts::{self, Names};
use crate::dataset::{Example, fields::Notes};

const NAMES: Names = Names { prompt: "input", chosen: "chosen", rejected: "rejected" };

pub(super) fn parse(row: &Map<String, Value>, notes: &mut Notes) -> Option<Example> {
    texts::parse(row, NAMES, notes)
}
