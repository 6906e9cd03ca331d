//! What a job has said and made so far: events, metrics, checkpoints. Written by `record.rs`, read here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Page, Result, Store, StoreError,
    column::{count, from_json, from_json_opt, from_word, parsed, word},
    unix_now,
};
use crate::domain::{CheckpointId, EventId, JobId, Level, ModelId};

/// The entry of an event's data that names the checkpoint it is about.
pub(super) const CHECKPOINT: &str = "checkpoint";

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A line for people.
    Message,
    /// Metrics of a step; `data` has them by name.
    Metrics,
}

/// One line of a job's history.
#[derive(Debug, Clone, PartialEq)]
pub struct JobEvent {
    /// Its id, the same in every answer.
    pub id: EventId,
    /// Its place among all events: grows with time, never used twice. For going on with a stream.
    pub seq: i64,
    /// The job.
    pub job_id: JobId,
    /// How important it is.
    pub level: Level,
    /// What it is about.
    pub kind: EventKind,
    /// For people.
    pub message: String,
    /// For programs.
    pub data: Option<serde_json::Value>,
    /// Unix time in seconds.
    pub created_at: i64,
}

/// What a metric was measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// The pairs of one optimizer step.
    Training,
    /// The validation set.
    Evaluation,
}

/// The metrics of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricPoint {
    /// What they were measured on.
    pub kind: MetricKind,
    /// Steps done.
    pub step: u64,
    /// Name to value.
    pub values: BTreeMap<String, f64>,
}

/// A checkpoint as the service knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Its id.
    pub id: CheckpointId,
    /// The job.
    pub job_id: JobId,
    /// Steps done.
    pub step: u64,
    /// Name of its directory below `checkpoints/` of the job's run directory.
    pub directory: String,
    /// The name it is served under as a model.
    pub model_id: ModelId,
    /// The metrics of that step; those of the validation set, if it was evaluated then, have `eval_` before their names.
    pub metrics: BTreeMap<String, f64>,
    /// Size of its files, in bytes.
    pub size_bytes: u64,
    /// Unix time in seconds.
    pub created_at: i64,
}

impl JobEvent {
    /// Whether it tells of a new checkpoint.
    pub fn is_checkpoint(&self) -> bool {
        self.kind == EventKind::Message && self.data.as_ref().is_some_and(|data| data.get(CHECKPOINT).is_some())
    }
}

impl Store {
    /// A job's events, newest first.
    pub async fn events(&self, job: &JobId, after: Option<&EventId>, limit: usize) -> Result<Page<JobEvent>> {
        let mut db = self.pool.acquire().await?;
        super::jobs::job(&mut db, job).await?;
        let after: Option<i64> = match after {
            None => None,
            Some(id) => {
                let seq = sqlx::query_scalar("select seq from events where id = ? and job_id = ?")
                    .bind(id.as_str())
                    .bind(job.as_str())
                    .fetch_optional(&mut *db)
                    .await?;
                Some(seq.ok_or_else(|| StoreError::UnknownAfter { kind: "event", id: id.to_string() })?)
            }
        };
        let rows = sqlx::query(
            "select * from events where job_id = ?1 and seq < coalesce(?2, 9223372036854775807)
             order by seq desc limit ?3",
        )
        .bind(job.as_str())
        .bind(after)
        .bind(Page::<JobEvent>::n_rows(limit))
        .fetch_all(&mut *db)
        .await?;
        Page::cut(rows.iter().map(event_from_row), limit)
    }

