//! One run, end to end, in this process: reads a run directory's spec, does what it says, and tells it in `events.jsonl`.

mod checkpoint;
mod codecs;
mod dry_run;
mod export;
mod extras;
mod given_scores;
mod hashed_files;
mod inspect;
mod join;
mod journal;
mod kept_scores;
mod prepare;
mod references;
mod register;
mod register_remote;
mod remote;
mod signal;
mod tensorboard;
mod training;

use anyhow::Context;
use candle_core::Device;

use crate::{
    domain::{Failure, FailureCode, RunEvent, RunSpec},
    export::is_disk_full,
    model::device,
    run_dir::RunDir,
};

use journal::Journal;

/// Executes the run in `run`; `device` is `cpu`, `cuda` or `cuda:N`. How it ended stands in its last event.
///
/// # Errors
/// If the directory cannot be worked in at all: another process holds its lock, or its files cannot be read or written.
pub fn execute(run: &RunDir, device: &str) -> anyhow::Result<()> {
    let _lock = run
        .lock()
        .with_context(|| format!("cannot lock {}", run.root().display()))?
        .with_context(|| format!("another process works in {}", run.root().display()))?;
    signal::listen()?;
    let mut journal = Journal::open(run)?;
    let outcome = match device::open(device) {
        // On a thread of the pool: it computes with the others instead of waiting for them, and hands work over without a system call.
        Ok(Device::Cpu) => rayon::scope(|_| dispatch(run, &Device::Cpu, &mut journal)),
        Ok(gpu) => dispatch(run, &gpu, &mut journal),
        Err(error) => Err(Failure::new(FailureCode::InvalidSpec, error.to_string()).into()),
    };
    let last = match outcome {
        Ok(last) => last,
        Err(error) => {
            // The chain goes to stderr; the event holds what a client may see.
            eprintln!("the run failed: {error:?}");
            RunEvent::Failed { failure: failure_of(&error) }
        }
    };
    journal.say(last)?;
    journal.sync()
}

fn dispatch(run: &RunDir, device: &Device, journal: &mut Journal) -> anyhow::Result<RunEvent> {
    let spec =
        run.spec().map_err(|e| Failure::new(FailureCode::InvalidSpec, format!("spec.json cannot be read: {e}")))?;
    match spec {
        RunSpec::Train(spec) => training::train(run, &spec, device, journal),
        RunSpec::Register(spec) => register::register(&spec, journal),
        RunSpec::Inspect(spec) => inspect::inspect(run, &spec, journal),
        RunSpec::Export(spec) => export::export(run, &spec, journal),
    }
}

/// The failure inside an error, or an internal one.
fn failure_of(error: &anyhow::Error) -> Failure {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.clone();
    }
    if is_disk_full(error) {
        let message = "the disk, its quota or the limit of a file's size is reached: free some space or raise it. \
                       A job goes on from its newest checkpoint; one that has failed is created anew, and its checkpoints are kept";
        return Failure::new(FailureCode::DiskFull, message);
    }
    Failure::new(FailureCode::Internal, format!("{error:#}"))
}
