//! What turns rows into runs and what runs say into rows: claims, starts, watches, records, decides the end.
//!
//! All state that matters is in the store and in the run directories; a worker can be killed at any moment and another
//! goes on. One call of [`Worker::tick`] is one look at everything.

mod config;
mod expiry;
mod heartbeat;
mod leftovers;
mod observe;
mod orphans;
mod results;
mod retention;
mod scores;
mod spec;
mod start;
mod webhooks;

use std::{collections::HashMap, io, sync::Arc};

use self::webhooks::Sending;
pub use self::{config::WorkerConfig, heartbeat::Heartbeat};
use crate::{
    domain::RunId,
    launch::Launcher,
    run_dir::RunDir,
    store::{Errand, Lease, Store, StoreError},
};

/// What can go wrong in one look; the next one tries again.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A run's files or its process.
    #[error("run '{run_id}'")]
    Run {
        /// The run.
        run_id: RunId,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Result of a worker's step.
pub type Result<T> = std::result::Result<T, WorkerError>;

/// Works on the jobs and registrations of one store.
#[derive(Debug)]
pub struct Worker {
    store: Store,
    launcher: Launcher,
    config: WorkerConfig,
    owner: Arc<str>,
    heartbeat: Heartbeat,
    /// Since when a run's process should be gone, because it was told to stop or has said its last word.
    due_since: HashMap<RunId, i64>,
    renewed_at: i64,
    /// When this look at everything began, in Unix seconds.
    now: i64,
    /// What was free on the disk then, in bytes.
    free_disk_bytes: u64,
    /// When what has expired was last removed.
    expired_at: i64,
    sending: Sending,
    /// When the retention of jobs was last applied; 0 when it is due.
    retained_at: i64,
}

impl Worker {
    /// A worker with a name of its own.
    pub fn new(store: Store, launcher: Launcher, config: WorkerConfig) -> Self {
        // Ids are unique, which is all a worker's name must be.
        let owner = Arc::from(RunId::new().as_str().replacen(RunId::PREFIX, "worker-", 1));
        let heartbeat = Heartbeat::new(config.lease);
        Self {
            store,
            launcher,
            config,
            owner,
            heartbeat,
            due_since: HashMap::new(),
            renewed_at: 0,
            now: 0,
            free_disk_bytes: u64::MAX,
            expired_at: 0,
            sending: Sending::default(),
            retained_at: 0,
        }
    }

    /// Tells others whether this worker is alive.
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// Looks at everything again and again until `shutdown` is done. Runs go on without it.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        if let Err(e) = self.store.release_deliveries().await {
            // They are released by themselves, in a minute.
            tracing::warn!(error = %e, "deliveries that were under way have to wait");
        }
        loop {
            if self.tick().await.is_ok() {
                self.heartbeat.beat();
            }
            tokio::select! {
                () = &mut shutdown => break,
                () = tokio::time::sleep(self.config.interval) => {}
            }
        }
        self.finish_telling().await;
        if let Err(e) = self.store.let_leases_expire(&self.owner).await {
            // They expire by themselves; the next worker only waits longer for them.
            tracing::warn!(error = %e, "could not give back the leases");
        }
    }

    /// Looks at everything once. Returns whether anything has changed.
    pub async fn tick(&mut self) -> Result<bool> {
        self.look(crate::store::unix_now(), crate::store::unix_now).await
    }

    /// The same at a time of the caller's, in Unix seconds.
    ///
    /// # Errors
    /// The first; it has been logged, and everything else has had its turn nevertheless.
    pub async fn tick_at(&mut self, now: i64) -> Result<bool> {
        self.look(now, || now).await
    }

    /// `clock` is asked again where a look that took long must not act as of its beginning.
    async fn look(&mut self, now: i64, clock: impl Fn() -> i64) -> Result<bool> {
        self.now = now;
        self.free_disk_bytes = self.config.disk.free_bytes();
        let owner = self.owner.clone();
        let lease = Lease { owner: &owner, now, expires_at: now + self.config.lease.as_secs() as i64 };
        let mut look = Look { changed: false, error: None };
        look.note(self.store.promote_validating_jobs().await.map(|n| n > 0).map_err(Into::into));
        look.note(self.keep_leases(&lease).await);
        match self.store.held_runs(&owner).await {
            Ok(runs) => {
                self.due_since.retain(|id, _| runs.iter().any(|run| run.id == *id));
                for run in &runs {
                    look.note(self.observe(run, now).await);
                }
            }
            Err(e) => look.note(Err(e.into())),
        }
        look.note(self.store.raise_waiting_jobs(now).await.map(|n| n > 0).map_err(Into::into));
        look.note(self.start_jobs(&lease).await);
        look.note(self.remove_deleted_exports().await);
        look.note(self.remove_expired(now).await);
        look.note(self.tell_webhooks(clock()).await);
        look.note(self.apply_retention(now).await);
        for errand in Errand::ALL {
            look.note(self.start_errands(errand, &lease).await);
        }
        look.error.map_or(Ok(look.changed), Err)
    }

    async fn keep_leases(&mut self, lease: &Lease<'_>) -> Result<bool> {
        // A third of the lease's length: two renewals may fail before anybody takes over.
        if lease.now - self.renewed_at >= self.config.lease.as_secs() as i64 / 3 {
            self.store.renew_leases(lease).await?;
            self.renewed_at = lease.now;
        }
        Ok(self.store.take_over_expired(lease).await? > 0)
    }

    fn dir(&self, run: &RunId) -> RunDir {
        RunDir::new(self.config.data_dir.join("runs").join(run.as_str()))
    }
}

/// What one look has found.
struct Look {
    changed: bool,
    error: Option<WorkerError>,
}

impl Look {
    fn note(&mut self, step: Result<bool>) {
        match step {
            Ok(changed) => self.changed |= changed,
            Err(e) => {
                tracing::error!(error = &e as &dyn std::error::Error, "the worker could not do one of its steps");
                self.error.get_or_insert(e);
            }
        }
    }
}
