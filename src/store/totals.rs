//! The whole database in a few numbers, for whoever watches the server.

use super::{
    Result, Store,
    column::{count, from_word, parsed_opt},
};
use crate::domain::{JobStatus, UserName};

/// Jobs of one status and owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobCount {
    /// The status.
    pub status: JobStatus,
    /// Whose they are.
    pub owner: Option<UserName>,
    /// How many.
    pub n: u64,
}

/// Sums over everything that is still known.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Totals {
    /// Jobs by status and owner.
    pub jobs: Vec<JobCount>,
    /// Jobs that were started, and the seconds they had waited.
    pub waits: (u64, u64),
    /// Jobs that have ended, and the seconds from their start to their end.
    pub runs: (u64, u64),
    /// Tokens that jobs were trained on.
    pub n_trained_tokens: u64,
    /// References' scores that jobs found, and those they had computed.
    pub scores: (u64, u64),
    /// Slots that a run has.
    pub n_busy_slots: u64,
    /// By slot, how long the latest step of the job there took, in milliseconds.
    pub step_ms: Vec<(u16, f64)>,
}

impl Store {
    /// Counts. One pass over the jobs.
    pub async fn totals(&self) -> Result<Totals> {
        let mut tx = self.pool.begin().await?; // one view of it all
        let rows = sqlx::query("select status, owner, count(*) as n from jobs group by status, owner")
            .fetch_all(&mut *tx)
            .await?;
        let jobs = rows.iter().map(|row| {
            Ok(JobCount { status: from_word(row, "status")?, owner: parsed_opt(row, "owner")?, n: count(row, "n")? })
        });
        let jobs = jobs.collect::<Result<_>>()?;
        let row = sqlx::query(
            "select count(started_at) as n_waits, coalesce(sum(max(started_at - created_at, 0)), 0) as waited,
                    count(started_at + finished_at) as n_runs, coalesce(sum(max(finished_at - started_at, 0)), 0) as ran,
                    coalesce(sum(n_trained_tokens), 0) as n_tokens,
                    coalesce(sum(json_extract(reference_scores, '$.n_known')), 0) as n_known,
                    coalesce(sum(json_extract(reference_scores, '$.n_computed')), 0) as n_computed,
                    (select count(*) from runs where lease_owner is not null and slot is not null) as n_busy
             from jobs",
        )
        .fetch_one(&mut *tx)
        .await?;
        let step_ms = sqlx::query_as(
            r#"select slot, "values" ->> '$.step_duration_ms' from runs
               join metrics on metrics.job_id = runs.job_id and kind = 'training' and step =
                   (select max(step) from metrics last where last.job_id = runs.job_id and last.kind = 'training')
               where lease_owner is not null and slot is not null and "values" ->> '$.step_duration_ms' is not null
               order by slot"#,
        )
        .fetch_all(&mut *tx)
        .await?;
        Ok(Totals {
            step_ms,
            jobs,
            waits: (count(&row, "n_waits")?, count(&row, "waited")?),
            runs: (count(&row, "n_runs")?, count(&row, "ran")?),
            n_trained_tokens: count(&row, "n_tokens")?,
            scores: (count(&row, "n_known")?, count(&row, "n_computed")?),
            n_busy_slots: count(&row, "n_busy")?,
        })
    }
}
