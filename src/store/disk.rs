//! Whether disk is free for a job, as far as its rows tell what its checkpoints will take.

use sqlx::SqliteConnection;

use super::{
    Result, StoreError,
    column::{from_json, from_json_opt},
    history, jobs,
};
use crate::domain::{DatasetReport, JobId, JobSpec, Level, ModelInfo, needed_disk_bytes};

/// Whether a job needs no more than `free_bytes` and anything at all is free; if it does, its row and its history say that it waits.
pub(super) async fn fits(db: &mut SqliteConnection, id: &JobId, free_bytes: u64) -> Result<bool> {
    let job = jobs::job(db, id).await?;
    let there: i64 = sqlx::query_scalar("select coalesce(sum(size_bytes), 0) from checkpoints where job_id = ?")
        .bind(id.as_str())
        .fetch_one(&mut *db)
        .await?;
    // What a resumed job has on the disk already it needs no more.
    let needed = needed(db, &job.spec).await?.unwrap_or(0).saturating_sub(there as u64).max(1);
    if needed <= free_bytes {
        if job.standing.waits_for_disk_bytes.is_some() {
            let statement = sqlx::query("update jobs set waits_for_disk_bytes = null where id = ?");
            statement.bind(id.as_str()).execute(db).await?;
        }
        return Ok(true);
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
    Ok(false)
}

/// What its checkpoints take, if its base and its training file are still there.
async fn needed(db: &mut SqliteConnection, spec: &JobSpec) -> Result<Option<u64>> {
    let base = sqlx::query("select info from models where id = ? and info is not null").bind(spec.model.as_str());
    let Some(base) = base.fetch_optional(&mut *db).await? else { return Ok(None) };
    let file = sqlx::query("select report from files where id = ?").bind(spec.training_file.as_str());
    let Some(file) = file.fetch_optional(&mut *db).await? else { return Ok(None) };
    let report: Option<DatasetReport> = from_json_opt(&file, "report")?;
    let base: ModelInfo = from_json(&base, "info")?;
    Ok::<_, StoreError>(report.map(|report| needed_disk_bytes(spec, &base, report.n_pairs)))
}
