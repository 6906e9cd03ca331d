//! Jobs: made, read, listed. What changes their status is in `transition.rs`.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Page, Result, Store, StoreError,
    column::{count_opt, from_json, from_json_opt, from_word, json, parsed, parsed_opt},
    history, limits,
    owners::{ownership, seen},
    queue, unix_now,
};
use crate::domain::{
    EvaluationPair, FileId, Job, JobId, JobSpec, JobStatus, Level, ModelId, Ownership, Priority, Standing, UserName,
    Viewer,
};

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobQuery {
    /// Only those they may see.
    pub viewer: Viewer,
    /// Go on after this one.
    pub after: Option<JobId>,
    /// At most so many.
    pub limit: usize,
    /// What their metadata must be.
    pub metadata: MetadataFilter,
}

/// What a job's metadata must be to be listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MetadataFilter {
    /// Anything.
    #[default]
    Any,
    /// None was given (`metadata=null`).
    Absent,
    /// It has all of these (`metadata[key]=value`).
    Has(BTreeMap<String, String>),
}

/// What a new job is given besides its spec and its owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobTerms {
    /// How soon it is to run beside others.
    pub priority: Priority,
    /// As many jobs of its owner may wait, with this one.
    pub max_waiting: Option<u32>,
}

/// Jobs with their runs and the files of their results: what [`from_row`] reads.
macro_rules! select {
    () => {
        "select jobs.*, runs.run_id, coalesce(runs.n_attempts, 0) as n_attempts,
                (select json_group_array(files.id order by files.seq) from files where result_of = jobs.id) as result_files
         from jobs left join runs on runs.job_id = jobs.id "
    };
}
pub(super) use select;

