//! What a run is told of its references' scores before it starts: `scores.in.jsonl`.
//!
//! Only a run can compute the digests of its rows, that takes tokenizers and templates; so the worker hands over by what it
//! knows, references and files, and more than the run will use. First come the rows that earlier runs on the same training
//! file have used, then those of the validation file where that was trained on; then, newest first, rows of other
//! files, which is how a data set that has grown since finds the rows it had before. What a run uses of these it says again in
//! `scores.out.jsonl`, so next time they come first. Both parts are limited, for all references of a
//! job together: of references with millions of kept rows a job reads its own.

use std::io;

use super::{Result, WorkerError};
use crate::{
    domain::{FileId, JobSpec, ResolvedReference, ScorePrecision, TrainSpec},
    run_dir::{RunDir, ScoresIn},
    store::{ScoreSet, Store, StoreError},
};

/// Most rows of a job that are handed over because they belong to its own files; in seconds they are written, less than a lease.
const MAX_OF_OWN_FILES: usize = 1_500_000;

/// Rows, own ones included, after which no more of other files are added: read by a run in less than a second.
const MAX_WITH_OTHER_FILES: usize = 300_000;

/// Rows read and written at once.
const N_AT_ONCE: usize = 10_000;

/// Writes what is known; whole or not at all. The inner error is of the file.
pub(super) async fn hand_over(
    store: &Store,
    dir: &RunDir,
    job: &JobSpec,
    spec: &TrainSpec,
) -> Result<std::result::Result<(), io::Error>> {
    let training = digest_of(store, &job.training_file).await?;
    let validation = match &job.validation_file {
        Some(file) => digest_of(store, file).await?,
        None => None,
    };
    let mut file = match ScoresIn::create(dir) {
        Ok(file) => Some(file),
        Err(e) => return Ok(Err(e)),
    };
    let mut done: Vec<(&str, ScorePrecision)> = Vec::new();
    let mut n_written = 0;
    for (i, reference) in spec.references.iter().chain(&spec.earlier).enumerate() {
        let precision = reference.precision(&spec.hyperparameters, i == 0);
        if done.contains(&(&reference.digest, precision)) {
            continue;
        }
        done.push((&reference.digest, precision));
        let mut sets = store.score_sets(&reference.digest, precision).await?;
        let rank = |set: &ScoreSet| match Some(&set.file) {
            file if file == training.as_ref() => 0,
            file if file == validation.as_ref() => 1,
            _ => 2,
        };
        sets.sort_by_key(rank); // stable: newest first within a rank
        for set in &sets {
            let most = if rank(set) < 2 { MAX_OF_OWN_FILES } else { MAX_WITH_OTHER_FILES };
            let part = Part { reference, precision, set, is_of_file: rank(set) == 0 };
            match part.write(store, &mut file, most.saturating_sub(n_written)).await? {
                Ok(n) => n_written += n,
                Err(e) => return Ok(Err(e)),
            }
        }
    }
    let file = file.expect("every part gives it back");
    Ok(blocking(move || file.finish()).await)
}

/// A file that is gone has no digest; nothing of its own is then handed over.
async fn digest_of(store: &Store, id: &FileId) -> Result<Option<String>> {
    match store.file(id).await {
        Ok(file) => Ok(Some(file.sha256)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(e) => Err(WorkerError::Store(e)),
    }
}

/// The rows of one file under one reference.
struct Part<'a> {
    reference: &'a ResolvedReference,
    precision: ScorePrecision,
    set: &'a ScoreSet,
    is_of_file: bool,
}

impl Part<'_> {
    /// Writes at most `n_left` of them. Returns how many.
    async fn write(
        &self,
        store: &Store,
        file: &mut Option<ScoresIn>,
        n_left: usize,
    ) -> Result<std::result::Result<usize, io::Error>> {
        let (mut after, mut n_written) = (None, 0);
        while n_written < n_left {
            let rows = store.scores_of_set(self.set, after.as_ref(), N_AT_ONCE.min(n_left - n_written)).await?;
            let Some(last) = rows.last() else { break };
            after = Some(last.row);
            n_written += rows.len();
            let (reference, precision, is_of_file) = (self.reference.digest.clone(), self.precision, self.is_of_file);
            let mut open = file.take().expect("put back after every page");
            let written = blocking(move || {
                let scores: Vec<_> = rows.iter().map(|row| row.to_score(&reference, precision, is_of_file)).collect();
                open.append(&scores).map(|()| open)
            });
            match written.await {
                Ok(open) => *file = Some(open),
                Err(e) => return Ok(Err(e)),
            }
        }
        Ok(Ok(n_written))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten()
}