    /// Adds a message of the service's own to a job's history.
    pub async fn tell(&self, job: &JobId, level: Level, message: &str) -> Result<()> {
        let mut tx = self.write().await?;
        insert_message(&mut tx, job, level, message).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A job's metrics of one kind by step, from the first step above `after_step` on.
    pub async fn metrics(
        &self,
        job: &JobId,
        kind: MetricKind,
        after_step: Option<u64>,
        limit: usize,
    ) -> Result<Page<MetricPoint>> {
        let mut db = self.pool.acquire().await?;
        super::jobs::job(&mut db, job).await?;
        let rows = sqlx::query(
            "select * from metrics where job_id = ?1 and kind = ?2 and step > coalesce(?3, -1) order by step limit ?4",
        )
        .bind(job.as_str())
        .bind(word(&kind))
        .bind(after_step.map(|s| s as i64))
        .bind(Page::<MetricPoint>::n_rows(limit))
        .fetch_all(&mut *db)
        .await?;
        Page::cut(rows.iter().map(metric_from_row), limit)
    }

    /// A job's checkpoints, newest first.
    pub async fn checkpoints(
        &self,
        job: &JobId,
        after: Option<&CheckpointId>,
        limit: usize,
    ) -> Result<Page<Checkpoint>> {
        let mut db = self.pool.acquire().await?;
        super::jobs::job(&mut db, job).await?;
        let after: Option<i64> = match after {
            None => None,
            Some(id) => {
                let seq = sqlx::query_scalar(
                    "select seq from checkpoints where id = ? and job_id = ? and removed_at is null",
                )
                .bind(id.as_str())
                .bind(job.as_str())
                .fetch_optional(&mut *db)
                .await?;
                Some(seq.ok_or_else(|| StoreError::UnknownAfter { kind: "checkpoint", id: id.to_string() })?)
            }
        };
        let rows = sqlx::query(
            "select * from checkpoints where job_id = ?1 and removed_at is null and seq < coalesce(?2, 9223372036854775807)
             order by seq desc limit ?3",
        )
        .bind(job.as_str())
        .bind(after)
        .bind(Page::<Checkpoint>::n_rows(limit))
        .fetch_all(&mut *db)
        .await?;
        Page::cut(rows.iter().map(checkpoint_from_row), limit)
    }

    /// One checkpoint of a job.
    pub async fn checkpoint(&self, job: &JobId, id: &CheckpointId) -> Result<Checkpoint> {
        let row = sqlx::query("select * from checkpoints where job_id = ? and id = ? and removed_at is null")
            .bind(job.as_str())
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await?;
        checkpoint_from_row(&row.ok_or_else(|| StoreError::NotFound { kind: "checkpoint", id: id.to_string() })?)
    }
}

/// Adds a message of the service's own to a job's history.
pub(super) async fn insert_message(db: &mut SqliteConnection, job: &JobId, level: Level, message: &str) -> Result<()> {
    sqlx::query("insert into events (id, job_id, level, type, message, created_at) values (?, ?, ?, 'message', ?, ?)")
        .bind(EventId::new().as_str())
        .bind(job.as_str())
        .bind(word(&level))
        .bind(message)
        .bind(unix_now())
        .execute(db)
        .await?;
    Ok(())
}

pub(super) fn event_from_row(row: &SqliteRow) -> Result<JobEvent> {
    Ok(JobEvent {
        id: parsed(row, "id")?,
        seq: row.try_get("seq")?,
        job_id: parsed(row, "job_id")?,
        level: from_word(row, "level")?,
        kind: from_word(row, "type")?,
        message: row.try_get("message")?,
        data: from_json_opt(row, "data")?,
        created_at: row.try_get("created_at")?,
    })
}

fn metric_from_row(row: &SqliteRow) -> Result<MetricPoint> {
    Ok(MetricPoint { kind: from_word(row, "kind")?, step: count(row, "step")?, values: from_json(row, "values")? })
}

pub(super) fn checkpoint_from_row(row: &SqliteRow) -> Result<Checkpoint> {
    Ok(Checkpoint {
        id: parsed(row, "id")?,
        job_id: parsed(row, "job_id")?,
        step: count(row, "step")?,
        directory: row.try_get("directory")?,
        model_id: parsed(row, "model_id")?,
        metrics: from_json(row, "metrics")?,
        size_bytes: count(row, "size_bytes")?,
        created_at: row.try_get("created_at")?,
    })
}
