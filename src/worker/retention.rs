//! What is no longer kept of jobs: checkpoints past their retention, what nobody goes on from, and runs whose time is over.

use std::{io, time::Duration};

use tokio::time::Instant;

use super::{Result, Worker};
use crate::{
    run_dir::RunDir,
    store::{StoreError, Surplus},
};

/// How often one looks, in seconds.
const INTERVAL_S: i64 = 5;
/// How many things are dealt with in one look; the rest has its turn in the next.
const MAX_AT_ONCE: u32 = 100;
/// How long one look removes files.
const MOST_AT_ONCE: Duration = Duration::from_secs(1);

impl Worker {
    /// Applies the retention of jobs, and removes from the disk what is then surplus. The row goes last: after a crash it is done again.
    pub(super) async fn apply_retention(&mut self, now: i64) -> Result<bool> {
        if now - self.retained_at < INTERVAL_S {
            return Ok(false);
        }
        self.retained_at = now;
        for job in self.store.due_run_data(now, MAX_AT_ONCE).await? {
            match self.store.remove_run_data(&job).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.store.tidy_runs(MAX_AT_ONCE).await?;
        let mut changed = false;
        let begun = Instant::now();
        for surplus in self.store.surplus(MAX_AT_ONCE).await? {
            if begun.elapsed() >= MOST_AT_ONCE {
                // The rest in the next look: leases are renewed and runs watched in between.
                self.retained_at = 0;
                break;
            }
            let (run, removed) = (self.dir(surplus.run()), surplus.clone());
            let done = tokio::task::spawn_blocking(move || remove(&run, &removed)).await.map_err(io::Error::other);
            match done.flatten() {
                Ok(Removed::Gone { size_bytes }) => {
                    self.store.forget_surplus(&surplus, size_bytes).await?;
                    tracing::info!(?surplus, "files that are no longer kept have been removed");
                    changed = true;
                }
                Ok(Removed::IsRead) => {}
                Err(error) => tracing::warn!(?surplus, %error, "files that are no longer kept could not be removed"),
            }
        }
        Ok(changed)
    }
}

/// What has become of surplus files.
enum Removed {
    /// They are gone; what is left of their checkpoint, in bytes, if that is known.
    Gone { size_bytes: Option<u64> },
    /// Somebody reads them: later.
    IsRead,
}

fn remove(run: &RunDir, surplus: &Surplus) -> io::Result<Removed> {
    let gone = |is_gone| if is_gone { Removed::Gone { size_bytes: None } } else { Removed::IsRead };
    match surplus {
        Surplus::Checkpoint { directory, .. } => run.remove_checkpoint(directory).map(gone),
        Surplus::ResumeState { directory, .. } => match run.drop_resume_state(directory) {
            Ok(Some(size_bytes)) => Ok(Removed::Gone { size_bytes: Some(size_bytes) }),
            Ok(None) => Ok(Removed::IsRead),
            // Somebody else has removed it: there is nothing to be dropped.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(gone(true)),
            Err(e) => Err(e),
        },
        Surplus::Run(_) => run.remove_all_but_checkpoints().map(|()| gone(true)),
    }
}
