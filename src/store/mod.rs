//! All SQL and nothing but SQL: what the service knows, in one SQLite file below the data directory.
//!
//! A change of a job's status is one guarded statement (`transition.rs`); whatever belongs together is one transaction.

mod api_keys;
mod audit;
mod checkup;
mod column;
mod deliveries;
mod disk;
mod errands;
mod error;
mod exports;
mod files;
mod history;
mod inspections;
mod jobs;
mod kept_replies;
mod limits;
mod live;
mod memory;
mod models;
mod owners;
mod page;
mod private;
mod promote;
mod queue;
mod record;
mod record_end;
mod reference_lists;
mod reference_scores;
mod retention;
mod runs;
mod score_inventory;
mod totals;
mod transition;
mod uploads;
mod webhooks;
mod write;

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sqlx::{
    SqlitePool,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use tokio::sync::watch;

use self::write::Write;
pub use self::{
    audit::{AuditEntry, AuditNote},
    checkup::{Checkup, KnownCheckpoint, KnownExport, KnownRun, SchemaAge},
    errands::Errand,
    error::{Result, StoreError},
    files::FileQuery,
    history::{Checkpoint, EventKind, JobEvent, MetricKind, MetricPoint},
    jobs::{JobQuery, JobTerms, MetadataFilter},
    kept_replies::{KeptReply, ReplyClaim, ReplySlot},
    live::LiveEvent,
    owners::Owned,
    page::Page,
    record::RunBatch,
    record_end::RunEnd,
    reference_scores::{KeptScore, ScoreSet},
    retention::Surplus,
    runs::{FreeRoom, Lease, Run, RunSubject, StopIntent},
    score_inventory::{KeptDataset, KeptScores},
    totals::{JobCount, Totals},
};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// The database; a clone is another handle to the same one.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
    changed: watch::Sender<()>,
}

impl Store {
    /// Name of the database below the data directory.
    pub const FILE_NAME: &'static str = "mrpo.sqlite";

    /// Opens `{data_dir}/mrpo.sqlite`, makes it where there is none, and brings its tables up to date. Only its owner may read it.
    ///
    /// Several processes may have it open at once.
    ///
    /// # Errors
    /// [`StoreError::Newer`] when a newer mrpo has written it, [`StoreError::Corrupt`] when it is not a database.
    pub async fn open(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join(Self::FILE_NAME);
        private::keep(&path).map_err(|e| StoreError::Open { path: path.clone(), source: e.into() })?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // FULL, not NORMAL: a job that was answered with 200 must still be there after a power cut. It costs one fsync
            // a commit, and there are a few commits a second.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(30));
        let pool = SqlitePoolOptions::new()
            .max_connections(8)
            .acquire_timeout(Duration::from_secs(35))
            .connect_with(options)
            .await
            .map_err(|e| opening(path.clone(), e.into()))?;
        MIGRATIONS.run(&pool).await.map_err(|e| opening(path, e))?;
        Ok(Self { pool, changed: watch::Sender::new(()) })
    }

    /// Asks the database for anything at all: whether the service can work.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("select count(*) from jobs where status = 'running'").execute(&self.pool).await?;
        Ok(())
    }

    /// Writes a copy of the database as it is at one moment to a file that is not there yet; others go on reading and writing.
    pub async fn copy_to(&self, file: &Path) -> Result<()> {
        private::keep(file).map_err(|e| StoreError::Open { path: file.to_owned(), source: e.into() })?;
        sqlx::query("vacuum into ?").bind(file.to_string_lossy()).execute(&self.pool).await?;
        Ok(())
    }

    /// When the database was made, in Unix seconds.
    pub async fn born_at(&self) -> Result<i64> {
        let at: Option<i64> = sqlx::query_scalar("select unixepoch(min(installed_on)) from _sqlx_migrations")
            .fetch_one(&self.pool)
            .await?;
        Ok(at.unwrap_or(i64::MAX))
    }

    /// When the newest job, file or event was made, in Unix seconds.
    pub async fn newest_at(&self) -> Result<Option<i64>> {
        checkup::newest_at(&self.pool).await
    }

    /// Closes every connection; the write-ahead log is folded into the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// A transaction that writes. It takes the write lock at once: one that began by reading could not wait for it later.
    async fn write(&self) -> Result<Write> {
        Ok(Write::new(self.pool.begin_with("begin immediate").await?, self.changed.clone()))
    }

    /// Tells whenever this process has written something that belongs together: time to look for news.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

fn opening(path: PathBuf, error: MigrateError) -> StoreError {
    // SQLITE_CORRUPT and SQLITE_NOTADB, as sqlx spells them.
    let damaged = |e: &sqlx::Error| {
        e.as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .is_some_and(|code| matches!(code.as_ref(), "11" | "26" | "267"))
    };
    match error {
        MigrateError::VersionMissing(version) => StoreError::Newer { path, version },
        MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) if damaged(&e) => {
            StoreError::Corrupt { path, source: e.into() }
        }
        other => StoreError::Open { path, source: other.into() },
    }
}

/// Unix time in seconds.
pub fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}
