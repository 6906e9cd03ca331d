//! Inspections: questions that a run answers, and their answers until they are fetched.

use sqlx::{Row, SqliteConnection};

use super::{
    Lease, Result, Run, RunEnd, Store, StoreError,
    column::{from_json, json, parsed},
    runs, unix_now,
};
use crate::domain::{Failure, FailureCode, Inspection, InspectionId, Question, RunEvent, RunId};

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

    /// Takes the oldest question nobody works on, unless `max_at_once` are being answered already.
    pub async fn claim_inspection(&self, lease: &Lease<'_>, max_at_once: u16) -> Result<Option<Run>> {
        let waiting = "select inspections.id from inspections left join runs on inspection_id = inspections.id
             where inspections.status = 'pending' and lease_owner is null order by inspections.seq limit 1";
        if sqlx::query(waiting).fetch_optional(&self.pool).await?.is_none() {
            return Ok(None);
        }
        let mut tx = self.write().await?;
        let n_going: i64 =
            sqlx::query_scalar("select count(*) from runs where lease_owner is not null and inspection_id is not null")
                .fetch_one(&mut *tx)
                .await?;
        if n_going >= i64::from(max_at_once) {
            return Ok(None);
        }
        let Some(row) = sqlx::query(waiting).fetch_optional(&mut *tx).await? else { return Ok(None) };
        let inspection: InspectionId = parsed(&row, "id")?;
        let row = sqlx::query(
            "insert into runs (run_id, inspection_id, n_attempts, lease_owner, lease_expires_at) values (?, ?, 1, ?, ?)
             on conflict (inspection_id) do update set n_attempts = n_attempts + 1, lease_owner = excluded.lease_owner,
                 lease_expires_at = excluded.lease_expires_at
             returning *",
        )
        .bind(RunId::new().as_str())
        .bind(inspection.as_str())
        .bind(lease.owner)
        .bind(lease.expires_at)
        .fetch_one(&mut *tx)
        .await?;
        let run = runs::from_row(&row)?;
        tx.commit().await?;
        Ok(Some(run))
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

/// Records how its run has ended. A question is asked once: whoever waits would rather ask again than wait longer.
pub(super) async fn end(db: &mut SqliteConnection, id: &InspectionId, end: &RunEnd) -> Result<()> {
    let failure = match end {
        RunEnd::Succeeded { .. } => None,
        RunEnd::Failed(failure) | RunEnd::Died { failure, .. } => Some(failure.clone()),
        RunEnd::Stopped { .. } => Some(Failure::new(FailureCode::RunDied, "the inspection was stopped: ask again")),
    };
    let status = if failure.is_none() { "done" } else { "failed" };
    sqlx::query("update inspections set status = ?, error = ? where id = ? and status = 'pending'")
        .bind(status)
        .bind(failure.as_ref().map(json))
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(())
}
