//! What the pairs of a dataset are like: counts and lengths, without a tokenizer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The pairs of a file in numbers. All but rows and the two kinds of refused rows are of its good pairs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct DatasetStatistics {
    /// Rows, good or not.
    pub n_rows: u64,
    /// Rows refused because a side is empty or white space.
    pub n_empty_sides: u64,
    /// Rows refused because both sides are the same.
    pub n_identical_sides: u64,
    /// Pairs that stand in the file before, the same in everything that is read.
    pub n_duplicate_pairs: u64,
    /// Pairs that contradict one before: the same prompt and sides, chosen and rejected swapped.
    pub n_label_conflicts: u64,
    /// Pairs whose prompt stands in the file before.
    pub n_repeated_prompts: u64,
    /// Pairs whose chosen side has more characters than the rejected one.
    pub n_chosen_longer: u64,
    /// Distinct pairs that are remembered, 458752 at most: pairs beyond them are compared with these only.
    pub n_remembered: u64,
    /// Pairs whose prompt begins with a system or developer message.
    pub n_system_prompts: u64,
    /// Messages of the prompts, by role.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub roles: BTreeMap<String, u64>,
    /// Messages of a prompt; a prompt that is a text counts as one.
    pub turns: Distribution,
    /// Lengths in characters.
    pub lengths: Lengths,
    /// The first pairs as they were read, cut.
    pub samples: Vec<Sample>,
}

/// Lengths in characters (Unicode scalar values, as Python's `len`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Lengths {
    /// Of prompts; of conversations, all messages together.
    pub prompt: Distribution,
    /// Of chosen sides.
    pub chosen: Distribution,
    /// Of rejected sides.
    pub rejected: Distribution,
}

/// How a number is distributed. Quantiles are exact up to 256 and 1 % too small at most beyond.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Distribution {
    /// The least.
    pub min: u64,
    /// Half are at most this.
    pub median: u64,
    /// 95 of 100 are at most this.
    pub p95: u64,
    /// The greatest.
    pub max: u64,
    /// How many there are in each bin; bins double, empty ones at both ends are left out.
    pub histogram: Vec<Bin>,
}

/// One bin of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bin {
    /// From this on.
    pub from: u64,
    /// Below this.
    pub below: u64,
    /// So many.
    pub n: u64,
}

/// A pair as it was read. Texts are cut at 200 characters; `…` stands where one was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// Its line or row.
    pub line: u64,
    /// The prompt: of a conversation the last message.
    pub prompt: String,
    /// Messages of the prompt; absent where it is a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_messages: Option<u64>,
    /// The better side.
    pub chosen: String,
    /// The worse side.
    pub rejected: String,
}
