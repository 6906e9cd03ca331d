//! The data in the policy's tokens: read, encoded, cut as the policy says, counted and reported before any training.

use std::path::Path;

use super::{extras, journal::Journal};
use crate::{
    dataset::{self, PreferencePair},
    domain::{DatasetFormat, Failure, FailureCode, Level, Method, Sides, TrainSpec},
    model::layout::Packed,
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

    /// Where the job has it, and the format it was checked in.
    fn file(self, spec: &TrainSpec) -> Option<(&Path, Option<DatasetFormat>)> {
        match self {
            Self::Training => Some((&spec.training_file, spec.training_format)),
            Self::Validation => Some((spec.validation_file.as_deref()?, spec.validation_format)),
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

    /// Tokens it takes in a batch of the policy.
    pub(super) fn n_tokens(&self) -> usize {
        let EncodedPair { prompt, chosen, rejected, reference_response, .. } = &self.encoded;
        let mut completions = vec![chosen.len(), rejected.len()];
        completions.extend(reference_response.as_ref().map(Vec::len));
        Packed::n_tokens_of(prompt.len(), &completions)
    }

    /// The weight of each of the policy's tokens, where not all count as 1.
    pub(super) fn token_weights(&self) -> Option<Sides<Vec<f64>>> {
        self.encoded.token_weights(self.outside_weight)
    }
}

/// The pairs of a file that the method takes, with what it takes of them.
pub(super) struct Taken {
    pub(super) pairs: Vec<PreferencePair>,
    /// Pairs that it leaves out.
    pub(super) n_left_out: usize,
}

/// Reads one of the job's files, if it has it.
pub(super) fn take(part: Part, spec: &TrainSpec) -> Result<Option<Taken>, Failure> {
    let Some((path, format)) = part.file(spec) else { return Ok(None) };
    let method = &spec.method;
    let all = dataset::read_pairs(path, format).map_err(|e| invalid(format!("the {} file: {e}", part.as_str())))?;
    let (n_all, mut pairs) = (all.len(), Vec::with_capacity(all.len()));
    for pair in all {
        let line = pair.line;
        pairs.extend(extras::take(method, pair).map_err(|e| at_line(part, line, &e))?);
    }
    let n_left_out = n_all - pairs.len();
    Ok(Some(Taken { pairs, n_left_out }))
}

/// Pairs in the policy's tokens, cut as the settings say: those that will be used, and what was done to all.
pub(super) fn encode(
    pairs: Vec<PreferencePair>,
    part: Part,
    codec: &Codec,
    spec: &TrainSpec,
) -> Result<(Vec<Prepared>, FitReport), Failure> {
    let settings = &spec.hyperparameters;
    let outside_weight = if let Method::TokenLevel(settings) = &spec.method { settings.outside_weight } else { 1.0 };
    let (mut prepared, mut report) = (Vec::new(), FitReport::default());
    for pair in pairs {
        let line = pair.line;
        let encoded = codec.encode_pair(&pair).map_err(|e| at_line(part, line, &e))?;
        if encoded.prompt.is_empty() {
            return Err(at_line(part, line, &"the prompt has no tokens"));
        }
        let fitted = fit(encoded, settings.max_length, settings.truncation);
        report.record(line, &fitted);
        let (encoded, n_chars_kept) = match fitted {
            Fit::Whole(encoded) => (encoded, None),
            Fit::PromptCut { pair: encoded, n_chars_kept, .. } => (encoded, Some(n_chars_kept)),
            Fit::Dropped(_) | Fit::Refused(_) => continue,
        };
        let likelihood = Sides::default();
        prepared.push(Prepared { part, pair, encoded, n_chars_kept, outside_weight, likelihood });
    }
    Ok((prepared, report))
}

/// Reads and encodes one of the job's files; there are no pairs where it has none.
pub(super) fn prepare(
    part: Part,
    codec: &Codec,
    spec: &TrainSpec,
    journal: &mut Journal,
) -> anyhow::Result<Vec<Prepared>> {
    let name = part.as_str();
    let Some(Taken { pairs, n_left_out }) = take(part, spec)? else { return Ok(Vec::new()) };
    let (mut prepared, report) = encode(pairs, part, codec, spec)?;
    if let Method::Hpo(settings) = &spec.method {
        let weights = extras::likelihood(settings, prepared.iter().map(|p| &p.pair));
        prepared.iter_mut().zip(weights).for_each(|(prepared, weights)| prepared.likelihood = weights);
    }
    check(part, &report, &prepared, (&spec.method, n_left_out))?;
    if let (Method::Spo(settings), true) = (&spec.method, n_left_out > 0) {
        let dimension = &settings.dimension;
        journal
            .message(Level::Info, format!("{name} file: {n_left_out} pairs of other dimensions than '{dimension}'"))?;
    }
    let level = if report.n_dropped > 0 { Level::Warn } else { Level::Info };
    journal.message(level, format!("{name} file: {}", report.sentence()))?;
    Ok(prepared)
}

/// Whether the pairs of a file can be used.
pub(super) fn check(
    part: Part,
    report: &FitReport,
    prepared: &[Prepared],
    (method, n_left_out): (&Method, usize),
) -> Result<(), Failure> {
    let name = part.as_str();
    let sentence = format!("{name} file: {}", report.sentence());
    if report.n_refused > 0 {
        return Err(invalid(format!("{sentence}; raise max_length or choose another truncation policy")));
    }
    if let (Method::Spo(settings), true) = (method, n_left_out > 0 && report.n_pairs == 0) {
        let dimension = &settings.dimension;
        let message = format!("the {name} file: no line has the dimension '{dimension}': see the file's report");
        return Err(invalid(message));
    }
    if prepared.is_empty() {
        return Err(invalid(format!("{sentence}; nothing is left to train on: raise max_length")));
    }
    Ok(())
}

fn invalid(message: String) -> Failure {
    Failure::new(FailureCode::InvalidDataset, message)
}

/// What is wrong with one line.
pub(super) fn at_line(part: Part, line: u64, e: &dyn std::fmt::Display) -> Failure {
    invalid(format!("the {} file, line {line}: {e}", part.as_str()))
}
