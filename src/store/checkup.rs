//! The database as it is found, for whoever looks for damage: opened read-only, nothing made, nothing migrated.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    Row, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

use super::{
    MIGRATIONS, Result, Store,
    column::{count, from_json, parsed, parsed_opt},
    opening,
};
use crate::domain::{ExportId, ExportedFiles, FileId, HashedFile, ModelId, ModelInfo, ModelLocation, PartId, RunId};

/// A database that is only looked at.
#[derive(Debug)]
pub struct Checkup {
    pool: SqlitePool,
}

/// How a database's tables compare with those this program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaAge {
    /// They are the same.
    Same,
    /// A start of this program brings them up to date.
    Older {
        /// The newest migration it has had; 0 if none.
        version: i64,
    },
    /// A newer mrpo has written it.
    Newer {
        /// The newest migration it has had.
        version: i64,
    },
}

/// A run as its row has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRun {
    /// Its id, the name of its directory.
    pub id: RunId,
    /// Whether a worker holds it.
    pub is_leased: bool,
}

/// A checkpoint that is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownCheckpoint {
    /// The run whose directory it lies in.
    pub run: RunId,
    /// Its name below `checkpoints/`.
    pub directory: String,
    /// Size of its files, in bytes.
    pub size_bytes: u64,
}

/// An export that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownExport {
    /// Its id.
    pub id: ExportId,
    /// The run whose directory it lies in; a ready export has one.
    pub run: Option<RunId>,
    /// Its files.
    pub files: Vec<HashedFile>,
}

impl Checkup {
    /// Opens `{data_dir}/mrpo.sqlite`. `is_served` tells whether a server may be writing it: without one nothing is written beside it
    /// either, not even what SQLite's readers share.
    ///
    /// # Errors
    /// As of [`Store::open`], and where there is none.
    pub async fn open(data_dir: &Path, is_served: bool) -> Result<Self> {
        let path = data_dir.join(Store::FILE_NAME);
        let has_log = Self::log_file(data_dir).exists();
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .read_only(true)
            .immutable(!is_served && !has_log)
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
        Ok(Self { pool: pool.map_err(|e| opening(path, e.into()))? })
    }

    /// What SQLite finds damaged, in its words; nothing in a sound database.
    pub async fn damage(&self) -> Result<Vec<String>> {
        let lines: Vec<String> = sqlx::query_scalar("pragma quick_check(10)").fetch_all(&self.pool).await?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }

    /// How its tables compare with ours.
    pub async fn schema_age(&self) -> Result<SchemaAge> {
        let has_any: bool =
            sqlx::query_scalar("select exists (select 1 from sqlite_master where name = '_sqlx_migrations')")
                .fetch_one(&self.pool)
                .await?;
        let had: Vec<i64> = if has_any {
            sqlx::query_scalar("select version from _sqlx_migrations").fetch_all(&self.pool).await?
        } else {
            Vec::new()
        };
        if let Some(version) = had.iter().copied().filter(|version| !MIGRATIONS.version_exists(*version)).max() {
            return Ok(SchemaAge::Newer { version });
        }
        if MIGRATIONS.iter().all(|ours| had.contains(&ours.version)) {
            return Ok(SchemaAge::Same);
        }
        Ok(SchemaAge::Older { version: had.iter().copied().max().unwrap_or(0) })
    }

    /// When the newest job, file or event was made, in Unix seconds.
    pub async fn newest_at(&self) -> Result<Option<i64>> {
        newest_at(&self.pool).await
    }

    /// Uploaded files, with their sizes in bytes.
    pub async fn files(&self) -> Result<Vec<(FileId, u64)>> {
        let rows = sqlx::query("select id, size_bytes from files").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((parsed(row, "id")?, count(row, "size_bytes")?))).collect()
    }

    /// Parts of uploads that are under way, with their sizes in bytes.
    pub async fn parts(&self) -> Result<Vec<(PartId, u64)>> {
        let rows = sqlx::query("select id, size_bytes from upload_parts").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((parsed(row, "id")?, count(row, "size_bytes")?))).collect()
    }

    /// Runs of every kind.
    pub async fn runs(&self) -> Result<Vec<KnownRun>> {
        let rows = sqlx::query("select run_id, lease_owner is not null as is_leased from runs").fetch_all(&self.pool);
        let run = |row| Ok(KnownRun { id: parsed(row, "run_id")?, is_leased: row.try_get("is_leased")? });
        rows.await?.iter().map(run).collect()
    }

    /// The checkpoints of all jobs.
    pub async fn checkpoints(&self) -> Result<Vec<KnownCheckpoint>> {
        let rows = sqlx::query(
            "select run_id, directory, size_bytes from checkpoints join runs on runs.job_id = checkpoints.job_id
             where removed_at is null",
        )
        .fetch_all(&self.pool)
        .await?;
        let checkpoint = |row| {
            Ok(KnownCheckpoint {
                run: parsed(row, "run_id")?,
                directory: row.try_get("directory")?,
                size_bytes: count(row, "size_bytes")?,
            })
        };
        rows.iter().map(checkpoint).collect()
    }

    /// Exports that are ready.
    pub async fn exports(&self) -> Result<Vec<KnownExport>> {
        let rows = sqlx::query(
            "select exports.id, run_id, result from exports left join runs on export_id = exports.id where status = 'ready'",
        )
        .fetch_all(&self.pool)
        .await?;
        let export = |row| {
            let ExportedFiles { files, .. } = from_json(row, "result")?;
            Ok(KnownExport { id: parsed(row, "id")?, run: parsed_opt(row, "run_id")?, files })
        };
        rows.iter().map(export).collect()
    }

    /// Models that are ready, and where their files lie.
    pub async fn models(&self) -> Result<Vec<(ModelId, ModelLocation)>> {
        let rows = sqlx::query("select id, info from models where status = 'ready'").fetch_all(&self.pool).await?;
        let model = |row| Ok((parsed(row, "id")?, from_json::<ModelInfo>(row, "info")?.location));
        rows.iter().map(model).collect()
    }

    /// Whether there are keys, so that everybody is asked for one.
    pub async fn has_keys(&self) -> Result<bool> {
        Ok(sqlx::query_scalar("select exists (select 1 from api_keys)").fetch_one(&self.pool).await?)
    }

    /// Its write-ahead log.
    pub fn log_file(data_dir: &Path) -> PathBuf {
        data_dir.join(Store::FILE_NAME).with_extension("sqlite-wal")
    }
}

/// When the newest job, file or event was made, in Unix seconds.
pub(super) async fn newest_at(pool: &SqlitePool) -> Result<Option<i64>> {
    Ok(sqlx::query_scalar(
        "select max(at) from (select max(created_at) as at from jobs union all select max(created_at) from files
         union all select created_at from (select created_at from events order by seq desc limit 1))",
    )
    .fetch_one(pool)
    .await?)
}
