//! The data in the policy's tokens: read, encoded, cut as the policy says, counted and reported before any training.

use std::path::Path;

use super::{extras, journal::Journal};
use crate::{
    dataset::{self, PreferencePair},
    domain::{Failure, FailureCode, Level, Method, Sides, TrainSpec},
    score::{ScoringCompletion, ScoringRow},
    text::{Codec, EncodedPair, Fit, FitReport, TextError, TokenWeighting, cut_prompt_to_chars, fit, row_digest},
};

/// Which of a job's files a pair is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Training,
    Validation,
}

impl Part {
    /// What people call it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Validation => "validation",
        }
    }
}

/// A pair that will be used.
pub(super) struct Prepared {
    /// The file it is of.
    pub(super) part: Part,
    /// As it stands in the file, with what the method takes of its extra fields.
    pub(super) pair: PreferencePair,
    /// In the policy's tokens.
    pub(super) encoded: EncodedPair,
    /// Characters kept of the rendered prompt, if it was cut.
    n_chars_kept: Option<usize>,
    /// Weight of the tokens outside the pair's spans.
    outside_weight: f64,
    /// Weights of the completions' likelihood.
    pub(super) likelihood: Sides<f64>,
}

impl Prepared {
    /// The names of what a reference is asked, in its own rendering: a row per completion, as [`Self::scoring_row`] has them.
    pub(super) fn row_digests(&self, codec: &Codec) -> Result<Vec<String>, TextError> {
        Ok(self.row_digests_in(&codec.render_prompt(&self.pair.prompt)?))
    }

    /// The same of a prompt that is rendered already.
    pub(super) fn row_digests_in(&self, prompt: &str) -> Vec<String> {
        let PreferencePair { chosen, rejected, extra, .. } = &self.pair;
        let outside_weight = self.outside_weight;
        let row = |completion: &str, spans: Option<&Vec<_>>| {
            let weighting = spans.map(|spans| TokenWeighting { spans, outside_weight });
            row_digest(prompt, completion, self.n_chars_kept, weighting)
        };
        let spans = extra.spans.as_ref();
        let mut rows = vec![row(chosen, spans.map(|s| &s.chosen)), row(rejected, spans.map(|s| &s.rejected))];
        rows.extend(extra.reference_response.as_ref().map(|response| row(response, None)));
        rows
    }

    /// The completions' texts, as many as there are rows.
    pub(super) fn completions(&self) -> impl Iterator<Item = &str> {
        let PreferencePair { chosen, rejected, extra, .. } = &self.pair;
        [chosen.as_str(), rejected.as_str()].into_iter().chain(extra.reference_response.as_deref())
    }

    /// A rendered prompt, cut as the policy's was.
    pub(super) fn cut<'a>(&self, prompt: &'a str) -> &'a str {
        let Some(n_kept) = self.n_chars_kept.filter(|n| *n > 0) else { return prompt };
        prompt.char_indices().rev().nth(n_kept - 1).map_or(prompt, |(at, _)| &prompt[at..])
    }

    /// The completions in a reference's own tokens: chosen, rejected, and the reference response where there is one.
    pub(super) fn scoring_row(&self, codec: &Codec) -> Result<ScoringRow, TextError> {
        let encoded = codec.encode_pair(&self.pair)?;
        let encoded = match self.n_chars_kept {
            Some(n_chars_kept) => cut_prompt_to_chars(encoded, n_chars_kept),
            None => encoded,
        };
        let weights = encoded.token_weights(self.outside_weight);
        let (of_chosen, of_rejected) = weights.map_or((None, None), |w| (Some(w.chosen), Some(w.rejected)));
        let completion = |tokens, weights| ScoringCompletion { tokens, weights };
        let mut completions = vec![completion(encoded.chosen, of_chosen), completion(encoded.rejected, of_rejected)];
        completions.extend(encoded.reference_response.map(|tokens| completion(tokens, None)));
        Ok(ScoringRow { prompt: encoded.prompt, completions })
    }

    /// The weight of each of the policy's tokens, where not all count as 1.
    pub(super) fn token_weights(&self) -> Option<Sides<Vec<f64>>> {
        self.encoded.token_weights(self.outside_weight)
    }
}

/// Reads and encodes one file.
pub(super) fn prepare(
    path: &Path,
    part: Part,
    codec: &Codec,
    spec: &TrainSpec,
    journal: &mut Journal,
) -> anyhow::Result<Vec<Prepared>> {
    let name = part.as_str();
    let invalid = |message: String| Failure::new(FailureCode::InvalidDataset, message);
    let at_line = |line: u64, e: &dyn std::fmt::Display| invalid(format!("the {name} file, line {line}: {e}"));
    let settings = &spec.hyperparameters;
    let outside_weight = if let Method::TokenLevel(settings) = &spec.method { settings.outside_weight } else { 1.0 };
    let mut report = FitReport::default();
    let mut prepared = Vec::new();
    let mut n_left_out = 0;
    let format = match part {
        Part::Training => spec.training_format,
        Part::Validation => spec.validation_format,
    };
    for pair in dataset::read_pairs(path, format).map_err(|e| invalid(format!("the {name} file: {e}")))? {
        let line = pair.line;
        let Some(pair) = extras::take(&spec.method, pair).map_err(|e| at_line(line, &e))? else {
            n_left_out += 1;
            continue;
        };
        let encoded = codec.encode_pair(&pair).map_err(|e| at_line(line, &e))?;
        if encoded.prompt.is_empty() {
            return Err(at_line(line, &"the prompt has no tokens").into());
        }
        let fitted = fit(encoded, settings.max_length, settings.truncation);
        report.record(line, &fitted);
        let likelihood = Sides::default();
        match fitted {
            Fit::Whole(encoded) => {
                prepared.push(Prepared { part, pair, encoded, n_chars_kept: None, outside_weight, likelihood });
            }
            Fit::PromptCut { pair: encoded, n_chars_kept, .. } => {
                let n_chars_kept = Some(n_chars_kept);
                prepared.push(Prepared { part, pair, encoded, n_chars_kept, outside_weight, likelihood });
            }
            Fit::Dropped(_) | Fit::Refused(_) => {}
        }
    }
    if let Method::Hpo(settings) = &spec.method {
        let weights = extras::likelihood(settings, prepared.iter().map(|p| &p.pair));
        prepared.iter_mut().zip(weights).for_each(|(prepared, weights)| prepared.likelihood = weights);
    }
    let sentence = format!("{name} file: {}", report.sentence());
    if report.n_refused > 0 {
        return Err(invalid(format!("{sentence}; raise max_length or choose another truncation policy")).into());
    }
    if let (Method::Spo(settings), true) = (&spec.method, n_left_out > 0) {
        let dimension = &settings.dimension;
        if report.n_pairs == 0 {
            let message = format!("the {name} file: no line has the dimension '{dimension}': see the file's report");
            return Err(invalid(message).into());
        }
        journal
            .message(Level::Info, format!("{name} file: {n_left_out} pairs of other dimensions than '{dimension}'"))?;
    }
    if prepared.is_empty() {
        return Err(invalid(format!("{sentence}; nothing is left to train on: raise max_length")).into());
    }
    let level = if report.n_dropped > 0 { Level::Warn } else { Level::Info };
    journal.message(level, sentence)?;
    Ok(prepared)
}
