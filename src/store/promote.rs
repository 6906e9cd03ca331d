//! Jobs that wait for the check of what they read: into the queue when all is well, to their end when it is not.

use sqlx::{Row, SqliteConnection};

use super::{
    Result, Store,
    column::parsed,
    history,
    transition::{all_checked, fail, transition},
};
use crate::domain::{Failure, FailureCode, JobId, JobStatus, Level};

impl Store {
    /// Moves every job out of `validating_files` whose files and models have all been checked. Returns how many moved.
    pub async fn promote_validating_jobs(&self) -> Result<usize> {
        let waiting = sqlx::query("select id from jobs where status = 'validating_files' order by seq")
            .fetch_all(&self.pool)
            .await?;
        let mut n_moved = 0;
        for row in &waiting {
            n_moved += usize::from(self.promote(&parsed(row, "id")?).await?);
        }
        Ok(n_moved)
    }

    async fn promote(&self, id: &JobId) -> Result<bool> {
        let mut tx = self.write().await?;
        let status: Option<String> = sqlx::query_scalar("select status from jobs where id = ?")
            .bind(id.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        if status.as_deref() != Some(JobStatus::ValidatingFiles.as_str()) {
            return Ok(false); // its user was quicker
        }
        if let Some(failure) = broken_input(&mut tx, id).await? {
            fail(&mut tx, id, &failure).await?;
        } else if all_checked(&mut tx, id).await? {
            transition(&mut tx, id, JobStatus::Queued).await?;
            history::insert_message(&mut tx, id, Level::Info, "Files validated, job is queued").await?;
        } else {
            return Ok(false);
        }
        tx.commit().await?;
        Ok(true)
    }
}

/// The first file or model of a job that has not passed its check, as the reason why the job cannot be.
async fn broken_input(db: &mut SqliteConnection, id: &JobId) -> Result<Option<Failure>> {
    let row = sqlx::query(
        "select 'file' as kind, file_id as id, files.id is null as gone
         from job_files left join files on files.id = file_id
         where job_files.job_id = ?1 and (files.id is null or status = 'error')
         union all
         select 'model', model_id, models.id is null
         from job_models left join models on models.id = model_id
         where job_models.job_id = ?1 and (models.id is null or status = 'error')
         limit 1",
    )
    .bind(id.as_str())
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let (kind, input): (&str, &str) = (row.try_get("kind")?, row.try_get("id")?);
    let code = if kind == "file" { FailureCode::InvalidDataset } else { FailureCode::InvalidModel };
    let message = match (row.try_get("gone")?, kind) {
        (true, _) => format!("the {kind} '{input}' has been deleted"),
        (false, "file") => {
            format!("the file '{input}' did not pass its check: GET /v1/files/{input} lists what is wrong")
        }
        (false, _) => format!("the model '{input}' could not be registered: GET /v1/models/{input} says why"),
    };
    Ok(Some(Failure::new(code, message)))
}
