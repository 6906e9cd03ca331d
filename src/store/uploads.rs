//! Uploads in parts: their rows. The contents of parts lie below `uploads/` of the data directory and are not the store's business.

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Result, Store, StoreError,
    column::{count, count_opt, from_json, from_word, json, parsed, parsed_opt, word},
    files,
    owners::ownership,
};
use crate::domain::{DatasetFormat, FileRecord, PartId, PartRecord, UploadId, UploadRecord, UploadStatus, UserName};

/// How long an upload is remembered after it could have been completed, in seconds.
const MEMORY_S: i64 = 24 * 3600;

impl Store {
    /// Adds an upload.
    ///
    /// # Errors
    /// [`StoreError::TooMany`] when its owner has as many under way as one may have.
    pub async fn insert_upload(&self, upload: &UploadRecord) -> Result<()> {
        let mut tx = self.write().await?;
        let owner = upload.ownership.owner.as_ref().map(UserName::as_str);
        let n_pending: i64 = sqlx::query_scalar(
            "select count(*) from uploads where owner is ? and status = 'pending' and expires_at > ?",
        )
        .bind(owner)
        .bind(upload.created_at)
        .fetch_one(&mut *tx)
        .await?;
        if n_pending >= UploadRecord::MAX_PENDING as i64 {
            return Err(StoreError::TooMany {
                kind: "uploads under way",
                max: UploadRecord::MAX_PENDING,
                way_out: "complete or cancel some (POST /v1/uploads/{id}/cancel), or wait: each expires after an hour",
            });
        }
        sqlx::query(
            "insert into uploads (id, filename, purpose, format, size_bytes, file_kept_for_s, status, created_at, expires_at,
                                  owner, is_shared)
             values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(upload.id.as_str())
        .bind(&upload.filename)
        .bind(word(&upload.purpose))
        .bind(upload.format.map(DatasetFormat::as_str))
        .bind(upload.size_bytes as i64)
        .bind(upload.file_kept_for_s.map(|seconds| seconds as i64))
        .bind(word(&upload.status))
        .bind(upload.created_at)
        .bind(upload.expires_at)
        .bind(owner)
        .bind(upload.ownership.is_shared)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// An upload as it stands at `now`, in Unix seconds.
    pub async fn upload(&self, id: &UploadId, now: i64) -> Result<UploadRecord> {
        upload(&mut *self.pool.acquire().await?, id, now).await
    }

    /// Adds a part whose content is already in its place.
    ///
    /// # Errors
    /// [`StoreError::UploadEnded`]; [`StoreError::TooMany`] when there is no room for it.
    pub async fn insert_part(&self, part: &PartRecord) -> Result<()> {
        let mut tx = self.write().await?;
        let upload = pending(&mut tx, &part.upload_id, part.created_at).await?;
        let there = sqlx::query(
            "select count(*) as n, coalesce(sum(size_bytes), 0) as n_bytes from upload_parts where upload_id = ?",
        )
        .bind(part.upload_id.as_str())
        .fetch_one(&mut *tx)
        .await?;
        let too_many = |kind, max| StoreError::TooMany { kind, max, way_out: "cancel the upload and begin a new one" };
        if count(&there, "n")? >= UploadRecord::MAX_PARTS {
            return Err(too_many("parts of this upload", UploadRecord::MAX_PARTS));
        }
        if count(&there, "n_bytes")?.saturating_add(part.size_bytes) > upload.max_bytes_of_parts() {
            return Err(too_many(
                "bytes, twice what was announced, allowed in the parts of this upload",
                upload.max_bytes_of_parts(),
            ));
        }
        sqlx::query("insert into upload_parts (id, upload_id, size_bytes, sha256, created_at) values (?, ?, ?, ?, ?)")
            .bind(part.id.as_str())
            .bind(part.upload_id.as_str())
            .bind(part.size_bytes as i64)
            .bind(&part.sha256)
            .bind(part.created_at)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// The parts of an upload, in the order in which they have arrived.
    pub async fn upload_parts(&self, id: &UploadId) -> Result<Vec<PartRecord>> {
        let rows = sqlx::query("select * from upload_parts where upload_id = ? order by seq")
            .bind(id.as_str())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(part_from_row).collect()
    }

    /// Ends an upload with the file its parts have become, whose content is already in its place. Both or neither.
    ///
    /// # Errors
    /// [`StoreError::UploadEnded`].
    pub async fn complete_upload(&self, id: &UploadId, part_ids: &[PartId], file: &FileRecord) -> Result<()> {
        let mut tx = self.write().await?;
        pending(&mut tx, id, file.created_at).await?;
        files::insert(&mut tx, file).await?;
        sqlx::query("update uploads set status = 'completed', file_id = ?, part_ids = ? where id = ?")
            .bind(file.id.as_str())
            .bind(json(&part_ids))
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Gives an upload up; one that is given up already stays so.
    ///
    /// # Errors
    /// [`StoreError::UploadEnded`].
    pub async fn cancel_upload(&self, id: &UploadId, now: i64) -> Result<UploadRecord> {
        let mut tx = self.write().await?;
        if upload(&mut tx, id, now).await?.status != UploadStatus::Cancelled {
            pending(&mut tx, id, now).await?;
            sqlx::query("update uploads set status = 'cancelled' where id = ?")
                .bind(id.as_str())
                .execute(&mut *tx)
                .await?;
        }
        let upload = upload(&mut tx, id, now).await?;
        tx.commit().await?;
        Ok(upload)
    }

    /// Notes which uploads are too late, and forgets those that ended long ago and have no parts left.
    pub async fn expire_uploads(&self, now: i64) -> Result<u64> {
        let expired = sqlx::query("update uploads set status = 'expired' where status = 'pending' and expires_at <= ?")
            .bind(now)
            .execute(&self.pool)
            .await?;
        let forgotten = sqlx::query(
            "delete from uploads where expires_at <= ? and status <> 'pending'
                 and not exists (select 1 from upload_parts where upload_id = uploads.id)",
        )
        .bind(now - MEMORY_S)
        .execute(&self.pool)
        .await?;
        Ok(expired.rows_affected() + forgotten.rows_affected())
    }

    /// Parts of uploads that have ended: their contents are the caller's to remove.
    pub async fn parts_left_over(&self, limit: u32) -> Result<Vec<PartId>> {
        let rows = sqlx::query(
            "select upload_parts.id from upload_parts join uploads on uploads.id = upload_id
             where status <> 'pending' order by upload_parts.seq limit ?",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| parsed(row, "id")).collect()
    }

    /// Whether there is such a part.
    pub async fn has_part(&self, id: &PartId) -> Result<bool> {
        let found = sqlx::query("select 1 from upload_parts where id = ?").bind(id.as_str()).fetch_optional(&self.pool);
        Ok(found.await?.is_some())
    }

    /// Forgets a part whose content is gone.
    pub async fn forget_part(&self, id: &PartId) -> Result<()> {
        sqlx::query("delete from upload_parts where id = ?").bind(id.as_str()).execute(&self.pool).await?;
        Ok(())
    }
}

async fn upload(db: &mut SqliteConnection, id: &UploadId, now: i64) -> Result<UploadRecord> {
    let row = sqlx::query("select * from uploads where id = ?").bind(id.as_str()).fetch_optional(db).await?;
    let row = row.ok_or_else(|| StoreError::NotFound { kind: "upload", id: id.to_string() })?;
    Ok(from_row(&row)?.at(now))
}

/// An upload that still takes parts.
async fn pending(db: &mut SqliteConnection, id: &UploadId, now: i64) -> Result<UploadRecord> {
    let upload = upload(db, id, now).await?;
    if upload.status == UploadStatus::Pending {
        return Ok(upload);
    }
    Err(StoreError::UploadEnded { id: id.to_string(), status: word(&upload.status) })
}

fn from_row(row: &SqliteRow) -> Result<UploadRecord> {
    Ok(UploadRecord {
        id: parsed(row, "id")?,
        filename: row.try_get("filename")?,
        purpose: from_word(row, "purpose")?,
        format: parsed_opt(row, "format")?,
        size_bytes: count(row, "size_bytes")?,
        file_kept_for_s: count_opt(row, "file_kept_for_s")?,
        status: from_word(row, "status")?,
        part_ids: from_json(row, "part_ids")?,
        file: parsed_opt(row, "file_id")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        ownership: ownership(row)?,
    })
}

fn part_from_row(row: &SqliteRow) -> Result<PartRecord> {
    Ok(PartRecord {
        id: parsed(row, "id")?,
        upload_id: parsed(row, "upload_id")?,
        size_bytes: count(row, "size_bytes")?,
        sha256: row.try_get("sha256")?,
        created_at: row.try_get("created_at")?,
    })
}
