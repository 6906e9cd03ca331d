//! What of a job is kept: which checkpoints go, what of them goes earlier, and when the rest of a run does.
//!
//! A row turns invisible first, then the worker removes the files, then the row goes: after a crash at any moment it is done again, and
//! no row is seen without its files.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Result, Store, StoreError,
    column::parsed,
    history::{self, Checkpoint},
    jobs, models, reference_scores,
};
use crate::domain::{CheckpointId, Job, JobId, JobStatus, Level, ModelId, RunId};

/// Files of a run that nobody needs any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Surplus {
    /// A checkpoint with all it holds.
    Checkpoint {
        /// The run whose directory it lies in.
        run: RunId,
        /// Its id.
        id: CheckpointId,
        /// Its name below `checkpoints/`.
        directory: String,
    },
    /// What only the run itself could go on from; the model stays.
    ResumeState {
        /// The run whose directory it lies in.
        run: RunId,
        /// The checkpoint's id.
        id: CheckpointId,
        /// Its name below `checkpoints/`.
        directory: String,
    },
    /// Everything but the checkpoints.
    Run(RunId),
}

impl Surplus {
    /// The run whose directory the files lie in.
    pub fn run(&self) -> &RunId {
        match self {
            Self::Checkpoint { run, .. } | Self::ResumeState { run, .. } | Self::Run(run) => run,
        }
    }
}

impl Store {
    /// Applies the retention of every job of which something has changed since. Returns how many jobs were looked at.
    pub async fn tidy_runs(&self, limit: u32) -> Result<usize> {
        // In any order: those that wait for somebody must not stand before all others.
        let rows =
            sqlx::query("select job_id from runs where is_tidied = 0 and job_id is not null order by random() limit ?")
                .bind(limit)
                .fetch_all(&self.pool)
                .await?;
        for row in &rows {
            let mut tx = self.write().await?;
            tidy(&mut tx, &parsed(row, "job_id")?).await?;
            tx.commit().await?;
        }
        Ok(rows.len())
    }

