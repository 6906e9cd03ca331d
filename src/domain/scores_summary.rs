//! Scores made elsewhere: what a file of them covers, and what it is fit for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{FileId, Method, ObjectiveSpec};

/// What a file of scores covers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ScoresSummary {
    /// Rows that name no file: they are of whatever file a job trains on.
    pub n_of_training_file: u64,
    /// Rows of the files that are named, of the first 20 of these.
    pub files: BTreeMap<FileId, u64>,
    /// Rows with the numbers of tokens.
    pub n_with_token_counts: u64,
    /// The first line without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_line_without_token_counts: Option<u64>,
}

impl ScoresSummary {
    /// How many files are told apart.
    pub const MAX_FILES: usize = 20;

    /// Counts one row of a file.
    pub fn count_of(&mut self, file: &FileId) {
        if let Some(n) = self.files.get_mut(file) {
            *n += 1;
        } else if self.files.len() < Self::MAX_FILES {
            self.files.insert(file.clone(), 1);
        }
    }

    /// Why a job with this method and objective cannot use them; nothing where it can.
    ///
    /// SELM asks its base alone for the third completion, so it can.
    pub fn unfit_for(&self, method: &Method, objective: &ObjectiveSpec) -> Option<String> {
        if let Method::TokenLevel(_) = method {
            let message = "token_level weighs single tokens, and all that is known here are sums over whole completions: take \
                           references with weights";
            return Some(message.to_owned());
        }
        let line = self.first_line_without_token_counts.filter(|_| objective.length_normalized)?;
        Some(format!(
            "length_normalized divides by the number of tokens, and line {line} of the scores has none: give every line \
             chosen_tokens and rejected_tokens, or train without length_normalized"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TokenLevelSettings;

    #[test]
    fn what_needs_more_than_two_sums_is_told() {
        let mut scores = ScoresSummary::default();
        let plain = ObjectiveSpec::default();
        let per_token = ObjectiveSpec { length_normalized: true, ..plain.clone() };
        assert_eq!(scores.unfit_for(&Method::Mrpo, &per_token), None);
        scores.first_line_without_token_counts = Some(7);
        assert_eq!(scores.unfit_for(&Method::Mrpo, &plain), None);
        assert!(scores.unfit_for(&Method::Mrpo, &per_token).expect("a reason").contains("line 7"));
        let token_level = Method::TokenLevel(TokenLevelSettings { outside_weight: 0.0 });
        assert!(scores.unfit_for(&token_level, &plain).expect("a reason").contains("token_level"));
    }

    #[test]
    fn a_limited_number_of_files_is_told_apart() {
        let mut scores = ScoresSummary::default();
        let first = FileId::new();
        scores.count_of(&first);
        (0..ScoresSummary::MAX_FILES).for_each(|_| scores.count_of(&FileId::new()));
        scores.count_of(&first);
        assert_eq!((scores.files.len(), scores.files[&first]), (ScoresSummary::MAX_FILES, 2));
    }
}
