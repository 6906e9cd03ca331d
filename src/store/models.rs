//! Models: registered ones and those that jobs made.

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Page, Result, Store, StoreError,
    column::{from_json_opt, from_word, json, parsed, parsed_opt},
    exports,
    owners::{ownership, seen},
    reference_scores, unix_now,
};
use crate::domain::{
    JobId, ModelId, ModelInfo, ModelLocation, ModelRecord, ModelSource, Ownership, RunEvent, UserName, Viewer,
};

impl Store {
    /// Adds a model that is to be fetched and checked: it is `pending`, and the worker takes it from there.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when the name is taken.
    pub async fn insert_model(&self, id: &ModelId, source: &ModelSource, ownership: &Ownership) -> Result<ModelRecord> {
        let row = sqlx::query(
            "insert into models (id, source, status, created_at, owner, is_shared) values (?, ?, 'pending', ?, ?, ?)
             on conflict (id) do nothing returning *",
        )
        .bind(id.as_str())
        .bind(source.to_string())
        .bind(unix_now())
        .bind(ownership.owner.as_ref().map(UserName::as_str))
        .bind(ownership.is_shared)
        .fetch_optional(&self.pool)
        .await?;
        from_row(&row.ok_or_else(|| StoreError::Exists { kind: "model", id: id.to_string() })?)
    }

    /// A model.
    pub async fn model(&self, id: &ModelId) -> Result<ModelRecord> {
        model(&mut *self.pool.acquire().await?, id).await
    }

    /// The models they may see, newest first.
    pub async fn models(&self, viewer: &Viewer, after: Option<&ModelId>, limit: usize) -> Result<Page<ModelRecord>> {
        let after: Option<i64> = match after {
            None => None,
            Some(id) => {
                let seq = sqlx::query_scalar(concat!("select seq from models where id = ?2 and ", seen!()))
                    .bind(viewer.name())
                    .bind(id.as_str())
                    .fetch_optional(&self.pool)
                    .await?;
                Some(seq.ok_or_else(|| StoreError::UnknownAfter { kind: "model", id: id.to_string() })?)
            }
        };
        let rows = sqlx::query(concat!(
            "select * from models where seq < coalesce(?2, 9223372036854775807) and ",
            seen!(),
            " order by seq desc limit ?3"
        ))
        .bind(viewer.name())
        .bind(after)
        .bind(Page::<ModelRecord>::n_rows(limit))
        .fetch_all(&self.pool)
        .await?;
        Page::cut(rows.iter().map(from_row), limit)
    }

    /// Deletes a model's row, unless a job that has not ended or an export reads it, another model is built on its files, or its
    /// registration is going on. Its files stay where they are; what was exported of it goes with it, and scores kept for it with the
    /// last model of its content.
    pub async fn delete_model(&self, id: &ModelId) -> Result<ModelRecord> {
        let mut tx = self.write().await?;
        let record = model(&mut tx, id).await?;
        if let Some((user, way_out)) = model_user(&mut tx, &record).await? {
            return Err(StoreError::InUse { kind: "model", id: id.to_string(), user, way_out });
        }
        sqlx::query("delete from models where id = ?").bind(id.as_str()).execute(&mut *tx).await?;
        exports::delete_all_of(&mut tx, id).await?;
        // It may have been the last that its job's run kept its files for.
        sqlx::query("update runs set is_tidied = 0 where job_id = ?")
            .bind(record.job_id.as_ref().map(JobId::as_str))
            .execute(&mut *tx)
            .await?;
        if let Some(info) = &record.info {
            reference_scores::delete_orphans(&mut tx, &info.digest).await?;
        }
        tx.commit().await?;
        Ok(record)
    }
}

