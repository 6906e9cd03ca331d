//! The scores a run has: those it was told (`scores.in.jsonl`) and those it computed (`scores.out.jsonl`).

use std::collections::HashMap;

use anyhow::Context;

use crate::{
    domain::{ReferenceScore, ScorePrecision},
    run_dir::{JsonLines, RunDir, read_all_scores},
};

/// What a reference says of one completion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Score {
    pub(super) logp: f64,
    pub(super) n_tokens: f64,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    score: Score,
    /// The run was told it.
    is_given: bool,
    /// The service knows that the row is one of this run's file.
    is_noted: bool,
    /// It has been counted as computed: for another line with the same text, or another name of the same model.
    is_counted: bool,
}

type Rows = HashMap<String, Kept>;

/// The scores known so far, and the file new ones go to.
pub(super) struct KeptScores {
    by_reference: HashMap<(ScorePrecision, String), Rows>,
    out: JsonLines,
}

impl KeptScores {
    /// Reads what was known before and what an earlier attempt has computed.
    pub(super) fn open(run: &RunDir) -> anyhow::Result<Self> {
        // Opening cuts off the line that a kill has left half written.
        let out = JsonLines::open(&run.scores_out())?;
        let mut by_reference: HashMap<_, Rows> = HashMap::new();
        let mut keep = |s: ReferenceScore, is_given: bool| {
            let score = Score { logp: s.logp, n_tokens: s.n_tokens };
            let is_noted = s.is_of_file || !is_given;
            let kept = by_reference.entry((s.precision, s.reference)).or_default().entry(s.row);
            kept.and_modify(|kept| kept.is_noted |= is_noted).or_insert(Kept {
                score,
                is_given,
                is_noted,
                is_counted: false,
            });
        };
        read_all_scores(&run.scores_in(), |score| keep(score, true))?;
        read_all_scores(&run.scores_out(), |score| keep(score, false))?;
        Ok(Self { by_reference, out })
    }

    /// The scores of one reference; adds none to the file by itself.
    pub(super) fn of(&mut self, reference: &str, precision: ScorePrecision) -> OfReference<'_> {
        let key = (precision, reference.to_owned());
        let rows = self.by_reference.entry(key).or_default();
        OfReference { rows, out: &mut self.out, reference: reference.to_owned(), precision }
    }
}

/// The scores of one reference.
pub(super) struct OfReference<'a> {
    rows: &'a mut Rows,
    out: &'a mut JsonLines,
    reference: String,
    precision: ScorePrecision,
}

impl OfReference<'_> {
    pub(super) fn is_known(&self, row: &str) -> bool {
        self.rows.contains_key(row)
    }

    /// Whether the run was told it, in this attempt as in every other.
    pub(super) fn is_given(&self, row: &str) -> bool {
        self.rows.get(row).is_some_and(|kept| kept.is_given)
    }

    /// A score that is needed for a line of the file.
    pub(super) fn get(&mut self, row: &str, line: u64) -> anyhow::Result<Score> {
        let kept = self.rows.get_mut(row).context("a reference score is missing although it was computed")?;
        let score = kept.score;
        if !kept.is_noted {
            kept.is_noted = true;
            self.write(row, line, score)?;
        }
        Ok(score)
    }

    /// Keeps a new one.
    pub(super) fn add(&mut self, row: &str, line: u64, score: Score) -> anyhow::Result<()> {
        self.write(row, line, score)?;
        self.rows.insert(row.to_owned(), Kept { score, is_given: false, is_noted: true, is_counted: false });
        Ok(())
    }

    /// How many of some completions the run was told, and how many scores it has computed for the others. What it has computed
    /// is counted once, so that two lines of the same text, and two names of the same model, tell what was done.
    pub(super) fn count<'b>(&mut self, rows: impl Iterator<Item = &'b String>) -> (u64, u64) {
        let (mut n_known, mut n_computed) = (0, 0);
        for row in rows {
            let Some(kept) = self.rows.get_mut(row) else { continue };
            if kept.is_given {
                n_known += 1;
            } else if !std::mem::replace(&mut kept.is_counted, true) {
                n_computed += 1;
            }
        }
        (n_known, n_computed)
    }

    /// Waits until all of it is on the disk.
    pub(super) fn sync(&self) -> anyhow::Result<()> {
        Ok(self.out.sync()?)
    }

    fn write(&mut self, row: &str, line: u64, score: Score) -> anyhow::Result<()> {
        let Score { logp, n_tokens } = score;
        let (reference, row, line) = (self.reference.clone(), row.to_owned(), Some(line));
        let precision = self.precision;
        Ok(self.out.append(&ReferenceScore { reference, precision, row, line, logp, n_tokens, is_of_file: false })?)
    }
}
