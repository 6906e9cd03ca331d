//! What one user has of what is limited per user: jobs that wait, jobs that run, bytes on disk.

use sqlx::SqliteConnection;

use super::{Result, Store, StoreError};
use crate::domain::UserName;

impl Store {
    /// Bytes that somebody's files, checkpoints and exports take: summed from rows, the disk is not asked.
    pub async fn disk_bytes(&self, owner: &UserName) -> Result<u64> {
        let bytes: i64 = sqlx::query_scalar(
            "select coalesce((select sum(size_bytes) from files where owner = ?1), 0)
                  + coalesce((select sum(size_bytes) from checkpoints
                              where job_id in (select id from jobs where owner = ?1)), 0)
                  + coalesce((select sum(json_extract(file.value, '$.size_bytes'))
                              from exports, json_each(result, '$.files') file
                              where owner = ?1 and status = 'ready'), 0)",
        )
        .bind(owner.as_str())
        .fetch_one(&self.pool)
        .await?;
        Ok(bytes as u64)
    }

    /// Bytes of somebody's uploads in parts that are under way at `now`, in Unix seconds: what was announced, whatever has arrived.
    pub async fn announced_bytes(&self, owner: &UserName, now: i64) -> Result<u64> {
        let bytes: i64 = sqlx::query_scalar(
            "select coalesce(sum(size_bytes), 0) from uploads where owner = ? and status = 'pending' and expires_at > ?",
        )
        .bind(owner.as_str())
        .bind(now)
        .fetch_one(&self.pool)
        .await?;
        Ok(bytes as u64)
    }

    /// How many jobs of somebody wait: for a check, a slot or their user; and how many have a slot.
    pub async fn count_of_user(&self, owner: &UserName) -> Result<(u64, u64)> {
        let (waiting, running): (i64, i64) = sqlx::query_as(
            "select (select count(*) from jobs where owner = ?1 and status in ('validating_files', 'queued', 'paused')),
                    (select count(*) from runs join jobs on jobs.id = runs.job_id
                     where lease_owner is not null and slot is not null and owner = ?1)",
        )
        .bind(owner.as_str())
        .fetch_one(&self.pool)
        .await?;
        Ok((waiting as u64, running as u64))
    }
}

/// Refuses one more job of somebody of whom as many wait as may.
pub(super) async fn check_room(db: &mut SqliteConnection, owner: &UserName, max: u32) -> Result<()> {
    let n: i64 = sqlx::query_scalar(
        "select count(*) from jobs where owner = ? and status in ('validating_files', 'queued', 'paused')",
    )
    .bind(owner.as_str())
    .fetch_one(db)
    .await?;
    if n < i64::from(max) { Ok(()) } else { Err(StoreError::TooManyWaiting { owner: owner.to_string(), max }) }
}
