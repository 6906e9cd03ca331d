//! What a row may hold beyond its pair, and how much of a file has it.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something a method may need of every row beyond prompt, chosen and rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExtraField {
    /// The other objectives' rewards of each completion: `margin_rewards_chosen`, `margin_rewards_rejected`.
    MarginRewards,
    /// Auxiliary rewards of each completion: `aux_rewards_chosen`, `aux_rewards_rejected`.
    AuxRewards,
    /// The dimension of quality the preference is about: `dimension`.
    Dimension,
    /// What an earlier policy answered: `reference_response`.
    ReferenceResponse,
    /// Which tokens count: `chosen_spans` and `rejected_spans`, or `edited_response`.
    TokenSpans,
}

impl ExtraField {
    /// The most rewards a completion can have, of either kind.
    pub const MAX_REWARDS: usize = 64;
    /// The longest name of a dimension.
    pub const MAX_DIMENSION_CHARS: usize = 64;

    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::MarginRewards, Self::AuxRewards, Self::Dimension, Self::ReferenceResponse, Self::TokenSpans];

    /// The name reports use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MarginRewards => "margin_rewards",
            Self::AuxRewards => "aux_rewards",
            Self::Dimension => "dimension",
            Self::ReferenceResponse => "reference_response",
            Self::TokenSpans => "token_spans",
        }
    }

    /// The fields of a row it is read from, in words: "the field ..".
    pub fn row_fields(self) -> &'static str {
        match self {
            Self::MarginRewards => "the fields `margin_rewards_chosen` and `margin_rewards_rejected`",
            Self::AuxRewards => "the fields `aux_rewards_chosen` and `aux_rewards_rejected`",
            Self::Dimension => "the field `dimension`",
            Self::ReferenceResponse => "the field `reference_response`",
            Self::TokenSpans => "the fields `chosen_spans` and `rejected_spans`, or `edited_response`",
        }
    }
}

impl fmt::Display for ExtraField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much of a file has one extra field.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct FieldSummary {
    /// Pairs that have it.
    pub n_pairs: u64,
    /// The first line with a pair that lacks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_line_without: Option<u64>,
    /// Of rewards: how many each completion has, the same on every line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_values: Option<u64>,
    /// Of `dimension`: pairs of each value, the first 100 values that occur; pairs of other values are not counted here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, u64>,
}

impl FieldSummary {
    /// How many values are told apart.
    pub const MAX_VALUES: usize = 100;

    /// Counts one pair of a value.
    pub fn count_value(&mut self, value: &str) {
        if let Some(n) = self.values.get_mut(value) {
            *n += 1;
        } else if self.values.len() < Self::MAX_VALUES {
            self.values.insert(value.to_owned(), 1);
        }
    }
}
