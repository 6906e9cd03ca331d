//! Webhooks: their rows, and their secrets, which only a delivery takes out again.

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Page, Result, Store, StoreError,
    column::{from_json, json, parsed},
    deliveries,
    owners::{ownership, seen},
};
use crate::domain::{Disabled, HttpAddress, UserName, Viewer, Webhook, WebhookChange, WebhookId, WebhookSecret};

/// Why a webhook is disabled that somebody has disabled.
const BY_REQUEST: &str = "it was disabled by a request";

impl Store {
    /// Adds a webhook.
    ///
    /// # Errors
    /// [`StoreError::TooMany`] when its owner has as many as one may have.
    pub async fn insert_webhook(&self, webhook: &Webhook, secret: &WebhookSecret) -> Result<()> {
        let mut tx = self.write().await?;
        let owner = webhook.ownership.owner.as_ref().map(UserName::as_str);
        let n: i64 = sqlx::query_scalar("select count(*) from webhooks where owner is ?")
            .bind(owner)
            .fetch_one(&mut *tx)
            .await?;
        if n >= Webhook::MAX_PER_OWNER as i64 {
            return Err(StoreError::TooMany {
                kind: "webhooks of yours",
                max: Webhook::MAX_PER_OWNER,
                way_out: "delete one you no longer need (DELETE /v1/webhook_endpoints/{id})",
            });
        }
        sqlx::query(
            "insert into webhooks (id, name, url, event_types, secret, created_at, updated_at, owner, is_shared)
             values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(webhook.id.as_str())
        .bind(&webhook.name)
        .bind(webhook.url.as_str())
        .bind(json(&webhook.event_types))
        .bind(secret.reveal())
        .bind(webhook.created_at)
        .bind(webhook.updated_at)
        .bind(owner)
        .bind(webhook.ownership.is_shared)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// A webhook.
    pub async fn webhook(&self, id: &WebhookId) -> Result<Webhook> {
        webhook(&mut *self.pool.acquire().await?, id).await
    }

    /// The webhooks they may see, newest first.
    pub async fn webhooks(&self, viewer: &Viewer, after: Option<&WebhookId>, limit: usize) -> Result<Page<Webhook>> {
        let after: Option<i64> = match after {
            None => None,
            Some(id) => {
                let seq = sqlx::query_scalar(concat!("select seq from webhooks where id = ?2 and ", seen!()))
                    .bind(viewer.name())
                    .bind(id.as_str())
                    .fetch_optional(&self.pool)
                    .await?;
                Some(seq.ok_or_else(|| StoreError::UnknownAfter { kind: "webhook", id: id.to_string() })?)
            }
        };
        let rows = sqlx::query(concat!(
            "select * from webhooks where seq < coalesce(?2, 9223372036854775807) and ",
            seen!(),
            " order by seq desc limit ?3"
        ))
        .bind(viewer.name())
        .bind(after)
        .bind(Page::<Webhook>::n_rows(limit))
        .fetch_all(&self.pool)
        .await?;
        Page::cut(rows.iter().map(from_row), limit)
    }

    /// Changes a webhook at `now`, in Unix seconds. What one that is disabled was still to be told is given up.
    pub async fn change_webhook(&self, id: &WebhookId, change: &WebhookChange, now: i64) -> Result<Webhook> {
        let mut tx = self.write().await?;
        let before = webhook(&mut tx, id).await?;
        sqlx::query(
            "update webhooks set name = coalesce(?, name), url = coalesce(?, url),
                 event_types = coalesce(?, event_types) where id = ?",
        )
        .bind(&change.name)
        .bind(change.url.as_ref().map(HttpAddress::as_str))
        .bind(change.event_types.as_ref().map(json))
        .bind(id.as_str())
        .execute(&mut *tx)
        .await?;
        match (change.is_disabled, &before.disabled) {
            (Some(true), None) => disable(&mut tx, id, BY_REQUEST, now).await?,
            (Some(false), Some(_)) => {
                sqlx::query("update webhooks set disabled_at = null, disabled_reason = null where id = ?")
                    .bind(id.as_str())
                    .execute(&mut *tx)
                    .await?;
            }
            _ => {}
        }
        let mut after = webhook(&mut tx, id).await?;
        if after != before {
            after.updated_at = now;
            touch(&mut tx, id, now).await?;
        }
        tx.commit().await?;
        Ok(after)
    }

    /// Gives a webhook another secret at `now`. The one before signs beside it until `old_until`, if that is given; both are Unix seconds.
    pub async fn rotate_webhook_secret(
        &self,
        id: &WebhookId,
        secret: &WebhookSecret,
        old_until: Option<i64>,
        now: i64,
    ) -> Result<Webhook> {
        let mut tx = self.write().await?;
        sqlx::query(
            "update webhooks set old_secret = iif(?1 is null, null, secret), old_secret_until = ?1, secret = ?2
             where id = ?3",
        )
        .bind(old_until)
        .bind(secret.reveal())
        .bind(id.as_str())
        .execute(&mut *tx)
        .await?;
        touch(&mut tx, id, now).await?;
        let webhook = webhook(&mut tx, id).await?;
        tx.commit().await?;
        Ok(webhook)
    }

    /// Deletes a webhook, and with it what was sent to it and what was still to be.
    pub async fn delete_webhook(&self, id: &WebhookId) -> Result<()> {
        let deleted = sqlx::query("delete from webhooks where id = ?").bind(id.as_str()).execute(&self.pool).await?;
        if deleted.rows_affected() == 0 { Err(not_found(id)) } else { Ok(()) }
    }
}

/// A webhook.
pub(super) async fn webhook(db: &mut SqliteConnection, id: &WebhookId) -> Result<Webhook> {
    let row = sqlx::query("select * from webhooks where id = ?").bind(id.as_str()).fetch_optional(db).await?;
    from_row(&row.ok_or_else(|| not_found(id))?)
}

/// From here on it is told nothing; what was waiting is given up.
pub(super) async fn disable(db: &mut SqliteConnection, id: &WebhookId, reason: &str, now: i64) -> Result<()> {
    sqlx::query("update webhooks set disabled_at = ?, disabled_reason = ? where id = ?")
        .bind(now)
        .bind(reason)
        .bind(id.as_str())
        .execute(&mut *db)
        .await?;
    deliveries::give_up_pending(db, id, now).await
}

/// What signs at `now`.
pub(super) async fn secrets(db: &mut SqliteConnection, id: &WebhookId, now: i64) -> Result<Vec<WebhookSecret>> {
    let row =
        sqlx::query("select secret, iif(old_secret_until > ?, old_secret, null) as old from webhooks where id = ?")
            .bind(now)
            .bind(id.as_str())
            .fetch_one(db)
            .await?;
    let old = row.try_get::<Option<&str>, _>("old")?.map(read_secret).transpose()?;
    Ok([read_secret(row.try_get("secret")?)?].into_iter().chain(old).collect())
}

async fn touch(db: &mut SqliteConnection, id: &WebhookId, now: i64) -> Result<()> {
    sqlx::query("update webhooks set updated_at = ? where id = ?").bind(now).bind(id.as_str()).execute(db).await?;
    Ok(())
}

fn not_found(id: &WebhookId) -> StoreError {
    StoreError::NotFound { kind: "webhook", id: id.to_string() }
}

/// The text itself stands in no error.
fn read_secret(text: &str) -> Result<WebhookSecret> {
    let unreadable = || StoreError::Decode { what: "secret", source: "it is not whsec_ and base64".into() };
    WebhookSecret::kept(text).ok_or_else(unreadable)
}

fn from_row(row: &SqliteRow) -> Result<Webhook> {
    let disabled = match row.try_get::<Option<i64>, _>("disabled_at")? {
        Some(at) => Some(Disabled { at, reason: row.try_get("disabled_reason")? }),
        None => None,
    };
    Ok(Webhook {
        id: parsed(row, "id")?,
        name: row.try_get("name")?,
        url: parsed(row, "url")?,
        event_types: from_json(row, "event_types")?,
        secret_hint: read_secret(row.try_get("secret")?)?.hint(),
        disabled,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        ownership: ownership(row)?,
    })
}
