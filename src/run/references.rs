//! The references' log-probabilities: each computed once, on text, in the reference's own tokens, and kept for every later job.

use std::{
    collections::HashMap,
    rc::Rc,
    time::{Duration, Instant},
};

use candle_core::Device;

use super::{
    codecs::{Codecs, Rows},
    given_scores,
    journal::Journal,
    kept_scores::{KeptScores, OfReference},
    prepare::Prepared,
    remote, signal,
};
use crate::{
    domain::{
        Dtype, Failure, FailureCode, Hyperparameters, Phase, ResolvedReference, RunEvent, ScoreKey, ScorePrecision,
        ScoresSummary, ScoringCount, TrainSpec, WeightsFormat,
    },
    fetch,
    model::{Decoder, Matrices, Parameters, Tuning, Weights},
    run_dir::RunDir,
    score::score,
    text::Codec,
};

pub(super) use super::kept_scores::Score;

/// Pairs scored at once. Which pairs share a batch is a matter of what the run was told alone, not of what an earlier attempt has
/// done: what a batch holds moves its last bits, and a resumed run must find the same.
pub(super) const N_AT_ONCE: usize = 8;

/// A reference's scores: for each pair one per completion.
pub(super) type Column = Vec<Vec<Score>>;

/// The phase in which the run's pairs are scored under its references.
pub(super) struct Scores<'a> {
    settings: &'a Hyperparameters,
    device: &'a Device,
    codecs: Codecs,
    pairs: Vec<&'a Prepared>,
    kept: KeptScores,
    /// By digest, of the references whose scores were made elsewhere.
    given: HashMap<&'a str, Column>,
    total: ScoringCount,
}

impl<'a> Scores<'a> {
    /// Reads what is known; `codecs` are those loaded already.
    pub(super) fn open(
        run: &RunDir,
        (spec, device): (&'a TrainSpec, &'a Device),
        mut codecs: Codecs,
        pairs: Vec<&'a Prepared>,
        journal: &mut Journal,
    ) -> anyhow::Result<Self> {
        let (began, settings) = (Instant::now(), &spec.hyperparameters);
        let all = || spec.references.iter().chain(&spec.earlier);
        let is_given = |reference: &&ResolvedReference| reference.location.format == WeightsFormat::Scores;
        // First, because a pair that lacks its score must not be found out after hours of scoring.
        let mut given = HashMap::new();
        for reference in all().filter(is_given) {
            given.insert(reference.digest.as_str(), given_scores::column(reference, spec, &pairs, journal)?);
        }
        let has_weights = |reference: &&ResolvedReference| !reference.location.format.is_reference_only();
        for reference in all().filter(|reference| !has_weights(reference)) {
            if let Some(why) = ScoresSummary::default().unfit_for(&spec.method, &settings.objective) {
                return Err(unusable(reference, &why).into());
            }
        }
        codecs.load_all(all().filter(has_weights))?;
        let kept = KeptScores::open(run)?;
        let total = ScoringCount { duration_ms: milliseconds(began.elapsed()), ..ScoringCount::default() };
        Ok(Self { settings, device, codecs, pairs, kept, given, total })
    }

    /// Scores the pairs under one reference where that is not known yet; loads it only if something is missing. `policy` is
    /// what reference 0 is scored with: the policy before its first step. `None` if asked to stop.
    pub(super) fn of(
        &mut self,
        reference: &ResolvedReference,
        policy: Option<(&Decoder, &Parameters)>,
        journal: &mut Journal,
    ) -> anyhow::Result<Option<Column>> {
        let began = Instant::now();
        if let Some(column) = self.given.get(reference.digest.as_str()) {
            let n_known = 2 * self.pairs.len() as u64;
            let column = column.clone();
            self.tell(reference, None, ScoringCount { n_known, ..ScoringCount::default() }, journal)?;
            return Ok(Some(column));
        }
        let precision = reference.precision(self.settings, policy.is_some());
        let mut kept = self.kept.of(&reference.digest, precision);
        if reference.location.format == WeightsFormat::Remote {
            let rows = remote::compute_missing(reference, &mut self.codecs, &self.pairs, &mut kept, journal)?;
            let Some(rows) = rows else { return Ok(None) };
            return self.finish(reference, precision, &rows, began, journal).map(Some);
        }
        let (codec, rows) = self.codecs.rows_of(reference, &self.pairs)?;
        let mut scoring = Scoring { reference, pairs: &self.pairs, codec, rows: rows.clone(), kept };
        if !scoring.compute_missing((self.settings.dtype, self.device), policy, journal)? {
            return Ok(None);
        }
        self.finish(reference, precision, &rows, began, journal).map(Some)
    }

    /// All scores are there: takes them, and tells what they have cost.
    fn finish(
        &mut self,
        reference: &ResolvedReference,
        precision: ScorePrecision,
        rows: &[Vec<String>],
        began: Instant,
        journal: &mut Journal,
    ) -> anyhow::Result<Column> {
        let mut kept = self.kept.of(&reference.digest, precision);
        let mut column = Vec::with_capacity(self.pairs.len());
        for (pair, rows) in self.pairs.iter().zip(rows) {
            let scores = rows.iter().map(|row| kept.get(row, pair.pair.line));
            column.push(scores.collect::<anyhow::Result<Vec<_>>>()?);
        }
        let (n_known, n_computed) = kept.count(rows.iter().flatten());
        let count = ScoringCount { n_known, n_computed, duration_ms: milliseconds(began.elapsed()) };
        let key = ScoreKey { digest: reference.digest.clone(), precision };
        self.tell(reference, Some(key), count, journal)?;
        Ok(column)
    }

