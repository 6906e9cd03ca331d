//! The queue: what waits and what runs, read for the rule in `domain`, and what the rule needs noted.

use std::collections::HashMap;

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Result, Store, StoreError,
    column::{count, from_word, json, parsed, parsed_opt},
    history, jobs,
};
use crate::domain::{
    Job, JobId, JobStatus, Lane, Level, Priority, Queue, QueueRules, RunningJob, UserName, WaitCode, WaitReason,
    Waiting,
};

/// The jobs that ended well whose median tells how long one takes.
const N_MEASURED: i64 = 99;
/// Places whose start is estimated; nobody plans by what is further away.
const N_ESTIMATED: usize = 10_000;

impl Store {
    /// What waits and what runs.
    pub async fn queue(&self, rules: &QueueRules, now: i64) -> Result<Queue> {
        read(&mut *self.pool.acquire().await?, rules, now).await
    }

    /// Where jobs stand in the queue; nothing of those that do not wait.
    pub async fn waiting(&self, rules: &QueueRules, of: &[&Job], now: i64) -> Result<Vec<Option<Waiting>>> {
        if !of.iter().any(|job| job.status == JobStatus::Queued) {
            return Ok(of.iter().map(|job| being_checked(job)).collect());
        }
        let mut db = self.pool.acquire().await?;
        let queue = read(&mut db, rules, now).await?;
        let mut places = HashMap::new();
        for lane in &queue.lanes {
            let of_lane = of.iter().filter(|job| {
                (job.status, &job.ownership.owner, job.standing.class) == (JobStatus::Queued, &lane.owner, lane.class)
            });
            let seqs: Vec<i64> = of_lane.map(|job| job.standing.seq).collect();
            for (seq, nth) in numbers(&mut db, lane, seqs).await? {
                places.insert(seq, (lane, nth, queue.n_ahead(lane, nth)));
            }
        }
        let last = places.values().map(|(.., n_ahead)| *n_ahead as usize + 1).max().unwrap_or(0);
        let starts = queue.starts(now, last.min(N_ESTIMATED));
        let stand = |job: &&Job| match places.get(&job.standing.seq) {
            Some((lane, nth, n_ahead)) => {
                let start = starts.get(*n_ahead as usize).copied().flatten();
                Some(standing(&queue, job, (lane, *nth, *n_ahead), start))
            }
            // It was started a moment ago, or is still being checked.
            None => being_checked(job),
        };
        Ok(of.iter().map(stand).collect())
    }

    /// The first jobs of the queue, in order.
    pub async fn first_waiting(&self, queue: &Queue, limit: usize) -> Result<Vec<Job>> {
        let mut db = self.pool.acquire().await?;
        let places = queue.first(limit);
        let mut found = HashMap::new();
        for lane in &queue.lanes {
            let n_of_lane = places.iter().filter(|(of, _)| *of == lane).count();
            let rows = sqlx::query(concat!(
                jobs::select!(),
                "where jobs.status = 'queued' and class = ? and jobs.owner is ? order by jobs.seq limit ?"
            ))
            .bind(lane.class as i64)
            .bind(lane.owner.as_ref().map(UserName::as_str))
            .bind(n_of_lane as i64)
            .fetch_all(&mut *db)
            .await?;
            for (nth, row) in rows.iter().enumerate() {
                found.insert((lane.owner.clone(), lane.class, nth as u64), jobs::from_row(row)?);
            }
        }
        Ok(places.into_iter().filter_map(|(lane, nth)| found.remove(&(lane.owner.clone(), lane.class, nth))).collect())
    }

    /// Gives a job another priority; what waiting has added to the one before is lost.
    ///
    /// # Errors
    /// [`StoreError::NotWaiting`] of a job that runs or has ended: nothing would come of it.
    pub async fn set_priority(&self, id: &JobId, priority: Priority) -> Result<Job> {
        let mut tx = self.write().await?;
        let job = jobs::job(&mut tx, id).await?;
        if job.status == JobStatus::Running || job.status.is_final() {
            return Err(StoreError::NotWaiting { id: id.to_string(), status: job.status });
        }
        sqlx::query(
            "update jobs set priority = ?, class = ?, class_since = null, waits_for_bytes = null,
                 waits_for_disk_bytes = null where id = ?",
        )
        .bind(priority.as_str())
        .bind(priority as i64)
        .bind(id.as_str())
        .execute(&mut *tx)
        .await?;
        if priority != job.priority {
            let said = format!("The job's priority is {} (it was {})", priority.as_str(), job.priority.as_str());
            history::insert_message(&mut tx, id, Level::Info, &said).await?;
        }
        let job = jobs::job(&mut tx, id).await?;
        tx.commit().await?;
        Ok(job)
    }

