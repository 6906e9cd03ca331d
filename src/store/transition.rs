//! The only place that changes a job's status: each change is one statement, guarded by `JobStatus::can_become`.

use sqlx::SqliteConnection;

use super::{Result, Store, StoreError, column::json, deliveries, history, jobs, unix_now};
use crate::domain::{Failure, IllegalTransition, Job, JobId, JobStatus, Level};

impl Store {
    /// Cancels a job. One that runs keeps that status until its process has stopped; a pause under way becomes a cancel.
    pub async fn cancel_job(&self, id: &JobId) -> Result<Job> {
        self.stop_job(id, JobStatus::Cancelled).await
    }

    /// Pauses a job. One that runs keeps that status until its process has saved its state and stopped.
    pub async fn pause_job(&self, id: &JobId) -> Result<Job> {
        self.stop_job(id, JobStatus::Paused).await
    }

    /// Puts a paused job back into the queue; it goes on from its newest checkpoint.
    pub async fn resume_job(&self, id: &JobId) -> Result<Job> {
        let mut tx = self.write().await?;
        let to = if all_checked(&mut tx, id).await? { JobStatus::Queued } else { JobStatus::ValidatingFiles };
        let job = jobs::job(&mut tx, id).await?;
        if job.status != JobStatus::Paused {
            // A job that waits or runs could get there too, but not by a resume.
            return Err(IllegalTransition { from: job.status, to: JobStatus::Queued }.into());
        }
        transition(&mut tx, id, to).await?;
        // Its user looked at it in between: it may die as often as a new one.
        sqlx::query("update runs set n_deaths = 0 where job_id = ?").bind(id.as_str()).execute(&mut *tx).await?;
        history::insert_message(&mut tx, id, Level::Info, "The job has been resumed").await?;
        let job = jobs::job(&mut tx, id).await?;
        tx.commit().await?;
        Ok(job)
    }

    async fn stop_job(&self, id: &JobId, to: JobStatus) -> Result<Job> {
        let (intent, said) = match to {
            JobStatus::Paused => ("pause", "The job has been paused"),
            _ => ("cancel", "The job has been cancelled"),
        };
        let mut tx = self.write().await?;
        let job = jobs::job(&mut tx, id).await?;
        if job.status == JobStatus::Running {
            // A cancel overrides a pause, never the other way round; asking twice is asking once.
            let changed = sqlx::query(
                "update runs set stop_requested = ?1
                 where job_id = ?2 and stop_requested is not ?1 and stop_requested is not 'cancel'",
            )
            .bind(intent)
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?
            .rows_affected();
            if changed > 0 {
                let message = format!("Stopping the job: {intent} requested");
                history::insert_message(&mut tx, id, Level::Info, &message).await?;
            } else if to == JobStatus::Paused {
                refuse_pause_of_a_cancel(&mut tx, id).await?;
            }
        } else {
            transition(&mut tx, id, to).await?;
            history::insert_message(&mut tx, id, Level::Info, said).await?;
        }
        let job = jobs::job(&mut tx, id).await?;
        tx.commit().await?;
        Ok(job)
    }
}

/// A job that is being cancelled cannot be paused any more.
async fn refuse_pause_of_a_cancel(db: &mut SqliteConnection, id: &JobId) -> Result<()> {
    let intent: Option<String> =
        sqlx::query_scalar("select stop_requested from runs where job_id = ?").bind(id.as_str()).fetch_one(db).await?;
    match intent.as_deref() {
        Some("cancel") => Err(IllegalTransition { from: JobStatus::Cancelled, to: JobStatus::Paused }.into()),
        _ => Ok(()),
    }
}

/// Whether everything a job reads has passed its check.
pub(super) async fn all_checked(db: &mut SqliteConnection, id: &JobId) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "select not exists (select 1 from job_files left join files on files.id = file_id
                            where job_id = ?1 and status is not 'processed')
            and not exists (select 1 from job_models left join models on models.id = model_id
                            where job_models.job_id = ?1 and status is not 'ready')",
    )
    .bind(id.as_str())
    .fetch_one(db)
    .await?)
}

/// Changes a job's status if the table allows it from the one it has; whoever is to be told of an end will be.
pub(super) async fn transition(db: &mut SqliteConnection, id: &JobId, to: JobStatus) -> Result<()> {
    let sources: Vec<&str> = JobStatus::sources_of(to).map(JobStatus::as_str).collect();
    let changed = sqlx::query(
        "update jobs set status = ?1, finished_at = iif(?2, ?3, finished_at), estimated_finish = null,
             class_since = null, waits_for_bytes = null, waits_for_disk_bytes = null
         where id = ?4 and status in (select value from json_each(?5))",
    )
    .bind(to.as_str())
    .bind(to.is_final())
    .bind(unix_now())
    .bind(id.as_str())
    .bind(json(&sources))
    .execute(&mut *db)
    .await?
    .rows_affected();
    if changed == 1 {
        if to.is_final() {
            give_up_resume_state(db, id).await?;
        }
        return deliveries::announce(db, id, to).await;
    }
    let from = jobs::job(db, id).await?.status;
    Err(StoreError::IllegalTransition(IllegalTransition { from, to }))
}

/// Nobody goes on from an ended job: what of its run is kept is asked anew, and its time begins.
async fn give_up_resume_state(db: &mut SqliteConnection, id: &JobId) -> Result<()> {
    sqlx::query(
        "update runs set is_tidied = 0,
             remove_after = (select finished_at + 86400 * (spec ->> '$.retention.keep_days') from jobs where id = ?1)
         where job_id = ?1",
    )
    .bind(id.as_str())
    .execute(db)
    .await?;
    Ok(())
}

/// Ends a job badly, with the reason in its row and in its history.
pub(super) async fn fail(db: &mut SqliteConnection, id: &JobId, failure: &Failure) -> Result<()> {
    transition(db, id, JobStatus::Failed).await?;
    sqlx::query("update jobs set error = ? where id = ?")
        .bind(json(failure))
        .bind(id.as_str())
        .execute(&mut *db)
        .await?;
    history::insert_message(db, id, Level::Error, &format!("The job has failed: {}", failure.message)).await
}
