//! How a run ends: the last word on what it was for, and its lease given back.

use sqlx::SqliteConnection;

use super::{
    Errand, Result, Run, RunSubject, StopIntent, errands,
    history::insert_message,
    jobs,
    models::{Made, insert_made},
    queue,
    runs::one_more_death,
    transition::{fail, transition},
    unix_now,
};
use crate::domain::{Failure, FailureCode, JobId, JobStatus, Level, ModelId, ModelInfo};

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEnd {
    /// It did what it was for.
    Succeeded {
        /// The model a training run made; absent for every other run.
        model: Option<ModelInfo>,
        /// Tokens trained on.
        n_trained_tokens: u64,
    },
    /// It saved its state and stopped, because it was asked to.
    Stopped {
        /// Steps done and saved.
        step: u64,
    },
    /// It said why it could not go on, or could not be started.
    Failed(Failure),
    /// It ended without a word.
    Died {
        /// What to say of it if it has died too often.
        failure: Failure,
        /// How often in a row, without a checkpoint in between, is too often.
        max_deaths: u32,
    },
    /// The server itself had told it to stop, and it could not save its state.
    Interrupted {
        /// Why it could not.
        failure: Failure,
    },
}

/// Records the end, at this time, of a run whose lease the caller holds.
pub(super) async fn record_end(db: &mut SqliteConnection, run: &Run, end: &RunEnd, now: i64) -> Result<()> {
    match &run.subject {
        RunSubject::Job(job) => {
            end_job(db, run, job, end).await?;
            give_back_slot(db, run, job, now).await?;
        }
        RunSubject::Model(id) => errands::end(db, run, Errand::Registration, id.as_str(), end).await?,
        RunSubject::Inspection(id) => errands::end(db, run, Errand::Inspection, id.as_str(), end).await?,
        RunSubject::Export(id) => errands::end(db, run, Errand::Export, id.as_str(), end).await?,
    }
    sqlx::query(
        "update runs set lease_owner = null, lease_expires_at = null, slot = null, stop_requested = null
         where run_id = ?",
    )
    .bind(run.id.as_str())
    .execute(db)
    .await?;
    Ok(())
}

/// Notes how long the run had its slot, for it and for its owner.
async fn give_back_slot(db: &mut SqliteConnection, run: &Run, job: &JobId, now: i64) -> Result<()> {
    let (owner, since): (Option<String>, Option<i64>) =
        sqlx::query_as("select owner, slot_since from jobs join runs on runs.job_id = jobs.id where jobs.id = ?")
            .bind(job.as_str())
            .fetch_one(&mut *db)
            .await?;
    let seconds = since.map_or(0, |since| (now - since).max(0));
    sqlx::query("update runs set slot_seconds = slot_seconds + ?, slot_since = null where run_id = ?")
        .bind(seconds)
        .bind(run.id.as_str())
        .execute(&mut *db)
        .await?;
    queue::note_use(db, owner.as_deref(), seconds, now).await
}

async fn end_job(db: &mut SqliteConnection, run: &Run, job: &JobId, end: &RunEnd) -> Result<()> {
    match (end, run.stop_requested) {
        // Done before the request to stop reached it: the work is there, so it counts.
        (RunEnd::Succeeded { model: Some(model), n_trained_tokens }, _) => {
            succeed(db, job, model, *n_trained_tokens).await
        }
        (RunEnd::Succeeded { model: None, .. }, _) => {
            fail(db, job, &Failure::new(FailureCode::Internal, "the run ended well but made no model")).await
        }
        // Whoever cancels a job is not interested in why its last breath went wrong; its history keeps it.
        (
            RunEnd::Failed(failure) | RunEnd::Died { failure, .. } | RunEnd::Interrupted { failure },
            Some(StopIntent::Cancel),
        ) => {
            insert_message(db, job, Level::Warn, &failure.message).await?;
            leave(db, job, JobStatus::Cancelled, "The job has been cancelled").await
        }
        (RunEnd::Stopped { .. }, Some(StopIntent::Cancel)) => {
            leave(db, job, JobStatus::Cancelled, "The job has been cancelled").await
        }
        (RunEnd::Stopped { step }, Some(StopIntent::Pause)) => {
            leave(db, job, JobStatus::Paused, &format!("The job has been paused at step {step}")).await
        }
        (RunEnd::Died { .. } | RunEnd::Interrupted { .. }, Some(StopIntent::Pause)) => {
            leave(db, job, JobStatus::Paused, "The job has been paused; it goes on from its newest checkpoint").await
        }
        (RunEnd::Stopped { step }, None) => {
            let said = format!("The job was interrupted at step {step} and is queued again");
            leave(db, job, JobStatus::Queued, &said).await
        }
        (RunEnd::Failed(failure), _) => fail(db, job, failure).await,
        (RunEnd::Died { failure, max_deaths }, None) => {
            if one_more_death(db, &run.id).await? >= *max_deaths {
                return fail(db, job, failure).await;
            }
            queue_again(db, job, failure).await
        }
        // The server's doing, not the job's: it is not counted.
        (RunEnd::Interrupted { failure }, None) => queue_again(db, job, failure).await,
    }
}

async fn queue_again(db: &mut SqliteConnection, job: &JobId, failure: &Failure) -> Result<()> {
    insert_message(db, job, Level::Warn, &failure.message).await?;
    leave(db, job, JobStatus::Queued, "The job is queued again and goes on from its newest checkpoint").await
}

async fn leave(db: &mut SqliteConnection, job: &JobId, to: JobStatus, said: &str) -> Result<()> {
    transition(db, job, to).await?;
    insert_message(db, job, Level::Info, said).await
}

async fn succeed(db: &mut SqliteConnection, job: &JobId, info: &ModelInfo, n_trained_tokens: u64) -> Result<()> {
    let spec = jobs::job(db, job).await?.spec;
    let id = ModelId::of_job(&spec.model, spec.suffix.as_deref(), job);
    insert_made(db, &Made { job, base: &spec.model, id: &id, info, at: unix_now() }).await?;
    transition(db, job, JobStatus::Succeeded).await?;
    sqlx::query("update jobs set fine_tuned_model = ?, n_trained_tokens = ?, n_steps_done = n_steps where id = ?")
        .bind(id.as_str())
        .bind(n_trained_tokens as i64)
        .bind(job.as_str())
        .execute(&mut *db)
        .await?;
    insert_message(db, job, Level::Info, &format!("New fine-tuned model created: {id}")).await?;
    insert_message(db, job, Level::Info, "The job has successfully completed").await
}
