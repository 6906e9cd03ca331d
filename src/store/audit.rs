//! Who changed what: one row for every request that may have changed something. It holds ids and statuses, never a content.

use sqlx::{Row, sqlite::SqliteRow};

use super::{Page, Result, Store, column::parsed_opt, unix_now};
use crate::domain::{Caller, KeyId, UserName};

/// The newest entries that are kept.
const MAX_ENTRIES: i64 = 1_000_000;

/// What is to be noted of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditNote<'a> {
    /// Who asked.
    pub caller: &'a Caller,
    /// Method and route.
    pub action: &'a str,
    /// The id in the address.
    pub subject: Option<&'a str>,
    /// HTTP status of the answer.
    pub status: u16,
    /// As in the answer's `x-request-id` and in the log.
    pub request_id: &'a str,
}

/// What was noted of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its place in the log; later is larger.
    pub seq: i64,
    /// Unix time in seconds.
    pub at: i64,
    /// Whose key was shown; none where nobody is asked for one.
    pub user: Option<UserName>,
    /// The key.
    pub key: Option<KeyId>,
    /// Method and route.
    pub action: String,
    /// The id in the address.
    pub subject: Option<String>,
    /// HTTP status of the answer.
    pub status: u16,
    /// As in the answer's `x-request-id` and in the log.
    pub request_id: String,
}

impl Store {
    /// Notes what somebody did.
    pub async fn note(&self, note: &AuditNote<'_>) -> Result<()> {
        let mut tx = self.write().await?;
        let seq = sqlx::query(
            "insert into audit (at, user, key_id, action, subject, status, request_id) values (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(unix_now())
        .bind(note.caller.user.as_ref().map(UserName::as_str))
        .bind(note.caller.key.as_ref().map(KeyId::as_str))
        .bind(note.action)
        .bind(note.subject)
        .bind(i64::from(note.status))
        .bind(note.request_id)
        .execute(&mut *tx)
        .await?
        .last_insert_rowid();
        sqlx::query("delete from audit where seq <= ?").bind(seq - MAX_ENTRIES).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The log, newest first, of one person only where one is named; `before` is the last entry of the page before.
    pub async fn audit(&self, user: Option<&UserName>, before: Option<i64>, limit: usize) -> Result<Page<AuditEntry>> {
        let rows = sqlx::query(
            "select * from audit where seq < coalesce(?1, 9223372036854775807) and (?2 is null or user = ?2)
             order by seq desc limit ?3",
        )
        .bind(before)
        .bind(user.map(UserName::as_str))
        .bind(Page::<AuditEntry>::n_rows(limit))
        .fetch_all(&self.pool)
        .await?;
        Page::cut(rows.iter().map(from_row), limit)
    }
}

fn from_row(row: &SqliteRow) -> Result<AuditEntry> {
    Ok(AuditEntry {
        seq: row.try_get("seq")?,
        at: row.try_get("at")?,
        user: parsed_opt(row, "user")?,
        key: parsed_opt(row, "key_id")?,
        action: row.try_get("action")?,
        subject: row.try_get("subject")?,
        status: row.try_get("status")?,
        request_id: row.try_get("request_id")?,
    })
}
