//! An upload and a part of one as the API shows them.

use serde::Serialize;
use utoipa::ToSchema;

use super::file_object::FileObject;
use crate::domain::{FilePurpose, FileRecord, PartId, PartRecord, UploadId, UploadRecord, UploadStatus, UserName};

/// A file on its way in.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct UploadObject {
    id: UploadId,
    /// `upload`.
    #[schema(example = "upload")]
    object: &'static str,
    /// How many bytes were announced.
    bytes: u64,
    /// Unix time in seconds.
    created_at: i64,
    /// When it can no longer be completed.
    expires_at: i64,
    /// The name the file will have.
    filename: String,
    purpose: FilePurpose,
    status: UploadStatus,
    /// Whose it is; null where nobody was asked for a key.
    owner: Option<UserName>,
    /// The file it has become; null until it is completed, and when the file has been deleted since.
    file: Option<FileObject>,
}

impl UploadObject {
    /// An upload, and the file it has become.
    pub(super) fn new(upload: UploadRecord, file: Option<FileRecord>) -> Self {
        Self {
            id: upload.id,
            object: "upload",
            bytes: upload.size_bytes,
            created_at: upload.created_at,
            expires_at: upload.expires_at,
            filename: upload.filename,
            purpose: upload.purpose,
            status: upload.status,
            owner: upload.ownership.owner,
            file: file.map(FileObject::from),
        }
    }
}

/// One part of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct PartObject {
    id: PartId,
    /// `upload.part`.
    #[schema(example = "upload.part")]
    object: &'static str,
    /// Unix time in seconds.
    created_at: i64,
    upload_id: UploadId,
    /// Size in bytes.
    bytes: u64,
    /// SHA-256 of the content as it arrived, in hexadecimal.
    sha256: String,
}

impl From<PartRecord> for PartObject {
    fn from(part: PartRecord) -> Self {
        Self {
            id: part.id,
            object: "upload.part",
            created_at: part.created_at,
            upload_id: part.upload_id,
            bytes: part.size_bytes,
            sha256: part.sha256,
        }
    }
}
