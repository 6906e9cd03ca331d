//! What a run says, turned into rows: one transaction per batch, together with how far its file has been read.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::{
    Result, RunEnd, RunSubject, Store,
    column::{json as to_json, word},
    exports, files,
    history::{CHECKPOINT, EventKind, MetricKind},
    inspections, jobs,
    models::{self, Made, insert_made},
    record_end, reference_scores,
    runs::held_run,
};
use crate::domain::{
    CheckpointId, CheckpointSummary, Evaluation, EvaluationPhase, EventId, EventRecord, FileRecord, JobId, Level,
    ModelId, Phase, ReferenceScore, RunEvent, RunId, ScoreKey, ScoringCount, metric,
};

/// A stretch of a run's `events.jsonl`.
#[derive(Debug, Clone, Copy)]
pub struct RunBatch<'a> {
    /// The run.
    pub run_id: &'a RunId,
    /// The worker that read it: it must still hold the run's lease.
    pub owner: &'a str,
    /// The events, each with the byte at which its line begins. Last events (`RunEvent::is_last`) among them are only
    /// history: what ends the run is `end`.
    pub events: &'a [(u64, EventRecord)],
    /// Where to read on.
    pub next_offset: u64,
    /// Reference scores it has computed, from `scores.out.jsonl`.
    pub scores: &'a [ReferenceScore],
    /// Where to read on there; `None` if it was not read.
    pub next_scores_offset: Option<u64>,
    /// The files with its results, whose contents are in their places, where it was for a job and ended well.
    pub results: &'a [FileRecord],
    /// How the run ended, if its process is gone.
    pub end: Option<&'a RunEnd>,
    /// The time it is, in Unix seconds.
    pub now: i64,
}

impl Store {
    /// Records a batch. Events before the offset recorded so far are left out: recording twice changes nothing.
    ///
    /// # Errors
    /// [`super::StoreError::LeaseLost`] when the run is no longer the owner's, or has ended.
    pub async fn record(&self, batch: &RunBatch<'_>) -> Result<()> {
        let mut tx = self.write().await?;
        let run = held_run(&mut tx, batch.run_id, batch.owner).await?;
        for (offset, record) in batch.events.iter().filter(|(offset, _)| *offset >= run.events_offset) {
            match &run.subject {
                RunSubject::Job(job) => {
                    let mut line = Line { db: &mut tx, run: batch.run_id, job, offset: *offset, at_ms: record.at_ms };
                    line.record(&record.event).await?;
                }
                RunSubject::Model(id) => models::record(&mut tx, id, &record.event).await?,
                RunSubject::Inspection(id) => inspections::record(&mut tx, id, &record.event).await?,
                RunSubject::Export(id) => exports::record(&mut tx, id, &record.event).await?,
            }
        }
        if let RunSubject::Job(job) = &run.subject {
            reference_scores::record(&mut tx, job, batch.scores).await?;
        }
        sqlx::query(
            "update runs set events_offset = max(events_offset, ?), scores_offset = coalesce(?, scores_offset)
             where run_id = ?",
        )
        .bind(batch.next_offset as i64)
        .bind(batch.next_scores_offset.map(|offset| offset as i64))
        .bind(batch.run_id.as_str())
        .execute(&mut *tx)
        .await?;
        if let Some(end) = batch.end {
            record_end::record_end(&mut tx, &run, end, batch.now).await?;
            for file in batch.results {
                files::insert(&mut tx, file).await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }
}

/// One line of a job's run on its way into the tables.
struct Line<'a> {
    db: &'a mut SqliteConnection,
    run: &'a RunId,
    job: &'a JobId,
    offset: u64,
    at_ms: i64,
}

impl Line<'_> {
    async fn record(&mut self, event: &RunEvent) -> Result<()> {
        match event {
            RunEvent::Message { level, message, data } => {
                self.event(EventKind::Message, *level, message, data.as_ref()).await
            }
            RunEvent::ReferenceScores { model, key, count } => {
                self.reference_scores(model.as_ref(), key.as_ref(), count).await
            }
            RunEvent::Progress { phase, n_done, n_total, .. } => self.progress(*phase, *n_done, *n_total).await,
            RunEvent::Metrics { step, values } => {
                self.metrics(MetricKind::Training, *step, values).await?;
                let message = self.step_message(*step, "training", values).await?;
                self.event(EventKind::Metrics, Level::Info, &message, Some(&data(*step, "", values))).await
            }
            RunEvent::Evaluation { step, phase, values } => self.evaluation(*step, *phase, values).await,
            RunEvent::Checkpoint(summary) => self.checkpoint(summary).await,
            // Of another kind of run, or said again by the end of this one.
            RunEvent::Registered { .. }
            | RunEvent::Inspected { .. }
            | RunEvent::Exported(_)
            | RunEvent::Succeeded { .. }
            | RunEvent::Stopped { .. }
            | RunEvent::Failed { .. } => Ok(()),
        }
    }