    fn tell(
        &mut self,
        reference: &ResolvedReference,
        key: Option<ScoreKey>,
        count: ScoringCount,
        journal: &mut Journal,
    ) -> anyhow::Result<()> {
        self.total.n_known += count.n_known;
        self.total.n_computed += count.n_computed;
        self.total.duration_ms += count.duration_ms;
        journal.say(RunEvent::ReferenceScores { model: Some(reference.model.clone()), key, count })
    }

    /// Tells what the phase has cost in all.
    pub(super) fn tell_total(&self, journal: &mut Journal) -> anyhow::Result<()> {
        journal.say(RunEvent::ReferenceScores { model: None, key: None, count: self.total })
    }
}

/// One reference being asked.
struct Scoring<'a> {
    reference: &'a ResolvedReference,
    pairs: &'a [&'a Prepared],
    codec: Rc<Codec>,
    rows: Rows,
    kept: OfReference<'a>,
}

impl Scoring<'_> {
    /// Returns whether all is known now: `false` if asked to stop.
    fn compute_missing(
        &mut self,
        (dtype, device): (Dtype, &Device),
        policy: Option<(&Decoder, &Parameters)>,
        journal: &mut Journal,
    ) -> anyhow::Result<bool> {
        let rows = self.rows.clone();
        let not_given = |i: &usize| rows[*i].iter().any(|row| !self.kept.is_given(row));
        let places: Vec<usize> = (0..self.pairs.len()).filter(not_given).collect();
        let is_missing = |kept: &OfReference, i: usize| rows[i].iter().any(|row| !kept.is_known(row));
        let n_missing = places.iter().filter(|i| is_missing(&self.kept, **i)).count();
        if n_missing == 0 {
            return Ok(true);
        }
        let loaded = match policy {
            Some(_) => None,
            None => Some(load(self.reference, dtype, device)?),
        };
        let model = match (policy, &loaded) {
            (Some(policy), _) => policy,
            (None, Some((decoder, parameters))) => (decoder, parameters),
            (None, None) => unreachable!("loaded where there is no policy"),
        };
        let (name, mut n_done) = (self.reference.model.as_str(), 0);
        for places in places.chunks(N_AT_ONCE) {
            let n_missing_here = places.iter().filter(|i| is_missing(&self.kept, **i)).count();
            if n_missing_here == 0 {
                continue;
            }
            if signal::stop_requested() {
                return Ok(false);
            }
            journal.progress(Phase::ScoringReferences, n_done, n_missing, Some(name))?;
            self.compute(places, model)?;
            n_done += n_missing_here;
        }
        journal.progress(Phase::ScoringReferences, n_missing, n_missing, Some(name))?;
        self.kept.sync()?;
        Ok(true)
    }

    /// Scores what the run was not told of the pairs at these places.
    fn compute(&mut self, places: &[usize], (decoder, parameters): (&Decoder, &Parameters)) -> anyhow::Result<()> {
        let (mut rows, mut names) = (Vec::with_capacity(places.len()), Vec::with_capacity(places.len()));
        for i in places {
            let mut row = self.pairs[*i].scoring_row(&self.codec).map_err(|e| unusable(self.reference, &e))?;
            let completions = self.rows[*i].iter().zip(std::mem::take(&mut row.completions));
            let (digests, completions): (Vec<_>, Vec<_>) =
                completions.filter(|(digest, _)| !self.kept.is_given(digest)).unzip();
            row.completions = completions;
            rows.push(row);
            names.push(digests);
        }
        let scores = score(decoder, parameters, &rows)?;
        for (((i, digests), row), logps) in places.iter().zip(names).zip(&rows).zip(scores) {
            let line = self.pairs[*i].pair.line;
            for ((digest, completion), logp) in digests.into_iter().zip(&row.completions).zip(logps) {
                if self.kept.is_known(digest) {
                    continue;
                }
                self.check(logp, line)?;
                self.kept.add(digest, line, Score { logp, n_tokens: completion.n_tokens() })?;
            }
        }
        Ok(())
    }

    fn check(&self, logp: f64, line: u64) -> Result<(), Failure> {
        if logp.is_finite() {
            return Ok(());
        }
        let model = &self.reference.model;
        let message = format!("the log-probability of line {line} under {model} is not a finite number");
        Err(Failure::new(FailureCode::InvalidReferenceScore, message))
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A frozen model.
pub(super) fn load(
    reference: &ResolvedReference,
    dtype: Dtype,
    device: &Device,
) -> anyhow::Result<(Decoder, Parameters)> {
    let weights = Matrices::for_frozen(&reference.location, dtype, device)
        .and_then(|matrices| Weights::load_as(&reference.location, dtype, matrices))
        .and_then(|weights| weights.to_device(device));
    let weights = weights.map_err(|e| unusable(reference, &e))?;
    Ok(Decoder::new(weights, &Tuning::Frozen, dtype).map_err(|e| unusable(reference, &e))?)
}

/// Scores are kept under a model's digest, a checkpoint goes with it, and an export is told to be of it: its files must still be those.
pub(super) fn check_digest(reference: &ResolvedReference) -> anyhow::Result<()> {
    let (found, _) = fetch::digest(&reference.location).map_err(|e| unusable(reference, &e))?;
    if found != reference.digest {
        let message =
            format!("its files have changed since it was registered ({}); register it again", reference.digest);
        return Err(unusable(reference, &message).into());
    }
    Ok(())
}

/// The failure of a model whose files do not serve.
pub(super) fn unusable(reference: &ResolvedReference, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureCode::InvalidModel, format!("the model {}: {error}", reference.model))
}
