//! The data in the policy's tokens: read, encoded, cut as the policy says, counted and reported before any training.

use std::path::Path;

use super::journal::Journal;
use crate::{
    dataset::{self, PreferencePair},
    domain::{Failure, FailureCode, Hyperparameters, Level},
    score::{ScoringCompletion, ScoringRow},
    text::{Codec, EncodedPair, Fit, FitReport, TextError, cut_prompt_to_chars, fit, row_digest},
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

impl Prepared {
    /// The names of what a reference is asked, in its own rendering: a row per completion.
    pub(super) fn row_digests(&self, codec: &Codec) -> Result<Vec<String>, TextError> {
        let prompt = codec.render_prompt(&self.pair.prompt)?;
        let row = |completion| row_digest(&prompt, completion, self.n_chars_kept, None);
        Ok(vec![row(&self.pair.chosen), row(&self.pair.rejected)])
    }

    /// The completions in a reference's own tokens, in the order of the digests.
    pub(super) fn scoring_row(&self, codec: &Codec) -> Result<ScoringRow, TextError> {
        let encoded = codec.encode_pair(&self.pair)?;
        let encoded = match self.n_chars_kept {
            Some(n_chars_kept) => cut_prompt_to_chars(encoded, n_chars_kept),
            None => encoded,
        };
        let completion = |tokens| ScoringCompletion { tokens, weights: None };
        let completions = vec![completion(encoded.chosen), completion(encoded.rejected)];
        Ok(ScoringRow { prompt: encoded.prompt, completions })
    }
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