    fn at(&self) -> i64 {
        self.at_ms.div_euclid(1000)
    }

    async fn event(&mut self, kind: EventKind, level: Level, message: &str, data: Option<&Value>) -> Result<()> {
        sqlx::query(
            "insert into events (id, job_id, run_id, run_offset, level, type, message, data, created_at)
             values (?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict (run_id, run_offset) do nothing",
        )
        .bind(EventId::new().as_str())
        .bind(self.job.as_str())
        .bind(self.run.as_str())
        .bind(self.offset as i64)
        .bind(word(&level))
        .bind(word(&kind))
        .bind(message)
        .bind(data.map(to_json))
        .bind(self.at())
        .execute(&mut *self.db)
        .await?;
        Ok(())
    }

    async fn reference_scores(
        &mut self,
        model: Option<&ModelId>,
        key: Option<&ScoreKey>,
        count: &ScoringCount,
    ) -> Result<()> {
        if let Some(key) = key {
            reference_scores::note_use(self.db, self.job, key, count.n_known, self.at()).await?;
        }
        if model.is_none() {
            // Said again by a resumed run, which found everything.
            sqlx::query("update jobs set reference_scores = coalesce(reference_scores, ?) where id = ?")
                .bind(to_json(count))
                .bind(self.job.as_str())
                .execute(&mut *self.db)
                .await?;
        }
        let ScoringCount { n_known, n_computed, duration_ms } = *count;
        let whose = model.map_or("all references".to_owned(), |model| format!("reference {model}"));
        let message = format!("{whose}: {n_known} scores known, {n_computed} computed, {:.1} s", duration_ms / 1e3);
        let data = json!({"reference_scores": {
            "reference": model, "digest": key.map(|k| &k.digest), "precision": key.map(|k| k.precision),
            "n_known": n_known, "n_computed": n_computed, "duration_ms": duration_ms,
        }});
        self.event(EventKind::Message, Level::Info, &message, Some(&data)).await
    }

    /// The time left goes by the steps of this attempt only: what was done before a pause took no time since.
    async fn progress(&mut self, phase: Phase, n_done: u64, n_total: u64) -> Result<()> {
        if phase != Phase::Training {
            return Ok(());
        }
        let (since_step, since_ms): (i64, i64) = sqlx::query_as(
            "update runs set since_step = coalesce(since_step, ?1), since_ms = coalesce(since_ms, ?2)
             where run_id = ?3 returning since_step, since_ms",
        )
        .bind(n_done as i64)
        .bind(self.at_ms)
        .bind(self.run.as_str())
        .fetch_one(&mut *self.db)
        .await?;
        let finish = estimated_finish((since_step, since_ms), (n_done as i64, self.at_ms), n_total as i64);
        sqlx::query("update jobs set n_steps_done = ?, n_steps = ?, estimated_finish = ? where id = ?")
            .bind(n_done as i64)
            .bind(n_total as i64)
            .bind(finish)
            .bind(self.job.as_str())
            .execute(&mut *self.db)
            .await?;
        Ok(())
    }

    async fn metrics(&mut self, kind: MetricKind, step: u64, values: &BTreeMap<String, f64>) -> Result<()> {
        sqlx::query(
            "insert into metrics (job_id, kind, step, \"values\") values (?, ?, ?, ?)
             on conflict do update set \"values\" = excluded.\"values\"",
        )
        .bind(self.job.as_str())
        .bind(word(&kind))
        .bind(step as i64)
        .bind(to_json(values))
        .execute(&mut *self.db)
        .await?;
        Ok(())
    }

    async fn evaluation(&mut self, step: u64, phase: EvaluationPhase, values: &BTreeMap<String, f64>) -> Result<()> {
        self.metrics(MetricKind::Evaluation, step, values).await?;
        let column = match phase {
            EvaluationPhase::Before => Some("update jobs set evaluation_before = ? where id = ?"),
            EvaluationPhase::After => Some("update jobs set evaluation_after = ? where id = ?"),
            EvaluationPhase::During => None,
        };
        if let Some(statement) = column {
            sqlx::query(statement)
                .bind(to_json(&Evaluation { step, metrics: values.clone() }))
                .bind(self.job.as_str())
                .execute(&mut *self.db)
                .await?;
        }
        let message = self.step_message(step, "validation", values).await?;
        self.event(EventKind::Metrics, Level::Info, &message, Some(&data(step, metric::EVALUATED, values))).await
    }

    async fn checkpoint(&mut self, summary: &CheckpointSummary) -> Result<()> {
        let spec = jobs::job(self.db, self.job).await?.spec;
        let tuned = ModelId::of_job(&spec.model, spec.suffix.as_deref(), self.job);
        let model = ModelId::of_checkpoint(&tuned, summary.step);
        let made = Made { job: self.job, base: &spec.model, id: &model, info: &summary.model, at: self.at() };
        insert_made(self.db, &made).await?;
        // The conflict changes nothing but gives the id that stands.
        let id: String = sqlx::query_scalar(
            "insert into checkpoints (id, job_id, step, directory, model_id, metrics, size_bytes, created_at)
             values (?, ?, ?, ?, ?, ?, ?, ?) on conflict (job_id, step) do update set id = id returning id",
        )
        .bind(CheckpointId::new().as_str())
        .bind(self.job.as_str())
        .bind(summary.step as i64)
        .bind(&summary.directory)
        .bind(model.as_str())
        .bind(to_json(&summary.metrics))
        .bind(summary.size_bytes as i64)
        .bind(self.at())
        .fetch_one(&mut *self.db)
        .await?;
        // The run gets ahead: if it dies now, it does not die where it died before.
        sqlx::query("update runs set n_deaths = 0, is_tidied = 0 where run_id = ?")
            .bind(self.run.as_str())
            .execute(&mut *self.db)
            .await?;
        let message = format!("Checkpoint created at step {}", summary.step);
        let data = json!({"step": summary.step, "model": model, CHECKPOINT: id});
        self.event(EventKind::Message, Level::Info, &message, Some(&data)).await
    }

    /// `Step 10/100: training loss=0.69`, as far as that is known.
    async fn step_message(&mut self, step: u64, what: &str, values: &BTreeMap<String, f64>) -> Result<String> {
        let n_steps: Option<i64> = sqlx::query_scalar("select n_steps from jobs where id = ?")
            .bind(self.job.as_str())
            .fetch_one(&mut *self.db)
            .await?;
        let of = n_steps.map_or(String::new(), |n| format!("/{n}"));
        let loss = values.get(metric::LOSS).map_or(" metrics".to_owned(), |loss| format!(" loss={loss:.4}"));
        Ok(format!("Step {step}{of}: {what}{loss}"))
    }
}

/// When the last step will be done, at the pace between two moments, each a step and a time in milliseconds.
fn estimated_finish(since: (i64, i64), now: (i64, i64), n_total: i64) -> Option<i64> {
    let (n_steps, duration_ms) = (now.0 - since.0, now.1 - since.1);
    if n_steps <= 0 || duration_ms < 0 {
        return None;
    }
    let left_ms = duration_ms as f64 / n_steps as f64 * (n_total - now.0).max(0) as f64;
    Some((now.1 as f64 + left_ms) as i64 / 1000)
}

fn data(step: u64, prefix: &str, values: &BTreeMap<String, f64>) -> Value {
    let mut data: serde_json::Map<String, Value> =
        values.iter().map(|(name, value)| (format!("{prefix}{name}"), json!(value))).collect();
    data.insert("step".into(), json!(step));
    Value::Object(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_goes_by_the_steps_of_this_attempt() {
        assert_eq!(estimated_finish((0, 1_000_000), (10, 1_100_000), 30), Some(1300));
        // Resumed at step 20 of 30: the ten steps left take as long as the pace since then says.
        assert_eq!(estimated_finish((20, 5_000_000), (22, 5_002_000), 30), Some(5010));
        assert_eq!(estimated_finish((20, 5_000_000), (20, 5_000_000), 30), None);
    }
}
