//! References whose scores were made elsewhere: nothing is computed, each pair is looked up by its file and line.

use std::{collections::HashMap, io::BufReader, path::Path};

use super::{
    journal::Journal,
    kept_scores::Score,
    prepare::{Part, Prepared},
    references::{Column, unusable},
};
use crate::{
    dataset::{GivenScore, read_scores},
    domain::{Failure, FailureCode, FileId, Level, ResolvedReference, ScoresSummary, TrainSpec},
};

/// The scores of all pairs, in their order.
///
/// # Errors
/// In words, if a pair has none, or the method needs more than two sums.
pub(super) fn column(
    reference: &ResolvedReference,
    spec: &TrainSpec,
    pairs: &[&Prepared],
    journal: &mut Journal,
) -> anyhow::Result<Column> {
    let given = Given::read(reference, spec)?;
    let settings = &spec.hyperparameters;
    if let Some(why) = given.summary.unfit_for(&spec.method, &settings.objective) {
        return Err(unusable(reference, &why).into());
    }
    given.check_covered(pairs)?;
    given.warn_of_another_file(pairs, journal)?;
    let scores = pairs.iter().map(|pair| given.scores_of(pair)).collect();
    Ok(scores)
}

struct Given<'a> {
    reference: &'a ResolvedReference,
    summary: ScoresSummary,
    rows: HashMap<(Part, u64), GivenScore>,
    /// The held-out pairs' file.
    validation: Option<FileId>,
}

impl<'a> Given<'a> {
    fn read(reference: &'a ResolvedReference, spec: &TrainSpec) -> anyhow::Result<Self> {
        let (training, validation) = (file_id(&spec.training_file), spec.validation_file.as_deref().and_then(file_id));
        let mut rows = HashMap::new();
        let mut twice = None;
        let mut add = |score: GivenScore| {
            for (part, id) in [(Part::Training, &training), (Part::Validation, &validation)] {
                let is_of_part = match &score.file {
                    Some(file) => id.as_ref() == Some(file),
                    None => part == Part::Training || id.is_some() && *id == training,
                };
                if !is_of_part {
                    continue;
                }
                let (row, line) = (score.row, score.line);
                if let Some(first) = rows.insert((part, row), score.clone()) {
                    twice.get_or_insert((part, row, first.line, line));
                }
            }
        };
        let file = fs_err::File::open(&reference.location.weights)?;
        let report = read_scores(BufReader::new(file), &mut add)?;
        if let Some(problem) = report.problems.first.first() {
            return Err(unusable(reference, &problem.message).into());
        }
        if let Some((part, row, first, second)) = twice {
            let message = format!(
                "lines {first} and {second} of the scores are both of row {row} of the {} file: give each row once",
                part.as_str()
            );
            return Err(unusable(reference, &message).into());
        }
        Ok(Self { reference, summary: report.scores.unwrap_or_default(), rows, validation })
    }

    /// A pair without a score is an error, never a default.
    fn check_covered(&self, pairs: &[&Prepared]) -> anyhow::Result<()> {
        let is_missing = |pair: &&&Prepared| !self.rows.contains_key(&(pair.part, pair.pair.line));
        let Some(first) = pairs.iter().find(is_missing) else { return Ok(()) };
        let (part, line) = (first.part, first.pair.line);
        let file = match (part, &self.validation) {
            (Part::Validation, Some(id)) => format!(r#", "file": "{id}""#),
            _ => String::new(),
        };
        let n_missing = pairs.iter().filter(is_missing).count();
        let others = if n_missing > 1 { format!(", nor of {} others", n_missing - 1) } else { String::new() };
        let message = format!(
            r#"the scores of {} have no row of line {line} of the {} file{others}: add {{"row": {line}{file}, "chosen": .., "rejected": ..}} and register the file anew, or leave the reference out"#,
            self.reference.model,
            part.as_str()
        );
        Err(Failure::new(FailureCode::InvalidReferenceScore, message).into())
    }

    /// Rows that name no file go with any: where they reach beyond its end, it is likely another one.
    fn warn_of_another_file(&self, pairs: &[&Prepared], journal: &mut Journal) -> anyhow::Result<()> {
        for part in [Part::Training, Part::Validation] {
            let last = pairs.iter().filter(|pair| pair.part == part).map(|pair| pair.pair.line).max().unwrap_or(0);
            let n_beyond = self.rows.keys().filter(|(of, row)| *of == part && *row > last).count();
            if n_beyond > 0 {
                let message = format!(
                    "{n_beyond} scores of {} are of rows after line {last}, the last that is used of the {} file: were they \
                     made of another file?",
                    self.reference.model,
                    part.as_str()
                );
                journal.message(Level::Warn, message)?;
            }
        }
        Ok(())
    }

    fn scores_of(&self, pair: &Prepared) -> Vec<Score> {
        let GivenScore { logps, n_tokens, .. } = &self.rows[&(pair.part, pair.pair.line)];
        // Not read where they are absent, which has been checked; no number would be true.
        let (of_chosen, of_rejected) = n_tokens.map_or((f64::NAN, f64::NAN), |n| (n.chosen, n.rejected));
        vec![Score { logp: logps.chosen, n_tokens: of_chosen }, Score { logp: logps.rejected, n_tokens: of_rejected }]
    }
}

/// Uploaded files lie under their ids; one of a run that was set up by hand has none.
fn file_id(path: &Path) -> Option<FileId> {
    path.file_name()?.to_str()?.parse().ok()
}