    /// Raises the class of every job that has waited long enough in its own. Returns how many.
    pub async fn raise_waiting_jobs(&self, now: i64) -> Result<u64> {
        let due = now - QueueRules::RAISED_AFTER_SECONDS;
        // Asked without the write lock first: this is called several times a second and mostly in vain.
        let is_due: bool = sqlx::query_scalar(
            "select exists (select 1 from jobs where status = 'queued' and class_since is null)
                 or exists (select 1 from jobs where status = 'queued' and class_since <= ? and class < 2)",
        )
        .bind(due)
        .fetch_one(&self.pool)
        .await?;
        if !is_due {
            return Ok(0);
        }
        let mut tx = self.write().await?;
        let raised = sqlx::query(
            "update jobs set class = class + 1, class_since = ?1
             where status = 'queued' and class_since <= ?2 and class < 2 returning id, class",
        )
        .bind(now)
        .bind(due)
        .fetch_all(&mut *tx)
        .await?;
        for row in &raised {
            let said = format!("The job has waited long: it goes among those of priority {}", class(row)?.as_str());
            history::insert_message(&mut tx, &parsed(row, "id")?, Level::Info, &said).await?;
        }
        // Their waiting begins when the worker first sees them: one clock tells how long it is.
        sqlx::query("update jobs set class_since = ? where status = 'queued' and class_since is null")
            .bind(now)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(raised.len() as u64)
    }
}

/// Reads all that the rule looks at.
pub(super) async fn read(db: &mut SqliteConnection, rules: &QueueRules, now: i64) -> Result<Queue> {
    let lanes = sqlx::query(
        "select owner, class, count(*) as n, min(seq) as oldest from jobs where status = 'queued' group by class, owner",
    )
    .fetch_all(&mut *db)
    .await?;
    let lanes = lanes.iter().map(|row| {
        Ok(Lane {
            owner: parsed_opt(row, "owner")?,
            class: class(row)?,
            n_waiting: count(row, "n")?,
            oldest_seq: row.try_get("oldest")?,
        })
    });
    let lanes = lanes.collect::<Result<_>>()?;
    let running = sqlx::query(
        "select jobs.id, jobs.owner, jobs.priority, jobs.estimated_finish, slot, coalesce(slot_since, started_at) as since
         from runs join jobs on jobs.id = runs.job_id where lease_owner is not null and slot is not null order by slot",
    )
    .fetch_all(&mut *db)
    .await?;
    let running = running.iter().map(|row| {
        Ok(RunningJob {
            id: parsed(row, "id")?,
            owner: parsed_opt(row, "owner")?,
            priority: from_word(row, "priority")?,
            slot: row.try_get("slot")?,
            since: row.try_get("since")?,
            estimated_finish: row.try_get("estimated_finish")?,
        })
    });
    let running = running.collect::<Result<_>>()?;
    let mut used_seconds = HashMap::new();
    for row in &sqlx::query("select owner, seconds, at from device_use").fetch_all(&mut *db).await? {
        let owner = Some(row.try_get::<&str, _>("owner")?).filter(|name| !name.is_empty());
        let left = QueueRules::left_of_use(row.try_get("seconds")?, row.try_get("at")?, now);
        used_seconds.insert(owner.and_then(|name| name.parse().ok()), left);
    }
    let mut seconds: Vec<i64> = sqlx::query_scalar(
        "select slot_seconds from (select id from jobs where status = 'succeeded' order by seq desc limit ?) done
         join runs on runs.job_id = done.id",
    )
    .bind(N_MEASURED)
    .fetch_all(db)
    .await?;
    seconds.sort_unstable();
    let usual_seconds = seconds.get(seconds.len() / 2).copied();
    Ok(Queue { rules: rules.clone(), lanes, running, used_seconds, usual_seconds })
}

