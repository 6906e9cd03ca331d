//! One of several files, with what tells whether it is whole.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One of several files, with what tells whether it is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HashedFile {
    /// Its name in their directory.
    pub name: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}
