//! What can go wrong in the store, told apart as far as a caller can do something about it.

use std::path::PathBuf;

use crate::domain::{IllegalTransition, JobStatus};

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such thing.
    #[error("there is no {kind} '{id}'")]
    NotFound {
        /// `file`, `model`, `reference list`, `job`, `checkpoint`, `export`, `upload`, `webhook`, `delivery`.
        kind: &'static str,
        /// The id asked for.
        id: String,
    },
    /// A list was asked to go on after something that is not in it.
    #[error("cannot go on after '{id}': there is no such {kind}; use the last id of the page before")]
    UnknownAfter {
        /// What is listed.
        kind: &'static str,
        /// The id given as `after`.
        id: String,
    },
    /// The name is taken.
    #[error("there is already a {kind} '{id}'")]
    Exists {
        /// What is to be made.
        kind: &'static str,
        /// Its name.
        id: String,
    },
    /// It cannot be deleted: something still needs it.
    #[error("{kind} '{id}' is in use by {user}: {way_out}")]
    InUse {
        /// What was to be deleted.
        kind: &'static str,
        /// Its id.
        id: String,
        /// What needs it, by kind and id.
        user: String,
        /// What to do first.
        way_out: &'static str,
    },
    /// Somebody has as many as one may have.
    #[error("there are already {max} {kind}: {way_out}")]
    TooMany {
        /// What is counted, in the plural.
        kind: &'static str,
        /// How many there may be.
        max: u64,
        /// What to do first.
        way_out: &'static str,
    },
    /// An upload that takes no parts any more.
    #[error("upload '{id}' is {status}: begin a new one")]
    UploadEnded {
        /// Its id.
        id: String,
        /// `completed`, `cancelled` or `expired`.
        status: String,
    },
    /// It exists but cannot be used: a file or a model that is in error, a webhook that is disabled.
    #[error("{kind} '{id}' cannot be used: {reason}")]
    Unusable {
        /// `file`, `model` or `webhook`.
        kind: &'static str,
        /// Its id.
        id: String,
        /// Why.
        reason: String,
    },
    /// The table of statuses does not have this change.
    #[error(transparent)]
    IllegalTransition(#[from] IllegalTransition),
    /// It neither waits for a slot nor for its user, so that its place among those that wait cannot change.
    #[error(
        "the job '{id}' is {status}: a priority tells when a job starts, so it changes only until then, or while it is paused"
    )]
    NotWaiting {
        /// The job.
        id: String,
        /// What it does instead.
        status: JobStatus,
    },
    /// As many jobs of its owner wait as may.
    #[error(
        "{max} jobs of '{owner}' wait already, as many as one user may have: let some run or cancel some, then send it again"
    )]
    TooManyWaiting {
        /// Whose.
        owner: String,
        /// How many may.
        max: u32,
    },
    /// Another worker holds the lease of this run, or has recorded other events of it in the meantime.
    #[error("run '{run_id}' is no longer this worker's: its lease has been taken over")]
    LeaseLost {
        /// The run.
        run_id: String,
    },
    /// A newer mrpo has already migrated the database.
    #[error(
        "{path} was written by a newer mrpo (migration {version} is unknown to this one): use that version or newer"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// The newest migration it has had that this binary lacks.
        version: i64,
    },
    /// The file is not a database, or a damaged one.
    #[error("{path} is not a readable SQLite database: restore it from a backup, or move it away to begin anew")]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row holds what no version of mrpo writes.
    #[error("the database holds an unreadable {what}")]
    Decode {
        /// Which column.
        what: &'static str,
        /// Why it cannot be read.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database could not be opened or brought up to date.
    #[error("cannot open {path}")]
    Open {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Anything else SQLite refuses: disk full, locked for too long.
    #[error("the database refused a statement")]
    Sql(#[from] sqlx::Error),
}

impl StoreError {
    /// Whether nothing is left to write on.
    pub fn is_disk_full(&self) -> bool {
        /// `SQLITE_FULL`, as sqlx spells it.
        const FULL: &str = "13";
        self.sqlite_code().as_deref() == Some(FULL)
    }

    /// Whether it was locked, or every connection taken, for longer than one waits: the same call may succeed later.
    pub fn is_busy(&self) -> bool {
        /// `SQLITE_BUSY`, as sqlx spells it.
        const BUSY: &str = "5";
        matches!(self, Self::Sql(sqlx::Error::PoolTimedOut)) || self.sqlite_code().as_deref() == Some(BUSY)
    }

    /// Whether the database itself is damaged, or is none.
    pub fn is_damage(&self) -> bool {
        /// `SQLITE_CORRUPT`, `SQLITE_NOTADB` and one of the former's kinds, as sqlx spells them.
        const DAMAGED: [&str; 3] = ["11", "26", "267"];
        match self {
            Self::Corrupt { .. } | Self::Decode { .. } => true,
            _ => self.sqlite_code().is_some_and(|code| DAMAGED.contains(&code.as_str())),
        }
    }

    fn sqlite_code(&self) -> Option<String> {
        let Self::Sql(e) = self else { return None };
        e.as_database_error()?.code().map(Into::into)
    }
}

/// Result of a call of the store.
pub type Result<T> = std::result::Result<T, StoreError>;
