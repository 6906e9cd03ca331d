//! Counts which extra fields the pairs of a file have.

use std::collections::BTreeMap;

use super::PreferencePair;
use crate::domain::{ExtraField, FieldSummary, Sides};

/// The counts so far, of every field: one may occur first on the last line.
#[derive(Debug, Default)]
pub(super) struct FieldCounts([FieldSummary; ExtraField::ALL.len()]);

impl FieldCounts {
    /// Counts one pair.
    pub(super) fn count(&mut self, pair: &PreferencePair) {
        let extra = &pair.extra;
        for (summary, field) in self.0.iter_mut().zip(ExtraField::ALL) {
            let n_rewards = |rewards: &Option<Sides<Vec<f64>>>| rewards.as_ref().map(|r| r.chosen.len());
            let (stands, n_values) = match field {
                ExtraField::MarginRewards => (extra.margin_rewards.is_some(), n_rewards(&extra.margin_rewards)),
                ExtraField::AuxRewards => (extra.aux_rewards.is_some(), n_rewards(&extra.aux_rewards)),
                ExtraField::Dimension => (extra.dimension.is_some(), None),
                ExtraField::ReferenceResponse => (extra.reference_response.is_some(), None),
                ExtraField::TokenSpans => (extra.spans.is_some() || extra.edited_response.is_some(), None),
            };
            if !stands {
                summary.first_line_without.get_or_insert(pair.line);
                continue;
            }
            summary.n_pairs += 1;
            summary.n_values = n_values.map(|n| n as u64);
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
