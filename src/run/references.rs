//! The references' log-probabilities: each computed once, on text, in the reference's own tokens, and kept in `scores.out.jsonl`.

use std::collections::HashMap;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::{journal::Journal, prepare::Prepared, signal};
use crate::{
    domain::{Dtype, Failure, FailureCode, Level, Phase, ResolvedReference},
    model::{Decoder, Parameters, Tuning, Weights},
    objective::SequenceLogps,
    run_dir::{JsonLines, RunDir},
    score::{ScoringPair, score_pairs},
    text::{Codec, EncodedPair, cut_prompt_to_chars, row_digest},
};

/// Pairs scored at once. Which pairs share a batch is a matter of their place alone: what a batch holds moves its last bits,
/// and a resumed run must find the same.
const N_AT_ONCE: usize = 8;

/// One line of `scores.out.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ScoreLine {
    /// Digest of the reference's files.
    reference: String,
    /// Digests of the exact prompt with each completion and the cut.
    chosen_row: String,
    rejected_row: String,
    /// Line of the file; for people.
    line: u64,
    /// Summed log-probabilities, in nats.
    chosen: f64,
    rejected: f64,
}

/// The scores known so far, and the file new ones go to.
pub(super) struct Scores {
    dtype: Dtype,
    known: HashMap<(String, String, String), SequenceLogps>,
    out: JsonLines,
}

impl Scores {
    /// Reads what an earlier attempt has computed.
    pub(super) fn open(run: &RunDir, dtype: Dtype) -> anyhow::Result<Self> {
        let out = JsonLines::open(&run.scores_out())?;
        let mut known = HashMap::new();
        for line in fs_err::read_to_string(run.scores_out())?.lines() {
            let s: ScoreLine = serde_json::from_str(line).context("scores.out.jsonl has a line that is no score")?;
            let logps = SequenceLogps { chosen: s.chosen, rejected: s.rejected };
            known.insert((s.reference, s.chosen_row, s.rejected_row), logps);
        }
        Ok(Self { dtype, known, out })
    }

    /// Scores `pairs` under one reference where that is not known yet; loads it only if something is missing.
    /// `policy` is what reference 0 is scored with: the policy before its first step. `None` if asked to stop.
    pub(super) fn of(
        &mut self,
        reference: &ResolvedReference,
        pairs: &[&Prepared],
        policy: Option<(&Decoder, &Parameters)>,
        journal: &mut Journal,
    ) -> anyhow::Result<Option<Vec<SequenceLogps>>> {
        let codec = Codec::load(&reference.location).map_err(|e| unusable(reference, &e))?;
        let mut keys = Vec::with_capacity(pairs.len());
        for p in pairs {
            let prompt = codec.render_prompt(&p.pair.prompt).map_err(|e| unusable(reference, &e))?;
            let row = |completion| row_digest(&prompt, completion, p.n_chars_kept, None);
            keys.push((reference.digest.clone(), row(&p.pair.chosen), row(&p.pair.rejected)));
        }
        let n_to_score = keys.iter().filter(|key| !self.known.contains_key(*key)).count();
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
            for (pairs, keys) in pairs.chunks(N_AT_ONCE).zip(keys.chunks(N_AT_ONCE)) {
                let n_missing = keys.iter().filter(|key| !self.known.contains_key(*key)).count();
                if n_missing == 0 {
                    continue;
                }
                if signal::stop_requested() {
                    return Ok(None);
                }
                journal.progress(Phase::ScoringReferences, n_done, n_to_score, Some(name))?;
                self.score(reference, &codec, (decoder, parameters), pairs, keys)?;
                n_done += n_missing;
            }
            journal.progress(Phase::ScoringReferences, n_to_score, n_to_score, Some(name))?;
            self.out.sync()?;
        }
        let find = |key| self.known.get(key).copied().context("a reference score is missing although it was computed");
        keys.iter().map(find).collect::<anyhow::Result<Vec<_>>>().map(Some)
    }

    fn score(
        &mut self,
        reference: &ResolvedReference,
        codec: &Codec,
        (decoder, parameters): (&Decoder, &Parameters),
        pairs: &[&Prepared],
        keys: &[(String, String, String)],
    ) -> anyhow::Result<()> {
        let mut scoring = Vec::with_capacity(pairs.len());
        for p in pairs {
            let encoded = codec.encode_pair(&p.pair).map_err(|e| unusable(reference, &e))?;
            let encoded = match p.n_chars_kept {
                Some(n_chars_kept) => cut_prompt_to_chars(encoded, n_chars_kept),
                None => encoded,
            };
            let EncodedPair { prompt, chosen, rejected, .. } = encoded;
            scoring.push(ScoringPair { prompt, chosen, rejected });
        }
        let borrowed: Vec<&ScoringPair> = scoring.iter().collect();
        let scores = score_pairs(decoder, parameters, &borrowed)?;
        for ((p, key), (chosen, rejected)) in pairs.iter().zip(keys).zip(scores) {
            if self.known.contains_key(key) {
                continue;
            }
            let line = p.pair.line;
            if !(chosen.is_finite() && rejected.is_finite()) {
                let message =
                    format!("the log-probability of line {line} under {} is not a finite number", reference.model);
                return Err(Failure::new(FailureCode::InvalidReferenceScore, message).into());
            }
            let (digest, chosen_row, rejected_row) = key.clone();
            let score = ScoreLine { reference: digest, chosen_row, rejected_row, line, chosen, rejected };
            self.out.append(&score)?;
            self.known.insert(key.clone(), SequenceLogps { chosen, rejected });
        }
        Ok(())
    }
}

fn load(reference: &ResolvedReference, dtype: Dtype) -> anyhow::Result<(Decoder, Parameters)> {
    let weights = Weights::load(&reference.location, dtype).map_err(|e| unusable(reference, &e))?;
    Ok(Decoder::new(weights, &Tuning::Frozen).map_err(|e| unusable(reference, &e))?)
}

/// The failure of a model whose files do not serve.
pub(super) fn unusable(reference: &ResolvedReference, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureCode::InvalidModel, format!("the model {}: {error}", reference.model))
}
