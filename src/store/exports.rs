//! Exports: models written for other programs, from the request to the last of their files.

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Page, Result, Store, StoreError,
    column::{count_opt, from_json_opt, from_word, json, parsed, parsed_opt, word},
    models, unix_now,
};
use crate::domain::{ExportDtype, ExportFormat, ExportId, ExportRecord, ModelId, Phase, RunEvent, RunId, UserName};

/// Exports with their runs. Those that are deleted are seen by nobody.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "select exports.*, runs.run_id from exports left join runs on export_id = exports.id
             where exports.status <> 'deleted' and ",
            $rest
        )
    };
}

impl Store {
    /// The export of a model as this; one that waits or is ready already is the one asked for.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such model.
    pub async fn insert_export(
        &self,
        model: &ModelId,
        format: ExportFormat,
        dtype: ExportDtype,
        owner: Option<&UserName>,
    ) -> Result<ExportRecord> {
        let mut tx = self.write().await?;
        models::model(&mut tx, model).await?;
        sqlx::query(
            "insert into exports (id, model_id, format, dtype, status, created_at, owner)
             values (?, ?, ?, ?, 'pending', ?, ?)
             on conflict (model_id, format, dtype) where status in ('pending', 'ready') do nothing",
        )
        .bind(ExportId::new().as_str())
        .bind(model.as_str())
        .bind(word(&format))
        .bind(word(&dtype))
        .bind(unix_now())
        .bind(owner.map(UserName::as_str))
        .execute(&mut *tx)
        .await?;
        let standing = select!("exports.model_id = ? and format = ? and dtype = ? and exports.status <> 'error'");
        let row = sqlx::query(standing).bind(model.as_str()).bind(word(&format)).bind(word(&dtype));
        let export = from_row(&row.fetch_one(&mut *tx).await?)?;
        tx.commit().await?;
        Ok(export)
    }

    /// An export.
    pub async fn export(&self, id: &ExportId) -> Result<ExportRecord> {
        let row = sqlx::query(select!("exports.id = ?")).bind(id.as_str()).fetch_optional(&self.pool).await?;
        from_row(&row.ok_or_else(|| not_found(id))?)
    }

    /// A model's exports, newest first.
    pub async fn exports(&self, model: &ModelId, after: Option<&ExportId>, limit: usize) -> Result<Page<ExportRecord>> {
        let mut db = self.pool.acquire().await?;
        models::model(&mut db, model).await?;
        let after: Option<i64> = match after {
            None => None,
            Some(id) => {
                let seq = sqlx::query_scalar("select seq from exports where id = ? and model_id = ?")
                    .bind(id.as_str())
                    .bind(model.as_str())
                    .fetch_optional(&mut *db)
                    .await?;
                Some(seq.ok_or_else(|| StoreError::UnknownAfter { kind: "export", id: id.to_string() })?)
            }
        };
        let rows = sqlx::query(select!(
            "exports.model_id = ?1 and exports.seq < coalesce(?2, 9223372036854775807) order by exports.seq desc limit ?3"
        ))
        .bind(model.as_str())
        .bind(after)
        .bind(Page::<ExportRecord>::n_rows(limit))
        .fetch_all(&mut *db)
        .await?;
        Page::cut(rows.iter().map(from_row), limit)
    }

    /// Deletes an export: nobody sees it any more. If it is being written its run is asked to stop; its files are the worker's to remove.
    pub async fn delete_export(&self, id: &ExportId) -> Result<()> {
        let mut tx = self.write().await?;
        let changed = sqlx::query("update exports set status = 'deleted' where id = ? and status <> 'deleted'")
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if changed == 0 {
            return Err(not_found(id));
        }
        sqlx::query("update runs set stop_requested = 'cancel' where export_id = ? and lease_owner is not null")
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// The deleted exports that nobody works on, oldest first, each with the run whose directory holds its files.
    pub async fn deleted_exports(&self) -> Result<Vec<(ExportId, Option<RunId>)>> {
        let rows = sqlx::query(
            "select exports.id, run_id from exports left join runs on export_id = exports.id
             where exports.status = 'deleted' and lease_owner is null order by exports.seq",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok((parsed(row, "id")?, parsed_opt(row, "run_id")?))).collect()
    }

    /// Forgets a deleted export, and its run, when its files have gone.
    pub async fn forget_export(&self, id: &ExportId) -> Result<()> {
        sqlx::query("delete from exports where id = ? and status = 'deleted'")
            .bind(id.as_str())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

fn not_found(id: &ExportId) -> StoreError {
    StoreError::NotFound { kind: "export", id: id.to_string() }
}

/// The export that still has to read a model.
pub(super) async fn pending_of(db: &mut SqliteConnection, model: &ModelId) -> Result<Option<String>> {
    let id =
        sqlx::query_scalar("select id from exports where model_id = ? and status = 'pending' order by seq limit 1");
    Ok(id.bind(model.as_str()).fetch_optional(db).await?)
}

/// Deletes what was exported of a model that goes.
pub(super) async fn delete_all_of(db: &mut SqliteConnection, model: &ModelId) -> Result<()> {
    sqlx::query("update exports set status = 'deleted' where model_id = ?").bind(model.as_str()).execute(db).await?;
    Ok(())
}

/// Notes how far it is and what was made; that counts when the run has succeeded.
pub(super) async fn record(db: &mut SqliteConnection, id: &ExportId, event: &RunEvent) -> Result<()> {
    match event {
        RunEvent::Progress { phase: Phase::Exporting, n_done, n_total, .. } => {
            sqlx::query("update exports set n_done = ?, n_total = ? where id = ? and status = 'pending'")
                .bind(*n_done as i64)
                .bind(*n_total as i64)
                .bind(id.as_str())
                .execute(db)
                .await?;
        }
        RunEvent::Exported(exported) => {
            sqlx::query("update exports set result = ? where id = ? and status = 'pending'")
                .bind(json(exported))
                .bind(id.as_str())
                .execute(db)
                .await?;
        }
        _ => {}
    }
    Ok(())
}

fn from_row(row: &SqliteRow) -> Result<ExportRecord> {
    Ok(ExportRecord {
        id: parsed(row, "id")?,
        model: parsed(row, "model_id")?,
        format: from_word(row, "format")?,
        dtype: from_word(row, "dtype")?,
        status: from_word(row, "status")?,
        run_id: parsed_opt(row, "run_id")?,
        progress: count_opt(row, "n_done")?.zip(count_opt(row, "n_total")?),
        result: from_json_opt(row, "result")?,
        error: from_json_opt(row, "error")?,
        created_at: row.try_get("created_at")?,
        finished_at: row.try_get("finished_at")?,
    })
}
