//! Uploaded files and what checking them found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Compression, Container, DatasetFormat, DatasetStatistics, ExtraField, FieldSummary, FileId, JobId, Ownership,
    Problems, ScoresSummary,
};

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum FilePurpose {
    /// A preference dataset to train or validate on.
    #[serde(rename = "fine-tune")]
    FineTune,
    /// Log-probabilities of a dataset's pairs under a model elsewhere.
    #[serde(rename = "reference-scores")]
    ReferenceScores,
    /// Results a job wrote.
    #[serde(rename = "fine-tune-results")]
    FineTuneResults,
}

/// How far a file's check is (OpenAI's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileStatus {
    /// Stored, being checked.
    Uploaded,
    /// Every row is a preference pair, or a score.
    Processed,
    /// At least one row is not: see `report`.
    Error,
}

/// What checking a file found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct DatasetReport {
    /// The format its rows are in: the one given, or told from the first row that fits one.
    pub format: Option<DatasetFormat>,
    /// What keeps its rows, told from its first bytes.
    #[serde(default)]
    pub container: Option<Container>,
    /// What it is packed with.
    #[serde(default)]
    pub compression: Option<Compression>,
    /// Number of preference pairs; of a file of scores, number of pairs that have theirs.
    pub n_pairs: u64,
    /// Everything that is wrong with it, by line.
    pub problems: Problems,
    /// What is odd but allowed, by line (for instance a pair that stands twice).
    #[serde(default)]
    pub warnings: Problems,
    /// The extra fields that occur, and on how many pairs.
    #[serde(default)]
    pub fields: BTreeMap<ExtraField, FieldSummary>,
    /// Of a file of scores: what they cover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<ScoresSummary>,
    /// Its pairs in numbers. Left out of lists of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<DatasetStatistics>,
}

impl DatasetReport {
    /// What to say where not every pair has `field`; `None` where every pair has it.
    pub fn lacks(&self, field: ExtraField) -> Option<String> {
        let Some(summary) = self.fields.get(&field) else {
            return Some(format!("no pair has {field}: give every line {}", field.row_fields()));
        };
        let line = summary.first_line_without?;
        let (n, n_pairs) = (summary.n_pairs, self.n_pairs);
        Some(format!("{field} stands on {n} of {n_pairs} pairs; the first line without it is {line}"))
    }
}

/// An uploaded file as the service knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    /// Its id; its content lies under this name, never under the user's.
    pub id: FileId,
    /// The name the user gave it; shown, never used as a path.
    pub filename: String,
    /// What it is for.
    pub purpose: FilePurpose,
    /// Size in bytes.
    pub size_bytes: u64,
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
    /// The format it was said to be in when it was uploaded.
    pub format: Option<DatasetFormat>,
    /// How far its check is.
    pub status: FileStatus,
    /// What the check found.
    pub report: Option<DatasetReport>,
    /// Unix time in seconds.
    pub created_at: i64,
    /// When it goes by itself: Unix time in seconds; never, if absent.
    pub expires_at: Option<i64>,
    /// The job whose results it holds.
    pub job_id: Option<JobId>,
    /// Whose it is.
    pub ownership: Ownership,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_lacks_is_said_in_words() {
        let mut report = DatasetReport { n_pairs: 1094, ..DatasetReport::default() };
        let summary = FieldSummary { n_pairs: 1090, first_line_without: Some(37), ..FieldSummary::default() };
        report.fields.insert(ExtraField::MarginRewards, summary);
        report.fields.insert(ExtraField::Dimension, FieldSummary { n_pairs: 1094, ..FieldSummary::default() });
        assert_eq!(report.lacks(ExtraField::Dimension), None);
        assert_eq!(
            report.lacks(ExtraField::MarginRewards).as_deref(),
            Some("margin_rewards stands on 1090 of 1094 pairs; the first line without it is 37")
        );
        assert_eq!(
            report.lacks(ExtraField::ReferenceResponse).as_deref(),
            Some("no pair has reference_response: give every line the field `reference_response`")
        );
    }

    /// Reports are kept for ever: those of files that were checked before there were extra fields are read too.
    #[test]
    fn reports_are_written_under_the_fields_names() {
        let old = r#"{"format":"trl_standard","n_pairs":2,"problems":{"n_total":0,"first":[]}}"#;
        let mut report: DatasetReport = serde_json::from_str(old).expect("an old report");
        assert!(report.fields.is_empty());
        for field in ExtraField::ALL {
            report.fields.insert(field, FieldSummary::default());
        }
        let written = serde_json::to_value(&report).expect("JSON");
        for field in ExtraField::ALL {
            assert!(written["fields"][field.as_str()].is_object(), "{field}");
        }
        assert_eq!(serde_json::from_value::<DatasetReport>(written).expect("a report"), report);
    }

    #[test]
    fn a_limited_number_of_values_is_told_apart() {
        let mut summary = FieldSummary::default();
        for value in 0..=FieldSummary::MAX_VALUES {
            summary.count_value(&value.to_string());
            summary.count_value("0");
        }
        assert_eq!(summary.values.len(), FieldSummary::MAX_VALUES);
        assert_eq!((summary.values["0"], summary.values["1"]), (FieldSummary::MAX_VALUES as u64 + 2, 1));
    }
}