/// Notes that an owner has had a device for so long.
pub(super) async fn note_use(db: &mut SqliteConnection, owner: Option<&str>, seconds: i64, now: i64) -> Result<()> {
    let before: Option<(f64, i64)> = sqlx::query_as("select seconds, at from device_use where owner = ?")
        .bind(owner.unwrap_or(""))
        .fetch_optional(&mut *db)
        .await?;
    let left = before.map_or(0.0, |(seconds, at)| QueueRules::left_of_use(seconds, at, now));
    sqlx::query("insert or replace into device_use (owner, seconds, at) values (?, ?, ?)")
        .bind(owner.unwrap_or(""))
        .bind(left + seconds as f64)
        .bind(now)
        .execute(db)
        .await?;
    Ok(())
}

/// Which of a lane's jobs those with these numbers of creation are, the oldest being number 0.
async fn numbers(db: &mut SqliteConnection, lane: &Lane, seqs: Vec<i64>) -> Result<Vec<(i64, u64)>> {
    if seqs.is_empty() {
        return Ok(Vec::new());
    }
    // Counted from one to the next, so that the lane is walked once however many are asked for.
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "with wanted as (select value as seq, lag(value, 1, 0) over (order by value) as since from json_each(?3))
         select seq, (select count(*) from jobs where status = 'queued' and class = ?1 and owner is ?2
                      and jobs.seq >= wanted.since and jobs.seq < wanted.seq)
         from wanted order by seq",
    )
    .bind(lane.class as i64)
    .bind(lane.owner.as_ref().map(UserName::as_str))
    .bind(json(&seqs))
    .fetch_all(db)
    .await?;
    let mut nth = 0;
    Ok(rows
        .into_iter()
        .map(|(seq, n_since)| {
            nth += n_since as u64;
            (seq, nth)
        })
        .collect())
}

/// The class a row's job stands in.
pub(super) fn class(row: &SqliteRow) -> Result<Priority> {
    // The column's check knows 0, 1 and 2 only.
    Ok(Priority::ALL[usize::from(row.try_get::<u8, _>("class")?).min(2)])
}

fn being_checked(job: &Job) -> Option<Waiting> {
    (job.status == JobStatus::ValidatingFiles).then(|| Waiting {
        position: None,
        n_ahead: None,
        reason: WaitReason {
            code: WaitCode::FilesBeingChecked,
            message: "a file or a model it reads is still being checked".to_owned(),
        },
        estimated_start: None,
    })
}

fn standing(queue: &Queue, job: &Job, place: (&Lane, u64, u64), start: Option<i64>) -> Waiting {
    let (lane, nth, n_ahead) = place;
    let n_slots = queue.rules.n_slots;
    let (code, message) = if queue.is_held(lane, nth) {
        let max = queue.rules.max_running_per_user.unwrap_or_default();
        (WaitCode::UserLimit, format!("its owner may have {max} running at once, and has those or sooner ones"))
    } else if let Some(bytes) = job.standing.waits_for_disk_bytes.filter(|_| n_ahead == 0) {
        let mib = (bytes >> 20).max(1);
        let message = format!(
            "it needs about {mib} MiB of disk beside what is kept free, and less is free: it starts when files, exports or runs have \
             been deleted"
        );
        (WaitCode::Disk, message)
    } else if let Some(bytes) = job.standing.waits_for_bytes.filter(|_| n_ahead == 0) {
        let gib = bytes as f64 / f64::from(1 << 30);
        let message = format!("it needs about {gib:.1} GiB of memory and less is free: it starts as soon as that is");
        (WaitCode::Memory, message)
    } else if (n_ahead as usize) < queue.n_free() {
        (WaitCode::Starting, "a slot is free for it".to_owned())
    } else {
        let before = match n_ahead {
            0 => "it is next".to_owned(),
            1 => "1 job goes before it".to_owned(),
            n => format!("{n} jobs go before it"),
        };
        let slots = if n_slots == 1 { "the slot is".to_owned() } else { format!("all {n_slots} slots are") };
        (WaitCode::Slot, format!("{slots} taken; {before}"))
    };
    Waiting {
        position: Some(n_ahead + 1),
        n_ahead: Some(n_ahead),
        reason: WaitReason { code, message },
        estimated_start: start.filter(|_| code != WaitCode::UserLimit),
    }
}
