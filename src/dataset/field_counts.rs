//! Counts which extra fields the pairs of a file have.

use std::collections::BTreeMap;

use super::PreferencePair;
use crate::domain::{ExtraField, FieldSummary};

/// The counts so far, of every field: one may occur first on the last line.
#[derive(Debug, Default)]
pub(super) struct FieldCounts([FieldSummary; ExtraField::ALL.len()]);

impl FieldCounts {
    /// Counts one pair.
    pub(super) fn count(&mut self, pair: &PreferencePair) {
        let extra = &pair.extra;
        for (summary, field) in self.0.iter_mut().zip(ExtraField::ALL) {
            if !extra.has(field) {
                summary.first_line_without.get_or_insert(pair.line);
                continue;
            }
            let rewards = match field {
                ExtraField::MarginRewards => extra.margin_rewards.as_ref(),
                ExtraField::AuxRewards => extra.aux_rewards.as_ref(),
                ExtraField::Dimension | ExtraField::ReferenceResponse | ExtraField::TokenSpans => None,
            };
            summary.n_pairs += 1;
            summary.n_values = rewards.map(|rewards| rewards.chosen.len() as u64);
            if let (ExtraField::Dimension, Some(value)) = (field, &extra.dimension) {
                summary.count_value(value);
            }
        }
    }

    /// The fields that at least one pair has.
    pub(super) fn that_occur(self) -> BTreeMap<ExtraField, FieldSummary> {
        ExtraField::ALL.into_iter().zip(self.0).filter(|(_, summary)| summary.n_pairs > 0).collect()
    }
}
