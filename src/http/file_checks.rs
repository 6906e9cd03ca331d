//! Checking uploaded files in the background: `uploaded` becomes `processed` or `error`.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    dataset::{self, PairReader},
    domain::{DatasetFormat, DatasetReport, FilePurpose, FileRecord},
    store::{Store, StoreError},
};

/// Starts checks, so many at once.
#[derive(Debug)]
pub(super) struct FileChecks {
    store: Store,
    directory: PathBuf,
    slots: Arc<Semaphore>,
}

impl FileChecks {
    /// Checks of the files in `directory`, at most `max_at_once` at a time.
    pub(super) fn new(store: Store, directory: PathBuf, max_at_once: usize) -> Self {
        Self { store, directory, slots: Arc::new(Semaphore::new(max_at_once)) }
    }

    /// The right to read files on a request's behalf, if no check waits for its turn.
    pub(super) fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.slots.clone().try_acquire_owned().ok()
    }

    /// Begins the check of a file, or has it wait for its turn. One that is cut off by a restart is begun again then.
    pub(super) fn begin(&self, file: &FileRecord) {
        let (store, slots) = (self.store.clone(), self.slots.clone());
        let (id, purpose, format) = (file.id.clone(), file.purpose, file.format);
        let path = self.directory.join(id.as_str());
        tokio::spawn(async move {
            let _turn = slots.acquire_owned().await.expect("the semaphore is never closed");
            let report = tokio::task::spawn_blocking(move || check(&path, purpose, format)).await.unwrap_or_else(|e| {
                tracing::error!(%id, cause = %e, "the check of a file panicked");
                unreadable("checking the file failed: this is a defect of the server, its log has the cause")
            });
            match store.set_file_report(&id, &report).await {
                // Deleted in the meantime: nobody wants to know any more.
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(e) => tracing::error!(%id, cause = %e, "the check of a file could not be recorded"),
            }
        });
    }
}

fn check(path: &Path, purpose: FilePurpose, format: Option<DatasetFormat>) -> DatasetReport {
    let check = |file| match purpose {
        FilePurpose::ReferenceScores => dataset::read_scores(BufReader::new(file), |_| {}),
        FilePurpose::FineTune | FilePurpose::FineTuneResults => dataset::check(PairReader::open(file, format)?),
    };
    File::open(path).and_then(check).unwrap_or_else(|e| {
        tracing::error!(path = %path.display(), cause = %e, "a file could not be read for its check");
        unreadable("the server could not read the file: upload it again")
    })
}

fn unreadable(message: &str) -> DatasetReport {
    let mut report = DatasetReport::default();
    report.problems.at("", "unreadable", message);
    report
}
