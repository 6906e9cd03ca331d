//! Runs and their leases: who works on what, and until when that is believed.
//!
//! A lease is taken and taken over by guarded statements, so two workers on one database never have the same run.

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Result, Store, StoreError,
    column::{count, parsed, parsed_opt},
    disk::{self, Fit},
    history, memory, queue,
    transition::{fail, transition},
};
use crate::domain::{ExportId, InspectionId, JobId, JobMemory, JobStatus, Level, ModelId, QueueRules, RunId};

/// What a run is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunSubject {
    /// Training for a job.
    Job(JobId),
    /// The registration of a model.
    Model(ModelId),
    /// A question about a model.
    Inspection(InspectionId),
    /// A model written for other programs.
    Export(ExportId),
}

/// Why a run is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopIntent {
    /// Its user will go on later.
    Pause,
    /// Its user does not want it any more.
    Cancel,
}

/// A worker's claim on its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease<'a> {
    /// The worker; no two ever have the same name.
    pub owner: &'a str,
    /// The time it is, in Unix seconds.
    pub now: i64,
    /// When others may think that it is gone, in Unix seconds.
    pub expires_at: i64,
}

/// What is free for a job that starts.
#[derive(Debug, Clone)]
pub struct FreeRoom {
    /// Memory, where that can be known.
    pub memory: Option<JobMemory>,
    /// Disk beside what is kept free, in bytes.
    pub disk_bytes: u64,
    /// All that the disk could have beside what is kept free, in bytes.
    pub most_disk_bytes: u64,
}

impl FreeRoom {
    /// Enough for everything.
    pub const PLENTY: Self = Self { memory: None, disk_bytes: u64::MAX, most_disk_bytes: u64::MAX };
}

/// A run that is worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id, the name of its directory.
    pub id: RunId,
    /// What it is for.
    pub subject: RunSubject,
    /// How often a process was started for it, this time included.
    pub n_attempts: u32,
    /// The device slot it has; only training has one.
    pub slot: Option<u16>,
    /// How far its `events.jsonl` has been recorded.
    pub events_offset: u64,
    /// How far its `scores.out.jsonl` has been recorded.
    pub scores_offset: u64,
    /// Whether it is asked to stop, and why.
    pub stop_requested: Option<StopIntent>,
}

impl Store {
    /// Takes the job that the rule of the queue puts first, makes it `running`, and gives its run a slot. `None` when nothing may
    /// start: nothing is queued, no slot is free, all owners of queued jobs have as many slots as they may, or the first job needs more
    /// disk than is free, or more memory than is free while other jobs run. Nobody passes a
    /// job that waits for memory, so it waits no longer than they run; nor one that waits for disk. One that the whole disk could not hold
    /// fails: it was created while its model or its file was being checked.
    pub async fn claim_job(&self, lease: &Lease<'_>, rules: &QueueRules, room: &FreeRoom) -> Result<Option<Run>> {
        // Asked without the write lock first: this is called several times a second and mostly in vain.
        let is_queued = "select exists (select 1 from jobs where status = 'queued')";
        if !sqlx::query_scalar(is_queued).fetch_one(&self.pool).await?
            || free_slots(&mut *self.pool.acquire().await?, rules.n_slots).await?.is_empty()
        {
            return Ok(None);
        }
        let mut tx = self.write().await?;
        let slots = free_slots(&mut tx, rules.n_slots).await?;
        let Some(first) = slots.first() else { return Ok(None) };
        let queue = queue::read(&mut tx, rules, lease.now).await?;
        let Some(next) = queue.next() else { return Ok(None) };
        let job: JobId = sqlx::query_scalar::<_, String>("select id from jobs where seq = ?")
            .bind(next.oldest_seq)
            .fetch_one(&mut *tx)
            .await?
            .parse()
            .map_err(|e| StoreError::Decode { what: "id", source: Box::new(e) })?;
        let memory = room.memory.as_ref();
        let best = memory.and_then(|memory| memory.best_of(&slots));
        // What no device could hold is left to fail and say so; alone it may yet do, and would wait for nobody.
        let held_up_to = match memory {
            _ if queue.running.is_empty() => 0,
            Some(JobMemory::Shared(_)) | None => u64::MAX,
            Some(of_slots @ JobMemory::OfSlots(_)) => of_slots.most_bytes(),
        };
        let mut fits = match disk::fits(&mut tx, &job, room).await? {
            Fit::Now => true,
            Fit::Later => false,
            Fit::Never(needed) => {
                fail(&mut tx, &job, &disk::too_large(needed, room)).await?;
                tx.commit().await?;
                return Ok(None);
            }
        };
        if let Some((_, free_bytes)) = best {
            fits &= memory::fits(&mut tx, &job, free_bytes, held_up_to).await?;
        }
        if !fits {
            tx.commit().await?;
            return Ok(None);
        }
        let run = begin(&mut tx, &job, lease, best.map_or(*first, |(slot, _)| slot)).await?;
        tx.commit().await?;
        Ok(Some(run))
    }

