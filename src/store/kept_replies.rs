//! Answers that are kept for a while, so that the same request sent again is not done twice.

use sqlx::Row;

use super::{Result, Store};

/// How many replies are kept of one caller; the oldest go first.
const MAX_OF_ONE_CALLER: u32 = 10_000;

/// Where a reply is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplySlot {
    /// Whose request it is: a user's name, or empty where nobody is asked for a key.
    pub caller: String,
    /// What names the request.
    pub key: String,
    /// Digest of the request: the same key with another is another request.
    pub fingerprint: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptReply {
    /// HTTP status.
    pub status: u16,
    /// Media type of the body.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

impl KeptReply {
    /// How long a reply is kept, in seconds.
    pub const KEPT_FOR_S: i64 = 24 * 3600;
}

/// What was found in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyClaim {
    /// Nothing: the request is the caller's to work on, and the slot is taken for it.
    Free,
    /// The same request, still being worked on.
    InProgress,
    /// Another request.
    OfAnother,
    /// The answer.
    Kept(KeptReply),
}

impl Store {
    /// Looks into a slot for what has been put there at or after `since`, in Unix seconds; takes it where there is nothing.
    pub async fn claim_reply(&self, slot: &ReplySlot, since: i64, now: i64) -> Result<ReplyClaim> {
        let mut tx = self.write().await?;
        let found = sqlx::query("select * from kept_replies where caller = ? and key = ? and created_at >= ?")
            .bind(&slot.caller)
            .bind(&slot.key)
            .bind(since.max(now - KeptReply::KEPT_FOR_S))
            .fetch_optional(&mut *tx)
            .await?;
        if let Some(row) = found {
            if row.try_get::<&str, _>("fingerprint")? != slot.fingerprint {
                return Ok(ReplyClaim::OfAnother);
            }
            return Ok(match row.try_get::<Option<u16>, _>("status")? {
                None => ReplyClaim::InProgress,
                Some(status) => ReplyClaim::Kept(KeptReply {
                    status,
                    content_type: row.try_get("content_type")?,
                    body: row.try_get("body")?,
                }),
            });
        }
        sqlx::query(
            "insert into kept_replies (caller, key, fingerprint, created_at) values (?, ?, ?, ?)
             on conflict (caller, key) do update set fingerprint = excluded.fingerprint, created_at = excluded.created_at,
                 status = null, content_type = null, body = null",
        )
        .bind(&slot.caller)
        .bind(&slot.key)
        .bind(&slot.fingerprint)
        .bind(now)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "delete from kept_replies where seq in (
                 select seq from kept_replies where caller = ? order by created_at desc, seq desc limit -1 offset ?)",
        )
        .bind(&slot.caller)
        .bind(MAX_OF_ONE_CALLER)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(ReplyClaim::Free)
    }

    /// Keeps the answer to the request that has taken a slot; none frees it, so that the request may be sent again.
    pub async fn keep_reply(&self, slot: &ReplySlot, reply: Option<&KeptReply>) -> Result<()> {
        let statement = match reply {
            Some(_) => {
                "update kept_replies set status = ?4, content_type = ?5, body = ?6
                 where caller = ?1 and key = ?2 and fingerprint = ?3 and status is null"
            }
            None => "delete from kept_replies where caller = ?1 and key = ?2 and fingerprint = ?3 and status is null",
        };
        let mut query = sqlx::query(statement).bind(&slot.caller).bind(&slot.key).bind(&slot.fingerprint);
        if let Some(reply) = reply {
            query = query.bind(reply.status).bind(&reply.content_type).bind(&reply.body);
        }
        query.execute(&self.pool).await?;
        Ok(())
    }

    /// Frees the slots of requests that a crash has cut off: nobody works on them any more.
    pub async fn free_unanswered(&self) -> Result<()> {
        sqlx::query("delete from kept_replies where status is null").execute(&self.pool).await?;
        Ok(())
    }

    /// Forgets replies that have been kept for long enough.
    pub async fn expire_replies(&self, now: i64) -> Result<u64> {
        let gone = sqlx::query("delete from kept_replies where created_at <= ?").bind(now - KeptReply::KEPT_FOR_S);
        Ok(gone.execute(&self.pool).await?.rows_affected())
    }
}
