//! What the numbers of an exported model are stored as.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The type of an exported model's matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExportDtype {
    /// IEEE 754 single precision: nothing is lost.
    Float32,
    /// IEEE 754 half precision.
    Float16,
    /// The upper half of single precision.
    Bfloat16,
    /// Blocks of 32 numbers of eight bits with one scale (GGUF's `Q8_0`).
    Q8_0,
}
