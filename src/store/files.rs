//! Uploaded files: their rows. The contents lie below `files/` of the data directory and are not the store's business.

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Page, Result, Store, StoreError,
    column::{count, from_json_opt, from_word, json, parsed, parsed_opt, word},
    owners::{ownership, seen},
};
use crate::domain::{
    DatasetFormat, DatasetReport, FileId, FilePurpose, FileRecord, FileStatus, JobId, UserName, Viewer,
};

/// Which files to list.
#[derive(Debug, Clone, Default)]
pub struct FileQuery {
    /// Only those they may see.
    pub viewer: Viewer,
    /// Only those for this purpose.
    pub purpose: Option<FilePurpose>,
    /// Go on after this one.
    pub after: Option<FileId>,
    /// At most so many.
    pub limit: usize,
    /// Oldest first; else newest first.
    pub ascending: bool,
}

impl Store {
    /// Adds a file whose content is already in its place.
    pub async fn insert_file(&self, file: &FileRecord) -> Result<()> {
        insert(&mut *self.pool.acquire().await?, file).await
    }

    /// Records what the check of an `uploaded` file found: it becomes `processed`, or `error` where there are problems.
    ///
    /// A file that has been checked already keeps its report.
    pub async fn set_file_report(&self, id: &FileId, report: &DatasetReport) -> Result<FileRecord> {
        let status = if report.problems.is_empty() { FileStatus::Processed } else { FileStatus::Error };
        sqlx::query("update files set status = ?, report = ? where id = ? and status = 'uploaded'")
            .bind(word(&status))
            .bind(json(report))
            .bind(id.as_str())
            .execute(&self.pool)
            .await?;
        self.file(id).await
    }

    /// A file.
    pub async fn file(&self, id: &FileId) -> Result<FileRecord> {
        let row = sqlx::query("select * from files where id = ?").bind(id.as_str()).fetch_optional(&self.pool).await?;
        from_row(&row.ok_or_else(|| not_found(id))?)
    }

    /// Whether there is such a file.
    pub async fn has_file(&self, id: &FileId) -> Result<bool> {
        let found = sqlx::query("select 1 from files where id = ?").bind(id.as_str()).fetch_optional(&self.pool);
        Ok(found.await?.is_some())
    }

    /// Files, newest first unless asked otherwise.
    pub async fn files(&self, query: &FileQuery) -> Result<Page<FileRecord>> {
        let after: Option<i64> = match &query.after {
            None => None,
            Some(id) => {
                let seq = sqlx::query_scalar(concat!("select seq from files where id = ?2 and ", seen!()))
                    .bind(query.viewer.name())
                    .bind(id.as_str())
                    .fetch_optional(&self.pool)
                    .await?;
                Some(seq.ok_or_else(|| StoreError::UnknownAfter { kind: "file", id: id.to_string() })?)
            }
        };
        let statement = if query.ascending {
            concat!(
                "select * from files where seq > coalesce(?2, 0) and (?3 is null or purpose = ?3) and ",
                seen!(),
                " order by seq limit ?4"
            )
        } else {
            concat!(
                "select * from files where seq < coalesce(?2, 9223372036854775807) and (?3 is null or purpose = ?3) and ",
                seen!(),
                " order by seq desc limit ?4"
            )
        };
        let rows = sqlx::query(statement)
            .bind(query.viewer.name())
            .bind(after)
            .bind(query.purpose.as_ref().map(word))
            .bind(Page::<FileRecord>::n_rows(query.limit))
            .fetch_all(&self.pool)
            .await?;
        Page::cut(rows.iter().map(from_row), query.limit)
    }

    /// The files that wait for their check, oldest first: after a restart it has to be begun again.
    pub async fn unchecked_files(&self) -> Result<Vec<FileRecord>> {
        let rows =
            sqlx::query("select * from files where status = 'uploaded' order by seq").fetch_all(&self.pool).await?;
        rows.iter().map(from_row).collect()
    }

    /// Files whose time is over and that no job still needs; their contents are the caller's to remove.
    pub async fn expired_files(&self, now: i64, limit: u32) -> Result<Vec<FileId>> {
        let rows = sqlx::query(
            "select id from files where expires_at <= ? and not exists (
                 select 1 from job_files join jobs on jobs.id = job_id
                 where file_id = files.id and jobs.status not in ('succeeded', 'failed', 'cancelled')
             ) and not exists (select 1 from models where source = 'scores:' || files.id and status = 'pending')
             order by expires_at limit ?",
        )
        .bind(now)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| parsed(row, "id")).collect()
    }

    /// Deletes a file's row, unless a job that has not ended reads it.
    pub async fn delete_file(&self, id: &FileId) -> Result<FileRecord> {
        let mut tx = self.write().await?;
        let user: Option<String> = sqlx::query_scalar(
            "select id from jobs join job_files on job_id = id
             where file_id = ? and status not in ('succeeded', 'failed', 'cancelled') order by seq limit 1",
        )
        .bind(id.as_str())
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(job) = user {
            return Err(StoreError::InUse {
                kind: "file",
                id: id.to_string(),
                user: format!("job '{job}'"),
                way_out: "wait for the job's end or cancel it",
            });
        }
        let row = sqlx::query("delete from files where id = ? returning *")
            .bind(id.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        let file = from_row(&row.ok_or_else(|| not_found(id))?)?;
        tx.commit().await?;
        Ok(file)
    }
}

/// Adds a file's row to what belongs together with it.
pub(super) async fn insert(db: &mut SqliteConnection, file: &FileRecord) -> Result<()> {
    sqlx::query(
        "insert into files (id, filename, purpose, size_bytes, sha256, format, status, report, created_at, expires_at, result_of,
                            owner, is_shared)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(file.id.as_str())
    .bind(&file.filename)
    .bind(word(&file.purpose))
    .bind(file.size_bytes as i64)
    .bind(&file.sha256)
    .bind(file.format.map(DatasetFormat::as_str))
    .bind(word(&file.status))
    .bind(file.report.as_ref().map(json))
    .bind(file.created_at)
    .bind(file.expires_at)
    .bind(file.job_id.as_ref().map(JobId::as_str))
    .bind(file.ownership.owner.as_ref().map(UserName::as_str))
    .bind(file.ownership.is_shared)
    .execute(db)
    .await?;
    Ok(())
}

fn not_found(id: &FileId) -> StoreError {
    StoreError::NotFound { kind: "file", id: id.to_string() }
}

fn from_row(row: &SqliteRow) -> Result<FileRecord> {
    Ok(FileRecord {
        id: parsed(row, "id")?,
        filename: row.try_get("filename")?,
        purpose: from_word(row, "purpose")?,
        size_bytes: count(row, "size_bytes")?,
        sha256: row.try_get("sha256")?,
        format: parsed_opt(row, "format")?,
        status: from_word(row, "status")?,
        report: from_json_opt(row, "report")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        job_id: parsed_opt(row, "result_of")?,
        ownership: ownership(row)?,
    })
}
