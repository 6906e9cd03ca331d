//! What runs leave on the disk and nobody needs: an attempt at an export that came to nothing, a deleted export, an answered question.

use super::{Result, Worker};
use crate::{
    run_dir::RunDir,
    store::{Run, RunEnd, RunSubject},
};

impl Worker {
    /// Frees the disk of what deleted exports have left, and forgets them. The row goes last: after a crash it is done again.
    pub(super) async fn remove_deleted_exports(&self) -> Result<bool> {
        let deleted = self.store.deleted_exports().await?;
        for (export, run) in &deleted {
            if let Some(run) = run {
                forget(&self.dir(run)).await;
            }
            self.store.forget_export(export).await?;
            tracing::info!(%export, "an export has been removed");
        }
        Ok(!deleted.is_empty())
    }
}

/// Removes what an export that did not succeed has written, before that is recorded: its room is free when its end is told.
pub(super) async fn discard(run: &Run, dir: &RunDir, end: &RunEnd) {
    if matches!(run.subject, RunSubject::Export(_)) && !matches!(end, RunEnd::Succeeded { .. }) {
        removed(dir, RunDir::discard_export).await;
    }
}

/// Removes the directory of a run that nobody comes back to.
pub(super) async fn forget(dir: &RunDir) {
    removed(dir, RunDir::remove).await;
}

async fn removed(dir: &RunDir, remove: fn(&RunDir) -> std::io::Result<()>) {
    let this = dir.clone();
    let outcome = tokio::task::spawn_blocking(move || remove(&this)).await.map_err(std::io::Error::other);
    if let Err(error) = outcome.flatten() {
        tracing::warn!(%error, run = %dir.root().display(), "files of a run that is over could not be removed");
    }
}
