//! A dry run: what a job would take and what its references are, found out with no job and nothing kept.
//!
//! It reads as the job would and stops before training. All it computes is bounded: so many pairs of each file are laid out in tokens,
//! so many operations go into scoring a sample, and always on the processor, so that no running job loses its GPU's memory. What it
//! computes is a function of its spec; what it estimates from is the time that took.

mod costs;
mod data;
mod lengths;
mod models;
mod sample;
mod statistics;
mod warnings;

use std::time::Instant;

use self::{costs::Costs, data::Data, models::Model, sample::Sample};
use super::{
    codecs::Codecs, given_scores, journal::Journal, kept_scores::KeptScores, prepare::Prepared, references::Column,
    remote,
};
use crate::{
    domain::{DryRun, DryRunSpec, Failure, FailureCode, KeptCount, Phase, ReferenceFitness, WeightsFormat},
    model::device::free_host_memory_bytes,
    run_dir::RunDir,
};

/// Executes the dry run.
pub(super) fn dry_run(run: &RunDir, spec: &DryRunSpec, journal: &mut Journal) -> anyhow::Result<DryRun> {
    let (begin, train) = (Instant::now(), &spec.train);
    let base = train.references.first();
    let base = base.ok_or_else(|| Failure::new(FailureCode::InvalidSpec, "the spec has no base"))?;
    journal.progress(Phase::Preparing, 0, 1, None)?;
    let mut codecs = Codecs::default();
    let base_codec = codecs.of(base)?;
    let mut models = Model::all(spec, &mut codecs)?;
    let mut data = Data::read(train, &mut models)?;
    data.encode(train, &base_codec)?;
    let prepared: Vec<&Prepared> = data.prepared().collect();
    // Before any weights: the job's process has the same.
    let program_bytes = resident_bytes();
    let kept = count_kept(run, &models, &mut codecs, &prepared)?;
    let mut given = Vec::new();
    for model in &models {
        given.push(match model.reference.location.format {
            WeightsFormat::Scores => Some(given_scores::column(model.reference, train, &prepared, journal)),
            _ => None,
        });
    }
    let given: Vec<Given> = given.into_iter().map(Given::of).collect::<anyhow::Result<_>>()?;
    let free_bytes = free_host_memory_bytes();
    let sample = Sample::take(train, &models, &data, &given, (free_bytes, begin))?;
    let references: Vec<ReferenceFitness> = models
        .iter()
        .zip(&kept)
        .zip(&sample.of_models)
        .map(|((model, kept), said)| model.fitness(*kept, said))
        .collect();
    let costs = Costs { spec, models: &models, data: &data, kept: &kept, sample: &sample };
    let memory = costs.memory(program_bytes, free_bytes)?;
    let disk = costs.disk(run)?;
    let time = costs.time();
    let dataset = data.outlook(&models);
    let mut answer = DryRun { dataset, references, memory, disk, time, warnings: Vec::new() };
    answer.warnings = warnings::warnings(train, &answer, &data, &models, (&given, &sample.findings));
    Ok(answer)
}

/// The scores of a reference that were made elsewhere.
enum Given {
    /// It is none of those.
    Not,
    /// Of every pair.
    All(Column),
    /// Not of every pair, or not of this method: why the job would end.
    Unfit(String),
}

impl Given {
    fn of(column: Option<anyhow::Result<Column>>) -> anyhow::Result<Self> {
        match column {
            None => Ok(Self::Not),
            Some(Ok(column)) => Ok(Self::All(column)),
            Some(Err(error)) => error.downcast::<Failure>().map(|failure| Self::Unfit(failure.message)),
        }
    }
}

/// How many of the pairs' scores the run was told, per model.
fn count_kept(
    run: &RunDir,
    models: &[Model<'_>],
    codecs: &mut Codecs,
    pairs: &[&Prepared],
) -> anyhow::Result<Vec<KeptCount>> {
    let mut known = KeptScores::open(run)?;
    let mut counts = Vec::with_capacity(models.len());
    for model in models {
        let reference = model.reference;
        let rows = match reference.location.format {
            WeightsFormat::Scores => {
                let n = 2 * pairs.len() as u64;
                counts.push(KeptCount { n_needed: n, n_kept: n });
                continue;
            }
            WeightsFormat::Remote => remote::rows_of(reference, codecs, pairs)?,
            WeightsFormat::Huggingface | WeightsFormat::Gguf => codecs.rows_of(reference, pairs)?.1,
        };
        let kept = known.of(&reference.digest, model.precision);
        let is_kept = |row: &&String| kept.is_given(row);
        counts.push(KeptCount {
            n_needed: rows.iter().map(|rows| rows.len() as u64).sum(),
            n_kept: rows.iter().flatten().filter(is_kept).count() as u64,
        });
    }
    Ok(counts)
}

/// The memory this process has now, as Linux counts it.
fn resident_bytes() -> u64 {
    let kib = || {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:").map(str::to_owned))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    kib().unwrap_or(0) << 10
}
