//! Inspections: questions that a run answers, and their answers until they are fetched.

use sqlx::{Row, SqliteConnection};

use super::{
    Result, Store, StoreError,
    column::{from_json, json},
    unix_now,
};
use crate::domain::{Inspection, InspectionId, Question, RunEvent};

/// Answers that nobody has fetched are kept this long, in seconds: who asked is gone.
const KEPT_FOR: i64 = 3600;

impl Store {
    /// Asks a question.
    pub async fn insert_inspection(&self, question: &Question) -> Result<InspectionId> {
        let (id, now) = (InspectionId::new(), unix_now());
        let mut tx = self.write().await?;
        sqlx::query("delete from inspections where status <> 'pending' and created_at < ?")
            .bind(now - KEPT_FOR)
            .execute(&mut *tx)
            .await?;
        sqlx::query("insert into inspections (id, spec, status, created_at) values (?, ?, 'pending', ?)")
            .bind(id.as_str())
            .bind(json(question))
            .bind(now)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(id)
    }

    /// The question.
    pub async fn question(&self, id: &InspectionId) -> Result<Question> {
        let row = sqlx::query("select spec from inspections where id = ?").bind(id.as_str());
        from_json(&row.fetch_optional(&self.pool).await?.ok_or_else(|| not_found(id))?, "spec")
    }

    /// How far the answer is.
    pub async fn inspection(&self, id: &InspectionId) -> Result<Inspection> {
        let row = sqlx::query("select status, result, error from inspections where id = ?").bind(id.as_str());
        let row = row.fetch_optional(&self.pool).await?.ok_or_else(|| not_found(id))?;
        Ok(match row.try_get::<&str, _>("status")? {
            "done" => Inspection::Done(row.try_get("result")?),
            "failed" => Inspection::Failed(from_json(&row, "error")?),
            _ => Inspection::Pending,
        })
    }

    /// Forgets question and answer; a run that is still at it finishes for nobody.
    pub async fn delete_inspection(&self, id: &InspectionId) -> Result<()> {
        // One that is being answered stays until it has been: its process must not be lost sight of.
        sqlx::query(
            "delete from inspections where id = ?1
             and not exists (select 1 from runs where inspection_id = ?1 and lease_owner is not null)",
        )
        .bind(id.as_str())
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

fn not_found(id: &InspectionId) -> StoreError {
    StoreError::NotFound { kind: "inspection", id: id.to_string() }
}

/// Notes the answer; it counts when the run has succeeded.
pub(super) async fn record(db: &mut SqliteConnection, id: &InspectionId, event: &RunEvent) -> Result<()> {
    if let RunEvent::Inspected { result } = event {
        sqlx::query("update inspections set result = ? where id = ? and status = 'pending'")
            .bind(result)
            .bind(id.as_str())
            .execute(db)
            .await?;
    }
    Ok(())
}