/// What needs a model, and what to do about it.
async fn model_user(db: &mut SqliteConnection, record: &ModelRecord) -> Result<Option<(String, &'static str)>> {
    let job: Option<String> = sqlx::query_scalar(
        "select id from jobs join job_models on job_id = id
         where model_id = ? and status not in ('succeeded', 'failed', 'cancelled') order by seq limit 1",
    )
    .bind(record.id.as_str())
    .fetch_optional(&mut *db)
    .await?;
    if let Some(job) = job {
        return Ok(Some((format!("job '{job}'"), "wait for the job's end or cancel it")));
    }
    if let Some(export) = exports::pending_of(db, &record.id).await? {
        return Ok(Some((format!("export '{export}'"), "wait until it has been written, or delete it")));
    }
    if let Some(other) = rendered_by(db, &record.id).await? {
        return Ok(Some((format!("model '{other}', whose prompts it renders"), "delete that one first")));
    }
    let registering: Option<i64> =
        sqlx::query_scalar("select seq from runs where model_id = ? and lease_owner is not null")
            .bind(record.id.as_str())
            .fetch_optional(&mut *db)
            .await?;
    if registering.is_some() {
        return Ok(Some(("its own registration".into(), "wait until it has been fetched and checked")));
    }
    let Some(info) = &record.info else { return Ok(None) };
    let rows = sqlx::query("select * from models where json_extract(info, '$.location.weights') = ? order by seq")
        .bind(info.location.weights.to_string_lossy())
        .fetch_all(&mut *db)
        .await?;
    for row in &rows {
        let other = from_row(row)?;
        if other.info.is_some_and(|i| stands_on(&i.location, &info.location)) {
            return Ok(Some((format!("model '{}', which is built on it", other.id), "delete that one first")));
        }
    }
    Ok(None)
}

/// The oldest remote reference whose prompts are rendered with this model's tokenizer and template, if there is one.
pub(super) async fn rendered_by(db: &mut SqliteConnection, id: &ModelId) -> Result<Option<String>> {
    // A source ends with the tokenizer's id, and ids hold no `&`.
    let rendered = sqlx::query_scalar(
        "select id from models where substr(source, 1, 7) = 'remote:' and substr(source, -length(?1)) = ?1 order by seq limit 1",
    );
    Ok(rendered.bind(format!("&tokenizer={id}")).fetch_optional(db).await?)
}

/// Whether `upper` is `lower` with more adapters on top.
///
/// A model that only has the same files (a job's last checkpoint and its result) does not: either name can go.
fn stands_on(upper: &ModelLocation, lower: &ModelLocation) -> bool {
    upper.weights == lower.weights
        && upper.adapters.len() > lower.adapters.len()
        && upper.adapters.starts_with(&lower.adapters)
}

/// Reads one model inside a transaction.
pub(super) async fn model(db: &mut SqliteConnection, id: &ModelId) -> Result<ModelRecord> {
    let row = sqlx::query("select * from models where id = ?").bind(id.as_str()).fetch_optional(db).await?;
    from_row(&row.ok_or_else(|| StoreError::NotFound { kind: "model", id: id.to_string() })?)
}

/// A model that a job made.
pub(super) struct Made<'a> {
    pub(super) job: &'a JobId,
    pub(super) base: &'a ModelId,
    pub(super) id: &'a ModelId,
    pub(super) info: &'a ModelInfo,
    pub(super) at: i64,
}

/// Adds a model that a job made, ready for use, whose job it is; one that stands already stays as it is.
pub(super) async fn insert_made(db: &mut SqliteConnection, made: &Made<'_>) -> Result<()> {
    sqlx::query(
        "insert into models (id, job_id, base_id, status, info, created_at, owner, is_shared)
             select ?1, ?2, ?3, 'ready', ?4, ?5, owner, is_shared from jobs where id = ?2
         on conflict (id) do nothing",
    )
    .bind(made.id.as_str())
    .bind(made.job.as_str())
    .bind(made.base.as_str())
    .bind(json(made.info))
    .bind(made.at)
    .execute(db)
    .await?;
    Ok(())
}

/// Notes what a registration has found.
pub(super) async fn record(db: &mut SqliteConnection, id: &ModelId, event: &RunEvent) -> Result<()> {
    // It becomes usable when the run has succeeded, not before.
    if let RunEvent::Registered { model } = event {
        sqlx::query("update models set info = ? where id = ? and status = 'pending'")
            .bind(json(model))
            .bind(id.as_str())
            .execute(db)
            .await?;
    }
    Ok(())
}

fn from_row(row: &SqliteRow) -> Result<ModelRecord> {
    Ok(ModelRecord {
        id: parsed(row, "id")?,
        source: parsed_opt(row, "source")?,
        job_id: parsed_opt(row, "job_id")?,
        base_id: parsed_opt(row, "base_id")?,
        status: from_word(row, "status")?,
        info: from_json_opt(row, "info")?,
        error: from_json_opt(row, "error")?,
        created_at: row.try_get("created_at")?,
        ownership: ownership(row)?,
    })
}