impl Store {
    /// Adds a job: `queued`, or `validating_files` while a file or a model it reads is still being checked.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] and [`StoreError::Unusable`] name the first file or model that rules the job out;
    /// [`StoreError::TooManyWaiting`].
    pub async fn insert_job(&self, spec: &JobSpec, ownership: &Ownership, terms: &JobTerms) -> Result<Job> {
        let id = JobId::new();
        let files: BTreeSet<&FileId> =
            [Some(&spec.training_file), spec.validation_file.as_ref()].into_iter().flatten().collect();
        let models: BTreeSet<&ModelId> = spec.models().collect();
        let mut tx = self.write().await?;
        if let (Some(owner), Some(max)) = (&ownership.owner, terms.max_waiting) {
            limits::check_room(&mut tx, owner, max).await?;
        }
        let mut all_checked = true;
        for file in &files {
            let found: Option<String> = sqlx::query_scalar("select status from files where id = ?")
                .bind(file.as_str())
                .fetch_optional(&mut *tx)
                .await?;
            all_checked &= usable("file", file.as_str(), found.as_deref())?;
        }
        for model in &models {
            let found: Option<String> = sqlx::query_scalar("select status from models where id = ?")
                .bind(model.as_str())
                .fetch_optional(&mut *tx)
                .await?;
            all_checked &= usable("model", model.as_str(), found.as_deref())?;
        }
        let status = if all_checked { JobStatus::Queued } else { JobStatus::ValidatingFiles };
        sqlx::query(
            "insert into jobs (id, status, spec, created_at, owner, is_shared, priority, class)
             values (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id.as_str())
        .bind(status.as_str())
        .bind(json(spec))
        .bind(unix_now())
        .bind(ownership.owner.as_ref().map(UserName::as_str))
        .bind(ownership.is_shared)
        .bind(terms.priority.as_str())
        .bind(terms.priority as i64)
        .execute(&mut *tx)
        .await?;
        for file in files {
            sqlx::query("insert into job_files (job_id, file_id) values (?, ?)")
                .bind(id.as_str())
                .bind(file.as_str())
                .execute(&mut *tx)
                .await?;
        }
        for model in models {
            sqlx::query("insert into job_models (job_id, model_id) values (?, ?)")
                .bind(id.as_str())
                .bind(model.as_str())
                .execute(&mut *tx)
                .await?;
        }
        history::insert_message(&mut tx, &id, Level::Info, &format!("Created fine-tuning job: {id}")).await?;
        if all_checked {
            history::insert_message(&mut tx, &id, Level::Info, "Files validated, job is queued").await?;
        } else {
            history::insert_message(&mut tx, &id, Level::Info, "Validating the files and models the job reads").await?;
        }
        let job = job(&mut tx, &id).await?;
        tx.commit().await?;
        Ok(job)
    }

    /// A job.
    pub async fn job(&self, id: &JobId) -> Result<Job> {
        job(&mut *self.pool.acquire().await?, id).await
    }

    /// Jobs, newest first.
    pub async fn jobs(&self, query: &JobQuery) -> Result<Page<Job>> {
        let after: Option<i64> = match &query.after {
            None => None,
            Some(id) => {
                let seq = sqlx::query_scalar(concat!("select seq from jobs where id = ?2 and ", seen!()))
                    .bind(query.viewer.name())
                    .bind(id.as_str())
                    .fetch_optional(&self.pool)
                    .await?;
                Some(seq.ok_or_else(|| StoreError::UnknownAfter { kind: "job", id: id.to_string() })?)
            }
        };
        let (absent, has) = match &query.metadata {
            MetadataFilter::Any => (false, None),
            MetadataFilter::Absent => (true, None),
            MetadataFilter::Has(pairs) => (false, Some(json(pairs))),
        };
        // A job has all the pairs when none of them is missing from it.
        let rows = sqlx::query(concat!(
            select!(),
            "where jobs.seq < coalesce(?2, 9223372036854775807)
               and (not ?3 or json_type(spec, '$.metadata') is null or json_type(spec, '$.metadata') = 'null')
               and not exists (
                   select 1 from json_each(?4) wanted where not exists (
                       select 1 from json_each(spec, '$.metadata') had
                       where had.key = wanted.key and had.value = wanted.value))
               and ",
            seen!(),
            " order by jobs.seq desc limit ?5"
        ))
        .bind(query.viewer.name())
        .bind(after)
        .bind(absent)
        .bind(has)
        .bind(Page::<Job>::n_rows(query.limit))
        .fetch_all(&self.pool)
        .await?;
        Page::cut(rows.iter().map(from_row), query.limit)
    }
}

/// Whether a file or a model has passed its check; an error when it never will.
fn usable(kind: &'static str, id: &str, status: Option<&str>) -> Result<bool> {
    match status {
        None => Err(StoreError::NotFound { kind, id: id.to_owned() }),
        Some("error") => Err(StoreError::Unusable {
            kind,
            id: id.to_owned(),
            reason: format!("its check found errors; GET the {kind} to see them"),
        }),
        Some(status) => Ok(matches!(status, "processed" | "ready")),
    }
}

/// Reads one job inside a transaction.
pub(super) async fn job(db: &mut SqliteConnection, id: &JobId) -> Result<Job> {
    let row = sqlx::query(concat!(select!(), "where jobs.id = ?")).bind(id.as_str()).fetch_optional(db).await?;
    from_row(&row.ok_or_else(|| StoreError::NotFound { kind: "job", id: id.to_string() })?)
}

/// Reads a job from a row of `jobs` joined with its run.
pub(super) fn from_row(row: &SqliteRow) -> Result<Job> {
    Ok(Job {
        id: parsed(row, "id")?,
        spec: from_json(row, "spec")?,
        status: from_word(row, "status")?,
        run_id: parsed_opt(row, "run_id")?,
        n_attempts: row.try_get("n_attempts")?,
        fine_tuned_model: parsed_opt(row, "fine_tuned_model")?,
        result_files: from_json(row, "result_files")?,
        error: from_json_opt(row, "error")?,
        n_trained_tokens: count_opt(row, "n_trained_tokens")?,
        reference_scores: from_json_opt(row, "reference_scores")?,
        evaluation: EvaluationPair {
            before: from_json_opt(row, "evaluation_before")?,
            after: from_json_opt(row, "evaluation_after")?,
        },
        progress: count_opt(row, "n_steps_done")?.zip(count_opt(row, "n_steps")?),
        estimated_finish: row.try_get("estimated_finish")?,
        created_at: row.try_get("created_at")?,
        ownership: ownership(row)?,
        priority: from_word(row, "priority")?,
        standing: Standing {
            seq: row.try_get("seq")?,
            class: queue::class(row)?,
            waits_for_bytes: count_opt(row, "waits_for_bytes")?,
            waits_for_disk_bytes: count_opt(row, "waits_for_disk_bytes")?,
        },
        started_at: row.try_get("started_at")?,
        finished_at: row.try_get("finished_at")?,
    })
}
