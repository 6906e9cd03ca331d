//! Deliveries to webhooks: written with the end of a job, claimed one by one, ended or put off by what became of an attempt.

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Page, Result, Store, StoreError,
    column::{from_word, parsed, parsed_opt, word},
    unix_now, webhooks,
};
use crate::domain::{
    Attempt, Delivery, DeliveryStatus, DueDelivery, JobId, JobStatus, WebhookEvent, WebhookEventId, WebhookEventType,
    WebhookId,
};

/// After how many seconds an attempt that nobody has told the end of counts as broken off: longer than any takes.
const CLAIM_S: i64 = 60;
/// How many attempts to webhooks of one person may be under way, so that nobody holds all senders. Nobody's webhooks are as one person's.
const MAX_CLAIMS_PER_OWNER: i64 = 3;
/// Whether a webhook's owner has a key that works at `?1`; nobody needs one.
macro_rules! owner_has_a_key {
    () => {
        "(webhooks.owner is null
             or exists (select 1 from api_keys where user = webhooks.owner and revoked_at is null
                            and (expires_at is null or expires_at > ?1)))"
    };
}
/// How many tests of one webhook may wait to be sent.
const MAX_TESTS: u64 = 5;

impl Store {
    /// Takes the delivery that is due longest at `now`, in Unix seconds; of one webhook one at a time, of one person a few. Whoever takes it
    /// tells the end of the attempt by [`Store::end_attempt`]; if nobody does, it is due again. None of an owner without a key that works.
    pub async fn claim_delivery(&self, now: i64) -> Result<Option<DueDelivery>> {
        const DUE: &str = concat!(
            "select due.seq from webhook_deliveries due join webhooks on webhooks.id = due.webhook_id
             where due.status = 'pending' and next_attempt_at <= ?1 and disabled_at is null
                 and not exists (select 1 from webhook_deliveries other
                                 where other.webhook_id = due.webhook_id and other.claimed_at > ?2)
                 and (select count(*) from webhook_deliveries other join webhooks theirs on theirs.id = other.webhook_id
                      where other.claimed_at > ?2 and theirs.owner is webhooks.owner) < ?3
                 and ",
            owner_has_a_key!(),
            " order by next_attempt_at, due.seq limit 1"
        );
        // Asked without the write lock first: this is called several times a second and mostly in vain.
        let due = || sqlx::query_scalar::<_, i64>(DUE).bind(now).bind(now - CLAIM_S).bind(MAX_CLAIMS_PER_OWNER);
        if due().fetch_optional(&self.pool).await?.is_none() {
            return Ok(None);
        }
        let mut tx = self.write().await?;
        let Some(seq) = due().fetch_optional(&mut *tx).await? else { return Ok(None) };
        let row = sqlx::query(
            "update webhook_deliveries set claimed_at = ?, n_attempts = n_attempts + 1 where seq = ? returning *",
        )
        .bind(now)
        .bind(seq)
        .fetch_one(&mut *tx)
        .await?;
        let id: WebhookId = parsed(&row, "webhook_id")?;
        let webhook = webhooks::webhook(&mut tx, &id).await?;
        let secrets = webhooks::secrets(&mut tx, &id, now).await?;
        let delivery = from_row(&row)?;
        tx.commit().await?;
        let due_at = row.try_get("next_attempt_at")?;
        let (event, n_attempts) = (delivery.event, delivery.n_attempts);
        Ok(Some(DueDelivery { event, webhook: id, url: webhook.url, secrets, n_attempts, due_at }))
    }

