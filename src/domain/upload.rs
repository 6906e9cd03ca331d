//! A file on its way in, part by part.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DatasetFormat, FileId, FilePurpose, Ownership, PartId, UploadId};

/// Where an upload stands (OpenAI's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UploadStatus {
    /// Takes parts.
    Pending,
    /// Its parts have become a file.
    Completed,
    /// Given up by its owner.
    Cancelled,
    /// Not completed in time.
    Expired,
}

/// An upload as the service knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRecord {
    /// Its id.
    pub id: UploadId,
    /// The name the file will have; shown, never used as a path.
    pub filename: String,
    /// What the file will be for.
    pub purpose: FilePurpose,
    /// The format it is said to be in.
    pub format: Option<DatasetFormat>,
    /// How many bytes were announced.
    pub size_bytes: u64,
    /// How long the file will be kept, in seconds; until it is deleted, if absent.
    pub file_kept_for_s: Option<u64>,
    /// Where it stands.
    pub status: UploadStatus,
    /// What it was completed with, in this order.
    pub part_ids: Vec<PartId>,
    /// The file it has become.
    pub file: Option<FileId>,
    /// Unix time in seconds.
    pub created_at: i64,
    /// When it can no longer be completed: Unix time in seconds.
    pub expires_at: i64,
    /// Whose it is.
    pub ownership: Ownership,
}

impl UploadRecord {
    /// How long an upload may take, in seconds.
    pub const MAX_SECONDS: i64 = 3600;
    /// The largest part, in bytes.
    pub const MAX_PART_BYTES: u64 = 64 << 20;
    /// How many parts an upload may have. Parts that are sent again count again.
    pub const MAX_PARTS: u64 = 2000;
    /// How many uploads one person may have under way.
    pub const MAX_PENDING: u64 = 32;

    /// How many bytes its parts may hold in all: room for sending every part twice.
    pub fn max_bytes_of_parts(&self) -> u64 {
        self.size_bytes.saturating_mul(2)
    }

    /// The same, as it stands at this time, in Unix seconds: whoever is late is late also before it is noted down.
    #[must_use]
    pub fn at(mut self, now: i64) -> Self {
        if self.status == UploadStatus::Pending && now >= self.expires_at {
            self.status = UploadStatus::Expired;
        }
        self
    }
}

/// One part of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartRecord {
    /// Its id; its content lies under this name.
    pub id: PartId,
    /// The upload it belongs to.
    pub upload_id: UploadId,
    /// Size in bytes.
    pub size_bytes: u64,
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
    /// Unix time in seconds.
    pub created_at: i64,
}
