//! What the models say of a sample of the training pairs, and how long they take to say it.

use std::time::Instant;

use candle_core::Device;

use super::{
    super::{
        prepare::Prepared,
        references::{N_AT_ONCE, load, unusable},
        signal,
    },
    Given,
    costs::scoring_bytes,
    data::Data,
    models::{Local, Model},
    statistics::{Spoken, Start, fitness},
};
use crate::{
    domain::{DryRunSpec, Dtype, Failure, FailureCode, ReferenceRole, SampleFitness, Sides, TrainSpec, WeightsFormat},
    model::layout::Packed,
    objective::{Diagnosis, Scored},
    score::{ScoringRow, score},
    train::epoch_order,
};

/// Pairs of a sample: as many as the operations allow.
const SIZES: [usize; 3] = [16, 8, 4];
/// Most floating-point operations that go into the sample, of all models together: half a minute at 70 GFLOP/s.
const MAX_FLOP: f64 = 2e12;
/// A model is loaded if it takes at most this part of the free memory: what runs beside it may want more, too.
const MEMORY_SHARE: u64 = 2;

/// The sample.
pub(super) struct Sample {
    /// Per model.
    pub(super) of_models: Vec<Said>,
    /// What the references' numbers say about them.
    pub(super) findings: Vec<Diagnosis>,
}

/// What came of one model.
pub(super) struct Said {
    /// Its numbers, or why there are none.
    pub(super) fitness: Result<SampleFitness, String>,
    /// What it takes in memory while the job scores.
    pub(super) scoring_bytes: Option<u64>,
    pub(super) speed: Option<Speed>,
}

/// How fast a model was scored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Speed {
    /// Of the fastest batch.
    pub(super) seconds_per_token: f64,
    pub(super) load_seconds: f64,
}

/// How a model's numbers come about.
enum Source {
    /// It is asked.
    Rows(Vec<ScoringRow>),
    /// An earlier model of the list is the same.
    SameAs(usize),
    Given,
    Nowhere(String),
}

