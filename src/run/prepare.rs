//! The data in the policy's tokens: read, encoded, cut as the policy says, counted and reported before any training.

use std::path::Path;

use super::journal::Journal;
use crate::{
    dataset::{self, PreferencePair},
    domain::{Failure, FailureCode, Hyperparameters, Level},
    text::{Codec, EncodedPair, Fit, FitReport, fit},
};

/// A pair that will be used.
pub(super) struct Prepared {
    /// As it stands in the file.
    pub(super) pair: PreferencePair,
    /// In the policy's tokens.
    pub(super) encoded: EncodedPair,
    /// Characters kept of the rendered prompt, if it was cut.
    pub(super) n_chars_kept: Option<usize>,
}

/// Reads and encodes one file. `name` is what people call it.
pub(super) fn prepare(
    path: &Path,
    name: &str,
    codec: &Codec,
    settings: &Hyperparameters,
    journal: &mut Journal,
) -> anyhow::Result<Vec<Prepared>> {
    let invalid = |message: String| Failure::new(FailureCode::InvalidDataset, message);
    let pairs = dataset::read_pairs(path, None).map_err(|e| invalid(format!("the {name} file: {e}")))?;
    let mut report = FitReport::default();
    let mut prepared = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let encoded =
            codec.encode_pair(&pair).map_err(|e| invalid(format!("the {name} file, line {}: {e}", pair.line)))?;
        if encoded.prompt.is_empty() {
            return Err(invalid(format!("the {name} file, line {}: the prompt has no tokens", pair.line)).into());
        }
        let fitted = fit(encoded, settings.max_length, settings.truncation);
        report.record(pair.line, &fitted);
        match fitted {
            Fit::Whole(encoded) => prepared.push(Prepared { pair, encoded, n_chars_kept: None }),
            Fit::PromptCut { pair: encoded, n_chars_kept, .. } => {
                prepared.push(Prepared { pair, encoded, n_chars_kept: Some(n_chars_kept) });
            }
            Fit::Dropped(_) | Fit::Refused(_) => {}
        }
    }
    let sentence = format!("{name} file: {}", report.sentence());
    if report.n_refused > 0 {
        return Err(invalid(format!("{sentence}; raise max_length or choose another truncation policy")).into());
    }
    if prepared.is_empty() {
        return Err(invalid(format!("{sentence}; nothing is left to train on: raise max_length")).into());
    }
    let level = if report.n_dropped > 0 { Level::Warn } else { Level::Info };
    journal.message(level, sentence)?;
    Ok(prepared)
}
