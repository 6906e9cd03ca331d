//! Whether disk is free for a job, as far as its rows tell what its checkpoints will take.

use sqlx::SqliteConnection;

use super::{
    FreeRoom, Result, StoreError,
    column::{from_json, from_json_opt},
    history, jobs,
};
use crate::domain::{
    DatasetReport, Failure, FailureCode, Job, JobId, Level, ModelInfo, disk_bytes_after, needed_disk_bytes,
};

/// Whether there is disk for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// Now.
    Now,
    /// When others have let go of some.
    Later,
    /// Not even with the whole disk to itself: what its checkpoints take at once, in bytes.
    Never(u64),
}

/// What a job takes of the disk, in bytes.
struct Need {
    /// Its checkpoints, at most.
    most: u64,
    /// What it may still write of them.
    more: u64,
}

/// Whether a job has no more to write than what `room` leaves beside those that run, and anything at all is free; if it has to wait,
/// its row and its history say so.
pub(super) async fn fits(db: &mut SqliteConnection, id: &JobId, room: &FreeRoom) -> Result<Fit> {
    let job = jobs::job(db, id).await?;
    let need = need(db, &job).await?;
    if let Some(need) = need.as_ref().filter(|need| need.most > room.most_disk_bytes) {
        return Ok(Fit::Never(need.most));
    }
    let needed = need.map_or(0, |need| need.more).max(1);
    if needed <= room.disk_bytes.saturating_sub(promised(db).await?) {
        if job.standing.waits_for_disk_bytes.is_some() {
            let statement = sqlx::query("update jobs set waits_for_disk_bytes = null where id = ?");
            statement.bind(id.as_str()).execute(db).await?;
        }
        return Ok(Fit::Now);
    }
    if job.standing.waits_for_disk_bytes.is_none() {
        sqlx::query("update jobs set waits_for_disk_bytes = ? where id = ?")
            .bind(i64::try_from(needed).unwrap_or(i64::MAX))
            .bind(id.as_str())
            .execute(&mut *db)
            .await?;
        let said = "The job is next and waits for disk: it starts when enough is free";
        history::insert_message(db, id, Level::Info, said).await?;
    }
    Ok(Fit::Later)
}

/// Why a job fails that no disk of this size could hold.
pub(super) fn too_large(needed: u64, room: &FreeRoom) -> Failure {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let message = format!(
        "the job's checkpoints would take about {:.1} GiB and all that the server's disk could have for them is {:.1} GiB: create it anew and \
         keep fewer (retention.keep_last), write fewer (checkpoint_every_n_steps), or take LoRA or a smaller model",
        gib(needed),
        gib(room.most_disk_bytes)
    );
    Failure::new(FailureCode::DiskFull, message)
}

/// What those that run have still to write: it is free now and will not be.
async fn promised(db: &mut SqliteConnection) -> Result<u64> {
    let running: Vec<String> =
        sqlx::query_scalar("select id from jobs where status = 'running'").fetch_all(&mut *db).await?;
    let mut bytes = 0_u64;
    for id in running {
        let id: JobId = id.parse().map_err(|e| StoreError::Decode { what: "id", source: Box::new(e) })?;
        let job = jobs::job(db, &id).await?;
        bytes = bytes.saturating_add(need(db, &job).await?.map_or(0, |need| need.more));
    }
    Ok(bytes)
}

/// What its checkpoints take, if its base and its training file are still there.
async fn need(db: &mut SqliteConnection, job: &Job) -> Result<Option<Need>> {
    let spec = &job.spec;
    let base = sqlx::query("select info from models where id = ? and info is not null").bind(spec.model.as_str());
    let Some(base) = base.fetch_optional(&mut *db).await? else { return Ok(None) };
    let file = sqlx::query("select report from files where id = ?").bind(spec.training_file.as_str());
    let Some(file) = file.fetch_optional(&mut *db).await? else { return Ok(None) };
    let report: Option<DatasetReport> = from_json_opt(&file, "report")?;
    let base: ModelInfo = from_json(&base, "info")?;
    let there: i64 = sqlx::query_scalar("select coalesce(sum(size_bytes), 0) from checkpoints where job_id = ?")
        .bind(job.id.as_str())
        .fetch_one(&mut *db)
        .await?;
    Ok(report.map(|report| {
        let n_done = job.progress.map_or(0, |(n_done, _)| n_done);
        let most = needed_disk_bytes(spec, &base, report.n_pairs);
        // What lies there already it needs no more, and what has gone of it since it does not write again.
        let left = disk_bytes_after(spec, &base, report.n_pairs, n_done);
        Need { most, more: left.min(most.saturating_sub(there as u64)) }
    }))
}
