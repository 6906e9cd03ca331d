//! Whether memory is free for a job, as far as the models' rows tell what it needs.

use sqlx::SqliteConnection;

use super::{Result, column::from_json, history, jobs};
use crate::domain::{JobId, JobSpec, Level, ModelInfo, needed_bytes};

/// Whether a job needs no more than `free_bytes`, or more than `held_up_to`; if not, its row and its history say that it waits for them.
pub(super) async fn fits(db: &mut SqliteConnection, id: &JobId, free_bytes: u64, held_up_to: u64) -> Result<bool> {
    let job = jobs::job(db, id).await?;
    let lacks = |needed: &u64| *needed > free_bytes && *needed <= held_up_to;
    let Some(needed) = needed(db, id, &job.spec).await?.filter(lacks) else { return Ok(true) };
    if job.standing.waits_for_bytes.is_none() {
        sqlx::query("update jobs set waits_for_bytes = ? where id = ?")
            .bind(i64::try_from(needed).unwrap_or(i64::MAX))
            .bind(id.as_str())
            .execute(&mut *db)
            .await?;
        let said = "The job is next and waits for memory: it starts as soon as enough is free";
        history::insert_message(db, id, Level::Info, said).await?;
    }
    Ok(false)
}

/// What a job needs, if its models are still there.
async fn needed(db: &mut SqliteConnection, id: &JobId, spec: &JobSpec) -> Result<Option<u64>> {
    let rows = sqlx::query(
        "select models.id, info from job_models join models on models.id = model_id
         where job_models.job_id = ? and info is not null",
    )
    .bind(id.as_str())
    .fetch_all(db)
    .await?;
    let models = rows.iter().map(|row| Ok((sqlx::Row::try_get::<&str, _>(row, "id")?, from_json(row, "info")?)));
    let models: Vec<(&str, ModelInfo)> = models.collect::<Result<_>>()?;
    let base = models.iter().find(|(id, _)| *id == spec.model.as_str()).map(|(_, info)| info.clone());
    let all: Vec<ModelInfo> = models.into_iter().map(|(_, info)| info).collect();
    Ok(base.map(|base| needed_bytes(spec, &base, &all)))
}