    /// Takes over every run whose worker has let its lease expire. Returns how many.
    pub async fn take_over_expired(&self, lease: &Lease<'_>) -> Result<u64> {
        let expired = sqlx::query(
            "update runs set lease_owner = ?1, lease_expires_at = ?2
             where lease_owner is not null and lease_owner <> ?1 and lease_expires_at <= ?3",
        );
        Ok(expired.bind(lease.owner).bind(lease.expires_at).bind(lease.now).execute(&self.pool).await?.rows_affected())
    }

    /// Tells that a worker is still there.
    pub async fn renew_leases(&self, lease: &Lease<'_>) -> Result<()> {
        sqlx::query("update runs set lease_expires_at = ? where lease_owner = ?")
            .bind(lease.expires_at)
            .bind(lease.owner)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Tells that a worker ends: the next one may take over its runs, which go on, at once.
    pub async fn let_leases_expire(&self, owner: &str) -> Result<()> {
        sqlx::query("update runs set lease_expires_at = 0 where lease_owner = ?")
            .bind(owner)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Whether there is such a run.
    pub async fn has_run(&self, id: &RunId) -> Result<bool> {
        let found = sqlx::query("select 1 from runs where run_id = ?").bind(id.as_str()).fetch_optional(&self.pool);
        Ok(found.await?.is_some())
    }

    /// The runs a worker holds, as they are now.
    pub async fn held_runs(&self, owner: &str) -> Result<Vec<Run>> {
        let rows = sqlx::query("select * from runs where lease_owner = ? order by seq")
            .bind(owner)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(from_row).collect()
    }
}

/// Makes a queued job `running`, with a slot for its run.
async fn begin(db: &mut SqliteConnection, job: &JobId, lease: &Lease<'_>, slot: u16) -> Result<Run> {
    transition(db, job, JobStatus::Running).await?;
    sqlx::query("update jobs set started_at = coalesce(started_at, ?) where id = ?")
        .bind(lease.now)
        .bind(job.as_str())
        .execute(&mut *db)
        .await?;
    let row = sqlx::query(
        "insert into runs (run_id, job_id, n_attempts, lease_owner, lease_expires_at, slot, slot_since)
         values (?, ?, 1, ?, ?, ?, ?)
         on conflict (job_id) do update set n_attempts = n_attempts + 1, lease_owner = excluded.lease_owner,
             lease_expires_at = excluded.lease_expires_at, slot = excluded.slot, slot_since = excluded.slot_since,
             stop_requested = null, since_step = null, since_ms = null
         returning *",
    )
    .bind(RunId::new().as_str())
    .bind(job.as_str())
    .bind(lease.owner)
    .bind(lease.expires_at)
    .bind(slot)
    .bind(lease.now)
    .fetch_one(&mut *db)
    .await?;
    let run = from_row(&row)?;
    let said = match run.n_attempts {
        1 => "Fine-tuning job started".to_owned(),
        n => format!("Fine-tuning job goes on (attempt {n})"),
    };
    history::insert_message(db, job, Level::Info, &said).await?;
    Ok(run)
}

/// The lowest device slot that no leased run has.
async fn free_slots(db: &mut SqliteConnection, n_slots: u16) -> Result<Vec<u16>> {
    let taken: Vec<i64> =
        sqlx::query_scalar("select slot from runs where lease_owner is not null and slot is not null")
            .fetch_all(db)
            .await?;
    Ok((0..n_slots).filter(|slot| !taken.contains(&i64::from(*slot))).collect())
}

/// A run, provided that `owner` still holds its lease.
pub(super) async fn held_run(db: &mut SqliteConnection, id: &RunId, owner: &str) -> Result<Run> {
    let row = sqlx::query("select * from runs where run_id = ? and lease_owner = ?")
        .bind(id.as_str())
        .bind(owner)
        .fetch_optional(db)
        .await?;
    from_row(&row.ok_or_else(|| StoreError::LeaseLost { run_id: id.to_string() })?)
}

/// Counts a death and tells how many there were in a row.
pub(super) async fn one_more_death(db: &mut SqliteConnection, id: &RunId) -> Result<u32> {
    Ok(sqlx::query_scalar("update runs set n_deaths = n_deaths + 1 where run_id = ? returning n_deaths")
        .bind(id.as_str())
        .fetch_one(db)
        .await?)
}

pub(super) fn from_row(row: &SqliteRow) -> Result<Run> {
    let stop_requested = match row.try_get::<Option<&str>, _>("stop_requested")? {
        None => None,
        Some("pause") => Some(StopIntent::Pause),
        Some(_) => Some(StopIntent::Cancel), // the column's check knows no third word
    };
    let subject = if let Some(job) = parsed_opt(row, "job_id")? {
        RunSubject::Job(job)
    } else if let Some(model) = parsed_opt(row, "model_id")? {
        RunSubject::Model(model)
    } else if let Some(inspection) = parsed_opt(row, "inspection_id")? {
        RunSubject::Inspection(inspection)
    } else {
        RunSubject::Export(parsed(row, "export_id")?)
    };
    Ok(Run {
        id: parsed(row, "run_id")?,
        subject,
        n_attempts: row.try_get("n_attempts")?,
        slot: row.try_get("slot")?,
        events_offset: count(row, "events_offset")?,
        scores_offset: count(row, "scores_offset")?,
        stop_requested,
    })
}