    /// Removes a checkpoint: nobody sees it any more, its files are the worker's to remove.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while its job goes on from it, or its files are a model's, are being exported, or stand in a list.
    pub async fn delete_checkpoint(&self, job: &JobId, id: &CheckpointId) -> Result<()> {
        let checkpoint = self.checkpoint(job, id).await?;
        let mut tx = self.write().await?;
        let job = jobs::job(&mut tx, job).await?;
        let newest = seen(&mut tx, &job.id).await?.pop();
        let in_use = |(user, way_out)| StoreError::InUse { kind: "checkpoint", id: id.to_string(), user, way_out };
        if !job.status.is_final() && newest.is_some_and(|newest| newest.id == *id) {
            let way_out = "wait for its next checkpoint or its end, or cancel it";
            return Err(in_use((format!("job '{}', which goes on from it", job.id), way_out)));
        }
        if let Some(user) = user_of(&mut tx, &job, &checkpoint).await? {
            return Err(in_use(user));
        }
        remove(&mut tx, &checkpoint).await?;
        let said = format!("The checkpoint at step {} has been deleted", checkpoint.step);
        history::insert_message(&mut tx, &job.id, Level::Info, &said).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Gives up what the run of an ended job has left: its files, and every checkpoint that nothing uses, now or once nothing does.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while the job has not ended.
    pub async fn remove_run_data(&self, id: &JobId) -> Result<()> {
        let mut tx = self.write().await?;
        let job = jobs::job(&mut tx, id).await?;
        if !job.status.is_final() {
            let (kind, user) = ("run of job", format!("the job, which is {}", job.status));
            let way_out = "wait for its end or cancel it";
            return Err(StoreError::InUse { kind, id: id.to_string(), user, way_out });
        }
        let changed = sqlx::query("update runs set data = 'removing' where job_id = ? and data = 'kept'")
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        if changed.rows_affected() > 0 {
            history::insert_message(&mut tx, id, Level::Info, "The files of the job's run are being removed").await?;
            tidy(&mut tx, id).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// The jobs whose runs' files are due to go.
    pub async fn due_run_data(&self, now: i64, limit: u32) -> Result<Vec<JobId>> {
        let rows = sqlx::query(
            "select job_id from runs where remove_after <= ? and data = 'kept' and job_id is not null
             order by remove_after limit ?",
        )
        .bind(now)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| parsed(row, "job_id")).collect()
    }

    /// What is to be removed from the disk.
    pub async fn surplus(&self, limit: u32) -> Result<Vec<Surplus>> {
        let rows = sqlx::query(
            "select checkpoints.id, run_id, directory, removed_at is not null as is_removed
             from checkpoints join runs on runs.job_id = checkpoints.job_id
             where removed_at is not null or resume_state = 'dropping' order by checkpoints.seq limit ?",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        let mut surplus: Vec<Surplus> = rows.iter().map(surplus_from_row).collect::<Result<_>>()?;
        let runs = sqlx::query("select run_id from runs where data = 'removing' and lease_owner is null limit ?")
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        for row in &runs {
            surplus.push(Surplus::Run(parsed(row, "run_id")?));
        }
        Ok(surplus)
    }

    /// Notes that what was surplus has gone; of a checkpoint that stays, what is left of it in bytes, if that is known.
    pub async fn forget_surplus(&self, surplus: &Surplus, size_bytes: Option<u64>) -> Result<()> {
        match surplus {
            Surplus::Checkpoint { id, .. } => {
                let statement = sqlx::query("delete from checkpoints where id = ? and removed_at is not null");
                statement.bind(id.as_str()).execute(&self.pool).await?;
            }
            Surplus::ResumeState { id, .. } => {
                let statement = sqlx::query(
                    "update checkpoints set resume_state = 'dropped', size_bytes = coalesce(?, size_bytes) where id = ?",
                );
                statement.bind(size_bytes.map(|n| n as i64)).bind(id.as_str()).execute(&self.pool).await?;
            }
            Surplus::Run(run) => {
                let statement = sqlx::query("update runs set data = 'removed' where run_id = ? and data = 'removing'");
                statement.bind(run.as_str()).execute(&self.pool).await?;
            }
        }
        Ok(())
    }
}

/// Marks what a job's retention no longer keeps, and what nobody can go on from.
async fn tidy(db: &mut SqliteConnection, id: &JobId) -> Result<()> {
    let job = jobs::job(db, id).await?;
    let checkpoints = seen(db, id).await?;
    let is_given_up: bool = sqlx::query_scalar("select data <> 'kept' from runs where job_id = ?")
        .bind(id.as_str())
        .fetch_one(&mut *db)
        .await?;
    let facts: Vec<(u64, BTreeMap<String, f64>)> = checkpoints.iter().map(|c| (c.step, c.metrics.clone())).collect();
    let kept = if is_given_up { BTreeSet::new() } else { job.spec.retention.kept(&facts) };
    let newest = checkpoints.last().map(|newest| newest.id.clone());
    let own = job.fine_tuned_model.as_ref().map(|own| format!("model '{own}'"));
    let is_own = |user: &String| own.as_ref() == Some(user);
    let mut is_tidied = true;
    for checkpoint in checkpoints {
        if !kept.contains(&checkpoint.step) {
            let Some((user, _)) = user_of(db, &job, &checkpoint).await? else {
                remove(db, &checkpoint).await?;
                let said =
                    format!("The checkpoint at step {} has been removed: the job keeps no more", checkpoint.step);
                history::insert_message(db, id, Level::Info, &said).await?;
                continue;
            };
            // It is kept for another. When the job's own model lets go of it, deleting that asks again; of others nobody tells.
            is_tidied &= is_own(&user);
        }
        if !may_be_resumed(&job, newest.as_ref() == Some(&checkpoint.id), is_given_up) {
            let statement = "update checkpoints set resume_state = 'dropping' where id = ? and resume_state = 'kept'";
            sqlx::query(statement).bind(checkpoint.id.as_str()).execute(&mut *db).await?;
        }
    }
    sqlx::query("update runs set is_tidied = ?1 where job_id = ?2 and is_tidied <> ?1")
        .bind(is_tidied)
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Whether anybody could still go on from a checkpoint. A job that failed keeps its newest one: what made it fail may pass.
fn may_be_resumed(job: &Job, is_newest: bool, is_given_up: bool) -> bool {
    is_newest && !is_given_up && !matches!(job.status, JobStatus::Succeeded | JobStatus::Cancelled)
}

/// A job's checkpoints that are seen, the newest last.
async fn seen(db: &mut SqliteConnection, job: &JobId) -> Result<Vec<Checkpoint>> {
    let rows = sqlx::query("select * from checkpoints where job_id = ? and removed_at is null order by step")
        .bind(job.as_str())
        .fetch_all(db)
        .await?;
    rows.iter().map(history::checkpoint_from_row).collect()
}

/// Makes a checkpoint invisible, and the model it is served as.
async fn remove(db: &mut SqliteConnection, checkpoint: &Checkpoint) -> Result<()> {
    sqlx::query("update checkpoints set removed_at = unixepoch() where id = ?")
        .bind(checkpoint.id.as_str())
        .execute(&mut *db)
        .await?;
    match models::model(db, &checkpoint.model_id).await {
        Ok(model) => {
            let statement = sqlx::query("delete from models where id = ?");
            statement.bind(checkpoint.model_id.as_str()).execute(&mut *db).await?;
            if let Some(info) = &model.info {
                reference_scores::delete_orphans(db, &info.digest).await?;
            }
            Ok(())
        }
        // Its owner has deleted it before.
        Err(StoreError::NotFound { .. }) => Ok(()),
        Err(e) => Err(e),
    }
}

/// What uses a checkpoint, and what to do about it: a job, an export or a question that reads it, a list that names it, another model in
/// its files.
async fn user_of(
    db: &mut SqliteConnection,
    job: &Job,
    checkpoint: &Checkpoint,
) -> Result<Option<(String, &'static str)>> {
    let model = &checkpoint.model_id;
    let of_model = [
        (
            "select id from jobs join job_models on job_id = id
             where model_id = ? and status not in ('succeeded', 'failed', 'cancelled') limit 1",
            "job",
            "wait for the job's end or cancel it",
        ),
        (
            "select id from exports where model_id = ? and status in ('pending', 'ready') limit 1",
            "export",
            "delete the export first",
        ),
        (
            "select reference_lists.id from reference_lists, json_each(\"references\") reference
             where reference.value ->> 'model' = ? limit 1",
            "reference list",
            "delete the list first",
        ),
    ];
    for (statement, kind, way_out) in of_model {
        let user: Option<String> = first(db, statement, model).await?;
        if let Some(user) = user {
            return Ok(Some((format!("{kind} '{user}'"), way_out)));
        }
    }
    if let Some(other) = models::rendered_by(db, model).await? {
        return Ok(Some((format!("model '{other}', whose prompts it renders"), "delete the model first")));
    }
    let Some(run) = &job.run_id else { return Ok(None) };
    // As a path ends in JSON: run ids are unique, so nothing else ends so.
    let path = format!("/{run}/checkpoints/{}\"", checkpoint.directory);
    let other: Option<String> =
        sqlx::query_scalar("select id from models where instr(info, ?) > 0 and id <> ? order by seq limit 1")
            .bind(&path)
            .bind(model.as_str())
            .fetch_optional(&mut *db)
            .await?;
    if let Some(other) = other {
        return Ok(Some((format!("model '{other}'"), "delete the model first")));
    }
    let is_asked_about: bool = sqlx::query_scalar(
        "select exists (select 1 from inspections where status = 'pending' and (instr(spec, ?) > 0 or instr(spec, ?) > 0))",
    )
    .bind(path)
    .bind(format!("\"{model}\""))
    .fetch_one(db)
    .await?;
    Ok(is_asked_about.then(|| ("a question about its model".to_owned(), "wait for the answer")))
}

async fn first(db: &mut SqliteConnection, statement: &'static str, model: &ModelId) -> Result<Option<String>> {
    Ok(sqlx::query_scalar(statement).bind(model.as_str()).fetch_optional(db).await?)
}

fn surplus_from_row(row: &SqliteRow) -> Result<Surplus> {
    let (run, id, directory) = (parsed(row, "run_id")?, parsed(row, "id")?, row.try_get("directory")?);
    Ok(if row.try_get("is_removed")? {
        Surplus::Checkpoint { run, id, directory }
    } else {
        Surplus::ResumeState { run, id, directory }
    })
}