impl Sample {
    /// Takes it; `begin` is when the dry run began.
    pub(super) fn take(
        train: &TrainSpec,
        models: &[Model<'_>],
        data: &Data,
        given: &[Given],
        (free_bytes, begin): (Option<u64>, Instant),
    ) -> anyhow::Result<Self> {
        let prepared = &data.training.prepared;
        // The first that training visits.
        let mut places = epoch_order(prepared.len(), train.seed, 0);
        places.truncate(SIZES[0]);
        let bytes: Vec<Option<u64>> =
            models.iter().map(|model| model.local.as_ref().map(|local| scoring_bytes(local, data))).collect();
        let limit = free_bytes.map(|free| free / MEMORY_SHARE);
        let pairs: Vec<&Prepared> = places.iter().map(|place| &prepared[*place]).collect();
        let mut sources = Vec::with_capacity(models.len());
        for (i, bytes) in bytes.iter().enumerate() {
            sources.push(source(i, models, &pairs, bytes.zip(limit))?);
        }
        places.truncate(choose(models, &mut sources, places.len()));
        let mut spoken: Vec<Result<Spoken, String>> = Vec::with_capacity(models.len());
        for (i, source) in sources.into_iter().enumerate() {
            let said = match source {
                _ if places.is_empty() => Err("no training pair is left to be scored".to_owned()),
                Source::Nowhere(why) => Err(why),
                Source::SameAs(other) => spoken[other].clone(),
                Source::Given => Spoken::given(&given[i], &places),
                Source::Rows(rows) => {
                    Spoken::of(&models[i], &rows[..places.len()], &pairs, (train.hyperparameters.dtype, begin))?
                }
            };
            spoken.push(said);
        }
        let start = Start::of(train, models, &spoken);
        let base = spoken.first().and_then(|said| said.as_ref().ok()).cloned();
        let of_models = spoken.iter().zip(models).zip(bytes).map(|((said, model), scoring_bytes)| {
            let at_start = if model.role == ReferenceRole::Earlier { None } else { start.values.as_ref() };
            let numbers = |said| fitness(said, base.as_ref(), (&model.reference.model, at_start));
            let speed = said.as_ref().ok().and_then(|said| said.speed);
            Said { fitness: said.as_ref().map(numbers).map_err(Clone::clone), scoring_bytes, speed }
        });
        Ok(Self { of_models: of_models.collect(), findings: start.findings })
    }
}

/// Where the numbers of the model at `i` come from; `memory` is what it takes and what it may take.
fn source(i: usize, models: &[Model<'_>], pairs: &[&Prepared], memory: Option<(u64, u64)>) -> anyhow::Result<Source> {
    let Model { reference, precision, local, .. } = &models[i];
    let is_same = |other: &Model| other.reference.digest == reference.digest && other.precision == *precision;
    if let Some(other) = models[..i].iter().position(is_same) {
        return Ok(Source::SameAs(other));
    }
    let Some(Local { codec, .. }) = local else {
        return Ok(match reference.location.format {
            WeightsFormat::Scores => Source::Given,
            _ => Source::Nowhere("it is on another server, which is asked when the job runs".to_owned()),
        });
    };
    if let Some((bytes, limit)) = memory.filter(|(bytes, limit)| bytes > limit) {
        let [bytes, limit] = [bytes, limit].map(|bytes| bytes >> 20);
        return Ok(Source::Nowhere(format!(
            "it takes {bytes} MiB of memory, and a dry run takes {limit} MiB at most now"
        )));
    }
    let rows = pairs.iter().map(|pair| pair.scoring_row(codec)).collect::<Result<Vec<_>, _>>();
    Ok(Source::Rows(rows.map_err(|e| unusable(reference, &e))?))
}

/// How many pairs all models can be asked about; a model that is too large for the fewest is not asked.
fn choose(models: &[Model<'_>], sources: &mut [Source], n_pairs: usize) -> usize {
    let flop = |i: usize, source: &Source, n: usize| match (source, &models[i].local) {
        (Source::Rows(rows), Some(local)) => {
            2.0 * local.facts.n_parameters as f64 * rows[..n].iter().map(n_tokens).sum::<usize>() as f64
        }
        _ => 0.0,
    };
    let total = |n: usize| sources.iter().enumerate().map(|(i, source)| flop(i, source, n)).sum::<f64>();
    let sizes = SIZES.map(|n| n.min(n_pairs));
    if let Some(n) = sizes.into_iter().find(|n| total(*n) <= MAX_FLOP) {
        return n;
    }
    let n = sizes[SIZES.len() - 1];
    let n_asked = sources.iter().filter(|source| matches!(source, Source::Rows(_))).count();
    let share = MAX_FLOP / n_asked.max(1) as f64;
    for (i, source) in sources.iter_mut().enumerate() {
        let flop = flop(i, source, n);
        if flop > share {
            let [flop, share] = [flop, share].map(|flop| flop / 1e9);
            let why = format!(
                "it is too large: scoring {n} pairs takes {flop:.0} GFLOP, and here a dry run spends {share:.0} on a model"
            );
            *source = Source::Nowhere(why);
        }
    }
    n
}

fn n_tokens(row: &ScoringRow) -> usize {
    let completions: Vec<usize> = row.completions.iter().map(|completion| completion.tokens.len()).collect();
    Packed::n_tokens_of(row.prompt.len(), &completions)
}

/// Whether anybody still waits for the answer.
fn check_wanted(begin: Instant) -> Result<(), Failure> {
    if signal::stop_requested() || begin.elapsed() > DryRunSpec::PATIENCE {
        let message = "the dry run was stopped, or took longer than anybody waits for it: ask again when the machine is less busy";
        return Err(Failure::new(FailureCode::RunDied, message));
    }
    Ok(())
}

impl Spoken {
    /// Asks a model. The inner error is a number that would end the job.
    fn of(
        model: &Model<'_>,
        rows: &[ScoringRow],
        pairs: &[&Prepared],
        (dtype, begin): (Dtype, Instant),
    ) -> anyhow::Result<Result<Self, String>> {
        check_wanted(begin)?;
        let began = Instant::now();
        let (decoder, parameters) = load(model.reference, dtype, &Device::Cpu)?;
        let load_seconds = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let (mut scored, mut seconds_per_token) = (Vec::with_capacity(rows.len()), f64::INFINITY);
        for rows in rows.chunks(N_AT_ONCE) {
            check_wanted(begin)?;
            let began = Instant::now();
            let logps = score(&decoder, &parameters, rows)?;
            let n_tokens = rows.iter().map(n_tokens).sum::<usize>() as f64;
            seconds_per_token = seconds_per_token.min(began.elapsed().as_secs_f64() / n_tokens);
            scored.extend(rows.iter().zip(logps).map(|(row, logps)| Scored {
                logps: Sides { chosen: logps[0], rejected: logps[1] },
                n_tokens: Sides { chosen: row.completions[0].n_tokens(), rejected: row.completions[1].n_tokens() },
            }));
        }
        let duration_ms = began.elapsed().as_secs_f64() * 1e3;
        let is_finite = |scored: &Scored| scored.logps.chosen.is_finite() && scored.logps.rejected.is_finite();
        if let Some(place) = scored.iter().position(|scored| !is_finite(scored)) {
            let line = pairs[place].pair.line;
            return Ok(Err(format!(
                "the log-probability of line {line} is not a finite number: the job would end there"
            )));
        }
        Ok(Ok(Self {
            scored,
            n_tokens: rows.iter().map(n_tokens).sum::<usize>() as u64,
            duration_ms: Some(duration_ms),
            speed: Some(Speed { seconds_per_token, load_seconds }),
        }))
    }
}
