//! A file as the API shows it.

use std::fmt::Write;

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{
    Container, DatasetFormat, DatasetReport, FileId, FilePurpose, FileRecord, FileStatus, Problem, UserName,
};

/// How many problems `status_details` puts into words; `report` has more.
const N_PROBLEMS_IN_WORDS: usize = 3;

/// A file.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct FileObject {
    id: FileId,
    /// `file`.
    #[schema(example = "file")]
    object: &'static str,
    /// Size in bytes.
    bytes: u64,
    /// Unix time in seconds.
    created_at: i64,
    /// When it is deleted; null: not by itself.
    expires_at: Option<i64>,
    /// The name it was uploaded under.
    filename: String,
    purpose: FilePurpose,
    status: FileStatus,
    /// Whose it is; null where nobody was asked for a key.
    owner: Option<UserName>,
    /// Whether the team sees and may use it.
    shared: bool,
    /// The first problems, in words.
    status_details: Option<String>,
    /// SHA-256 of the content, in hexadecimal.
    sha256: String,
    /// The format it was said to be in; null: it is told from the rows (`report.format`).
    format: Option<DatasetFormat>,
    /// What the check found; null until it is done.
    report: Option<DatasetReport>,
}

impl FileObject {
    /// As it stands in a list: without what makes a page of thousands long.
    pub(super) fn in_a_list(mut file: FileRecord) -> Self {
        if let Some(report) = &mut file.report {
            report.statistics = None;
        }
        file.into()
    }
}

impl From<FileRecord> for FileObject {
    fn from(file: FileRecord) -> Self {
        Self {
            status_details: file.report.as_ref().and_then(in_words),
            id: file.id,
            object: "file",
            bytes: file.size_bytes,
            created_at: file.created_at,
            expires_at: file.expires_at,
            filename: file.filename,
            purpose: file.purpose,
            status: file.status,
            owner: file.ownership.owner,
            shared: file.ownership.is_shared,
            sha256: file.sha256,
            format: file.format,
            report: file.report,
        }
    }
}

/// The first problems as one text, or nothing where there are none.
fn in_words(report: &DatasetReport) -> Option<String> {
    let problems = &report.problems;
    if problems.is_empty() {
        return None;
    }
    let place = report.container.unwrap_or(Container::JsonLines).word_for_place();
    let one = |p: &Problem| match p.line {
        Some(line) => format!("{place} {line}: {}", p.message),
        None => p.message.clone(),
    };
    let mut words = problems.first.iter().take(N_PROBLEMS_IN_WORDS).map(one).collect::<Vec<_>>().join("; ");
    if problems.n_total > N_PROBLEMS_IN_WORDS as u64 {
        let _ = write!(words, "; and {} more: see report", problems.n_total - N_PROBLEMS_IN_WORDS as u64);
    }
    Some(words)
}
