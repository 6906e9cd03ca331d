//! The references' log-probabilities: each computed once, on text, in the reference's own tokens, and kept in `scores.out.jsonl`.

use std::collections::HashMap;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::{journal::Journal, prepare::Prepared, signal};
use crate::{
    domain::{Dtype, Failure, FailureCode, Level, Phase, ResolvedReference},
    model::{Decoder, Parameters, Tuning, Weights},
    run_dir::{JsonLines, RunDir},
    score::{ScoringCompletion, ScoringRow, score},
    text::Codec,
};

/// Pairs scored at once. Which pairs share a batch is a matter of their place alone: what a batch holds moves its last bits,
/// and a resumed run must find the same.
const N_AT_ONCE: usize = 8;

/// One line of `scores.out.jsonl`: one completion under one reference.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ScoreLine {
    /// Digest of the reference's files.
    reference: String,
    /// Digest of the exact prompt, the completion, the cut and the tokens that count.
    row: String,
    /// Line of the file; for people.
    line: u64,
    /// (Weighted) sum of the log-probabilities of its tokens, in nats.
    logp: f64,
    /// Tokens that count, in the reference's own tokenizer.
    n_tokens: f64,
}

/// What a reference says of one completion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Score {
    pub(super) logp: f64,
    pub(super) n_tokens: f64,
}

/// The scores known so far, and the file new ones go to.
pub(super) struct Scores {
    dtype: Dtype,
    known: HashMap<(String, String), Score>,
    out: JsonLines,
}

impl Scores {
    /// Reads what an earlier attempt has computed.
    pub(super) fn open(run: &RunDir, dtype: Dtype) -> anyhow::Result<Self> {
        let out = JsonLines::open(&run.scores_out())?;
        let mut known = HashMap::new();
        for line in fs_err::read_to_string(run.scores_out())?.lines() {
            let s: ScoreLine = serde_json::from_str(line).context("scores.out.jsonl has a line that is no score")?;
            known.insert((s.reference, s.row), Score { logp: s.logp, n_tokens: s.n_tokens });
        }
        Ok(Self { dtype, known, out })
    }

    /// Scores the completions of `pairs` under one reference where that is not known yet; loads it only if something is
    /// missing. `policy` is what reference 0 is scored with: the policy before its first step. `None` if asked to stop.
    pub(super) fn of(
        &mut self,
        reference: &ResolvedReference,
        pairs: &[&Prepared],
        policy: Option<(&Decoder, &Parameters)>,
        journal: &mut Journal,
    ) -> anyhow::Result<Option<Vec<Vec<Score>>>> {
        let codec = Codec::load(&reference.location).map_err(|e| unusable(reference, &e))?;
        let mut rows = Vec::with_capacity(pairs.len());
        for pair in pairs {
            rows.push(pair.row_digests(&codec).map_err(|e| unusable(reference, &e))?);
        }
        let is_missing = |known: &HashMap<_, _>, rows: &[String]| {
            rows.iter().any(|row| !known.contains_key(&(reference.digest.clone(), row.clone())))
        };
        let n_to_score = rows.iter().filter(|rows| is_missing(&self.known, rows)).count();
        let mut n_done = 0;
        let name = reference.model.as_str();
        journal.message(
            Level::Info,
            format!("reference {name}: {} pairs known, {} to score", pairs.len() - n_to_score, n_to_score),
        )?;
        if n_to_score > 0 {
            let loaded = match policy {
                Some(_) => None,
                None => Some(load(reference, self.dtype)?),
            };
            let (decoder, parameters) = match (policy, &loaded) {
                (Some(policy), _) => policy,
                (None, Some((decoder, parameters))) => (decoder, parameters),
                (None, None) => unreachable!("loaded where there is no policy"),
            };
            for (pairs, rows) in pairs.chunks(N_AT_ONCE).zip(rows.chunks(N_AT_ONCE)) {
                let n_missing = rows.iter().filter(|rows| is_missing(&self.known, rows)).count();
                if n_missing == 0 {
                    continue;
                }
                if signal::stop_requested() {
                    return Ok(None);
                }
                journal.progress(Phase::ScoringReferences, n_done, n_to_score, Some(name))?;
                self.score(reference, &codec, (decoder, parameters), pairs, rows)?;
                n_done += n_missing;
            }
            journal.progress(Phase::ScoringReferences, n_to_score, n_to_score, Some(name))?;
            self.out.sync()?;
        }
        let find = |row: &String| {
            let key = (reference.digest.clone(), row.clone());
            self.known.get(&key).copied().context("a reference score is missing although it was computed")
        };
        let scores = rows.iter().map(|rows| rows.iter().map(find).collect::<anyhow::Result<Vec<_>>>());
        scores.collect::<anyhow::Result<Vec<_>>>().map(Some)
    }

    fn score(
        &mut self,
        reference: &ResolvedReference,
        codec: &Codec,
        (decoder, parameters): (&Decoder, &Parameters),
        pairs: &[&Prepared],
        digests: &[Vec<String>],
    ) -> anyhow::Result<()> {
        let mut rows: Vec<ScoringRow> = Vec::with_capacity(pairs.len());
        for pair in pairs {
            rows.push(pair.scoring_row(codec).map_err(|e| unusable(reference, &e))?);
        }
        let scores = score(decoder, parameters, &rows)?;
        for (((pair, digests), row), logps) in pairs.iter().zip(digests).zip(&rows).zip(scores) {
            for ((digest, completion), logp) in digests.iter().zip(&row.completions).zip(logps) {
                self.keep(reference, pair.pair.line, digest, completion, logp)?;
            }
        }
        Ok(())
    }

    fn keep(
        &mut self,
        reference: &ResolvedReference,
        line: u64,
        row: &str,
        completion: &ScoringCompletion,
        logp: f64,
    ) -> anyhow::Result<()> {
        let key = (reference.digest.clone(), row.to_owned());
        if self.known.contains_key(&key) {
            return Ok(());
        }
        if !logp.is_finite() {
            let message =
                format!("the log-probability of line {line} under {} is not a finite number", reference.model);
            return Err(Failure::new(FailureCode::InvalidReferenceScore, message).into());
        }
        let score = Score { logp, n_tokens: completion.n_tokens() };
        let (reference, row) = key.clone();
        self.out.append(&ScoreLine { reference, row, line, logp, n_tokens: score.n_tokens })?;
        self.known.insert(key, score);
        Ok(())
    }
}

fn load(reference: &ResolvedReference, dtype: Dtype) -> anyhow::Result<(Decoder, Parameters)> {
    let weights = Weights::load(&reference.location, dtype).map_err(|e| unusable(reference, &e))?;
    Ok(Decoder::new(weights, &Tuning::Frozen, dtype).map_err(|e| unusable(reference, &e))?)
}

/// The failure of a model whose files do not serve.
pub(super) fn unusable(reference: &ResolvedReference, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureCode::InvalidModel, format!("the model {}: {error}", reference.model))
}
