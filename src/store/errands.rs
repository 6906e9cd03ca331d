//! Errands: runs that need no device. Each is for a row of a table of its own, which is `pending` until a run is done with it; they
//! are claimed, some at a time, and end, all in the same way.

use sqlx::{AssertSqlSafe, SqliteConnection};

use super::{Lease, Result, Run, RunEnd, Store, column::json, runs};
use crate::domain::{Failure, FailureCode, RunId};

/// What an errand is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// To fetch a model and find out what it is.
    Registration,
    /// To answer a question about a model.
    Inspection,
    /// To write a model for other programs.
    Export,
}

/// The table of a kind's rows.
struct Table {
    name: &'static str,
    /// The column of `runs` that names its rows.
    in_runs: &'static str,
    /// Where a run notes what it has found: a row without it cannot end well.
    result: &'static str,
    /// What a good end sets.
    well: &'static str,
    /// What a bad end sets.
    badly: &'static str,
}

impl Errand {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Registration, Self::Inspection, Self::Export];

    const fn table(self) -> Table {
        match self {
            Self::Registration => Table {
                name: "models",
                in_runs: "model_id",
                result: "info",
                well: "status = 'ready'",
                badly: "status = 'error'",
            },
            Self::Inspection => Table {
                name: "inspections",
                in_runs: "inspection_id",
                result: "result",
                well: "status = 'done'",
                badly: "status = 'failed'",
            },
            Self::Export => Table {
                name: "exports",
                in_runs: "export_id",
                result: "result",
                well: "status = 'ready', finished_at = unixepoch()",
                badly: "status = 'error', finished_at = unixepoch()",
            },
        }
    }
}

impl Store {
    /// Takes the oldest errand of this kind that nobody runs, unless `max_at_once` of them are being run already.
    pub async fn claim_errand(&self, errand: Errand, lease: &Lease<'_>, max_at_once: u16) -> Result<Option<Run>> {
        let Table { name, in_runs, .. } = errand.table();
        let waiting = || {
            ours(format!(
                "select {name}.id from {name} left join runs on {in_runs} = {name}.id
                 where {name}.status = 'pending' and lease_owner is null order by {name}.seq limit 1"
            ))
        };
        // Asked without the write lock first: this is called several times a second and mostly in vain.
        if sqlx::query(waiting()).fetch_optional(&self.pool).await?.is_none() {
            return Ok(None);
        }
        let mut tx = self.write().await?;
        let going = format!("select count(*) from runs where lease_owner is not null and {in_runs} is not null");
        let n_going: i64 = sqlx::query_scalar(ours(going)).fetch_one(&mut *tx).await?;
        if n_going >= i64::from(max_at_once) {
            return Ok(None);
        }
        let Some(id) = sqlx::query_scalar::<_, String>(waiting()).fetch_optional(&mut *tx).await? else {
            return Ok(None);
        };
        let claim = format!(
            "insert into runs (run_id, {in_runs}, n_attempts, lease_owner, lease_expires_at) values (?, ?, 1, ?, ?)
             on conflict ({in_runs}) do update set n_attempts = n_attempts + 1, lease_owner = excluded.lease_owner,
                 lease_expires_at = excluded.lease_expires_at
             returning *"
        );
        let row = sqlx::query(ours(claim))
            .bind(RunId::new().as_str())
            .bind(id)
            .bind(lease.owner)
            .bind(lease.expires_at)
            .fetch_one(&mut *tx)
            .await?;
        let run = runs::from_row(&row)?;
        tx.commit().await?;
        Ok(Some(run))
    }
}

/// Statements of this file are made of its own words alone.
fn ours(statement: String) -> AssertSqlSafe<String> {
    AssertSqlSafe(statement)
}

/// Records how the run of an errand has ended. Its row may be gone, or done with: then nothing changes.
pub(super) async fn end(db: &mut SqliteConnection, run: &Run, errand: Errand, id: &str, end: &RunEnd) -> Result<()> {
    let Table { name, result, well, badly, .. } = errand.table();
    let failure = match (end, errand) {
        (RunEnd::Succeeded { .. }, _) => {
            let succeed =
                format!("update {name} set {well} where id = ? and status = 'pending' and {result} is not null");
            if sqlx::query(ours(succeed)).bind(id).execute(&mut *db).await?.rows_affected() == 1 {
                return Ok(());
            }
            Failure::new(FailureCode::Internal, "the run ended well but did not say what it was for")
        }
        // A question is asked once: whoever waits would rather ask again than wait longer.
        (RunEnd::Stopped { .. }, Errand::Inspection) => {
            Failure::new(FailureCode::RunDied, "the inspection was stopped: ask again")
        }
        // Still pending: it is begun again.
        (RunEnd::Stopped { .. }, _) => return Ok(()),
        (RunEnd::Died { max_deaths, .. }, Errand::Registration | Errand::Export)
            if runs::one_more_death(db, &run.id).await? < *max_deaths =>
        {
            return Ok(());
        }
        (RunEnd::Failed(failure) | RunEnd::Died { failure, .. } | RunEnd::Interrupted { failure }, _) => {
            failure.clone()
        }
    };
    let fail = format!("update {name} set {badly}, error = ? where id = ? and status = 'pending'");
    sqlx::query(ours(fail)).bind(json(&failure)).bind(id).execute(db).await?;
    Ok(())
}