    /// Has what was under way sent again at once: whoever began it is gone. Only for a worker that begins, because there is one per
    /// data directory.
    pub async fn release_deliveries(&self) -> Result<()> {
        sqlx::query("update webhook_deliveries set claimed_at = null where claimed_at is not null")
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Records what became of an attempt at `now`, in Unix seconds. One that has been taken for broken off has no say any more. What
    /// was to be sent again meanwhile ([`Store::retry_delivery`]) stays due, and an address that is the webhook's no longer ends nothing.
    pub async fn end_attempt(&self, due: &DueDelivery, attempt: &Attempt, now: i64) -> Result<()> {
        let mut tx = self.write().await?;
        let url: Option<String> = sqlx::query_scalar("select url from webhooks where id = ?")
            .bind(due.webhook.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        let is_gone = attempt.is_gone() && url.as_deref() == Some(due.url.as_str());
        let (status, next) = match (&attempt.error, due.again_at(attempt.asked_s, now)) {
            (None, _) => (DeliveryStatus::Delivered, None),
            (Some(_), Some(at)) if !is_gone => (DeliveryStatus::Pending, Some(at)),
            (Some(_), _) => (DeliveryStatus::Failed, None),
        };
        // One that was given up meanwhile stays so, unless it has arrived.
        let changed = sqlx::query(
            "update webhook_deliveries set claimed_at = null, status_code = ?1, error = ?2,
                 status = case when status = 'pending' and next_attempt_at <> ?9 then 'pending'
                               when status = 'pending' or ?3 = 'delivered' then ?3 else status end,
                 ended_at = case when status = 'pending' and (next_attempt_at <> ?9 or ?3 = 'pending') then null
                                 when status = 'pending' or ?3 = 'delivered' then ?5 else ended_at end,
                 next_attempt_at = iif(next_attempt_at = ?9, coalesce(?4, ?9), next_attempt_at)
             where event_id = ?6 and webhook_id = ?7 and n_attempts = ?8 and claimed_at is not null",
        )
        .bind(attempt.status_code)
        .bind(&attempt.error)
        .bind(status.as_str())
        .bind(next)
        .bind(now)
        .bind(due.event.id.as_str())
        .bind(due.webhook.as_str())
        .bind(due.n_attempts)
        .bind(due.due_at)
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if changed > 0 && is_gone {
            webhooks::disable(&mut tx, &due.webhook, "it has answered that it is gone (410)", now).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// A webhook's deliveries, newest first.
    pub async fn deliveries(
        &self,
        webhook: &WebhookId,
        after: Option<&WebhookEventId>,
        limit: usize,
    ) -> Result<Page<Delivery>> {
        let mut db = self.pool.acquire().await?;
        webhooks::webhook(&mut db, webhook).await?;
        let after: Option<i64> = match after {
            None => None,
            Some(id) => {
                let seq =
                    sqlx::query_scalar("select seq from webhook_deliveries where webhook_id = ? and event_id = ?")
                        .bind(webhook.as_str())
                        .bind(id.as_str())
                        .fetch_optional(&mut *db)
                        .await?;
                Some(seq.ok_or_else(|| StoreError::UnknownAfter { kind: "delivery", id: id.to_string() })?)
            }
        };
        let rows = sqlx::query(
            "select * from webhook_deliveries where webhook_id = ?1 and seq < coalesce(?2, 9223372036854775807)
             order by seq desc limit ?3",
        )
        .bind(webhook.as_str())
        .bind(after)
        .bind(Page::<Delivery>::n_rows(limit))
        .fetch_all(&mut *db)
        .await?;
        Page::cut(rows.iter().map(from_row), limit)
    }

    /// The delivery of an event to a webhook.
    pub async fn delivery(&self, webhook: &WebhookId, event: &WebhookEventId) -> Result<Delivery> {
        delivery(&mut *self.pool.acquire().await?, webhook, event).await
    }

    /// Adds a test, to be sent at once.
    ///
    /// # Errors
    /// [`StoreError::TooMany`] when as many of this webhook wait as may; [`StoreError::Unusable`] when it is disabled.
    pub async fn insert_test(&self, webhook: &WebhookId, event: &WebhookEvent) -> Result<()> {
        let mut tx = self.write().await?;
        refuse_disabled(&mut tx, webhook).await?;
        let n: i64 = sqlx::query_scalar(
            "select count(*) from webhook_deliveries where webhook_id = ? and status = 'pending' and job_id is null",
        )
        .bind(webhook.as_str())
        .fetch_one(&mut *tx)
        .await?;
        if n >= MAX_TESTS as i64 {
            return Err(StoreError::TooMany {
                kind: "tests of this webhook on their way",
                max: MAX_TESTS,
                way_out: "wait for one to end (GET /v1/webhook_endpoints/{id}/deliveries)",
            });
        }
        sqlx::query(
            "insert into webhook_deliveries (event_id, webhook_id, event_type, status, created_at, next_attempt_at)
             values (?1, ?2, ?3, 'pending', ?4, ?4)",
        )
        .bind(event.id.as_str())
        .bind(webhook.as_str())
        .bind(word(&event.event_type))
        .bind(event.created_at)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Has a delivery sent at `now`, in Unix seconds, however it stands: once more, if it has ended or an attempt is under way. That one
    /// knows it by another time than it was due at.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when its webhook is disabled.
    pub async fn retry_delivery(&self, webhook: &WebhookId, event: &WebhookEventId, now: i64) -> Result<Delivery> {
        let mut tx = self.write().await?;
        refuse_disabled(&mut tx, webhook).await?;
        sqlx::query(
            "update webhook_deliveries set status = 'pending', ended_at = null,
                 next_attempt_at = iif(claimed_at is not null and next_attempt_at = ?1, ?1 + 1, ?1)
             where webhook_id = ?2 and event_id = ?3",
        )
        .bind(now)
        .bind(webhook.as_str())
        .bind(event.as_str())
        .execute(&mut *tx)
        .await?;
        let delivery = delivery(&mut tx, webhook, event).await?;
        tx.commit().await?;
        Ok(delivery)
    }

    /// Forgets deliveries that ended long before `now`, in Unix seconds. Returns how many.
    pub async fn expire_deliveries(&self, now: i64) -> Result<u64> {
        let forgotten = sqlx::query("delete from webhook_deliveries where status <> 'pending' and created_at <= ?")
            .bind(now - Delivery::KEPT_S)
            .execute(&self.pool)
            .await?;
        Ok(forgotten.rows_affected())
    }
}

/// Writes down what webhooks are to be told of a job that has come to this status: those whose owners may see it, as members and with a key
/// that works. In the transaction that changes the status, so that neither is there without the other.
pub(super) async fn announce(db: &mut SqliteConnection, job: &JobId, status: JobStatus) -> Result<()> {
    let Some(event_type) = WebhookEventType::of(status) else { return Ok(()) };
    let event = WebhookEvent::of_end(job, event_type, unix_now());
    sqlx::query(concat!(
        "insert into webhook_deliveries (event_id, webhook_id, event_type, job_id, status, created_at, next_attempt_at)
         select ?2, webhooks.id, ?3, jobs.id, 'pending', ?1, ?1 from jobs join webhooks
         where jobs.id = ?4 and disabled_at is null
             and exists (select 1 from json_each(event_types) where value = ?3)
             and (jobs.owner is null or jobs.is_shared or jobs.owner = webhooks.owner) and ",
        owner_has_a_key!(),
        " on conflict do nothing"
    ))
    .bind(event.created_at)
    .bind(event.id.as_str())
    .bind(word(&event_type))
    .bind(job.as_str())
    .execute(db)
    .await?;
    Ok(())
}

/// Gives up what a webhook was still to be told. An attempt under way may yet arrive.
pub(super) async fn give_up_pending(db: &mut SqliteConnection, webhook: &WebhookId, now: i64) -> Result<()> {
    sqlx::query(
        "update webhook_deliveries set status = 'failed', ended_at = ?, error = 'the webhook was disabled'
         where webhook_id = ? and status = 'pending'",
    )
    .bind(now)
    .bind(webhook.as_str())
    .execute(db)
    .await?;
    Ok(())
}

async fn refuse_disabled(db: &mut SqliteConnection, id: &WebhookId) -> Result<()> {
    let Some(disabled) = webhooks::webhook(db, id).await?.disabled else { return Ok(()) };
    let reason = format!(
        "it is disabled ({}): enable it first (POST /v1/webhook_endpoints/{id} with {{\"disabled\": false}})",
        disabled.reason
    );
    Err(StoreError::Unusable { kind: "webhook", id: id.to_string(), reason })
}

async fn delivery(db: &mut SqliteConnection, webhook: &WebhookId, event: &WebhookEventId) -> Result<Delivery> {
    let row = sqlx::query("select * from webhook_deliveries where webhook_id = ? and event_id = ?")
        .bind(webhook.as_str())
        .bind(event.as_str())
        .fetch_optional(db)
        .await?;
    from_row(&row.ok_or_else(|| StoreError::NotFound { kind: "delivery", id: event.to_string() })?)
}

fn from_row(row: &SqliteRow) -> Result<Delivery> {
    let status: DeliveryStatus = from_word(row, "status")?;
    let next_attempt_at: i64 = row.try_get("next_attempt_at")?;
    Ok(Delivery {
        event: WebhookEvent {
            id: parsed(row, "event_id")?,
            event_type: from_word(row, "event_type")?,
            job: parsed_opt(row, "job_id")?,
            created_at: row.try_get("created_at")?,
        },
        status,
        n_attempts: row.try_get("n_attempts")?,
        next_attempt_at: (status == DeliveryStatus::Pending).then_some(next_attempt_at),
        status_code: row.try_get("status_code")?,
        error: row.try_get("error")?,
        ended_at: row.try_get("ended_at")?,
    })
}
