//! How much of one dataset stands in another one.

use serde::Serialize;
use utoipa::ToSchema;

/// The pairs of a file that stand in another one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct Overlap {
    /// Pairs of the file asked about.
    pub n_pairs: u64,
    /// Those whose prompt stands in the other file; all that follow are among them.
    pub n_shared_prompts: u64,
    /// Those that stand there with the same sides.
    pub n_shared_pairs: u64,
    /// Those that stand there with chosen and rejected swapped.
    pub n_swapped_pairs: u64,
    /// Whether all of the other file was looked in; of a very large one its first two million pairs are.
    pub is_complete: bool,
    /// The first 100 of them.
    pub first: Vec<SharedPair>,
}

/// A pair that stands in both files, or its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct SharedPair {
    /// Its line or row in the file asked about.
    pub line: u64,
    /// Where it stands first in the other file.
    pub line_within: u64,
    /// How much of it stands there.
    pub part: SharedPart,
}

/// How much of a pair two files share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SharedPart {
    /// Prompt and both sides.
    Pair,
    /// Prompt and both sides, chosen and rejected swapped.
    SwappedPair,
    /// The prompt alone.
    Prompt,
}
