//! Keys: their digests, whose they are, and since when they do not work any more.

use sqlx::{Row, sqlite::SqliteRow};

use super::{
    Result, Store, StoreError,
    column::{from_word, parsed, word},
    unix_now,
};
use crate::domain::{ApiKey, KeyId, NewKey, Secret};

/// How exactly the last use of a key is known, in seconds: a write for every request would cost more than the request.
const LAST_USE_TO: i64 = 60;

impl Store {
    /// Makes a key. Only here is it ever whole.
    pub async fn create_key(&self, new: &NewKey) -> Result<(ApiKey, Secret)> {
        let secret = Secret::new();
        let row = sqlx::query(
            "insert into api_keys (id, user, role, scope, digest, prefix, created_at, expires_at)
             values (?, ?, ?, ?, ?, ?, ?, ?) returning *",
        )
        .bind(KeyId::new().as_str())
        .bind(new.user.as_str())
        .bind(word(&new.role))
        .bind(word(&new.scope))
        .bind(secret.digest())
        .bind(secret.prefix())
        .bind(unix_now())
        .bind(new.expires_at)
        .fetch_one(&self.pool)
        .await?;
        Ok((from_row(&row)?, secret))
    }

    /// The key that somebody shows, if it is one and works at `now`, in Unix seconds. Notes that it was used.
    pub async fn use_key(&self, secret: &Secret, now: i64) -> Result<Option<ApiKey>> {
        let row = sqlx::query("select * from api_keys where digest = ?")
            .bind(secret.digest())
            .fetch_optional(&self.pool)
            .await?;
        let Some(key) = row.as_ref().map(from_row).transpose()?.filter(|key| key.is_valid_at(now)) else {
            return Ok(None);
        };
        if key.last_used_at.is_none_or(|at| at + LAST_USE_TO <= now) {
            sqlx::query("update api_keys set last_used_at = ? where id = ?")
                .bind(now)
                .bind(key.id.as_str())
                .execute(&self.pool)
                .await?;
        }
        Ok(Some(key))
    }

    /// Whether a key that was shown before still works at `now`, in Unix seconds.
    pub async fn key_works(&self, id: &KeyId, now: i64) -> Result<bool> {
        let row =
            sqlx::query("select * from api_keys where id = ?").bind(id.as_str()).fetch_optional(&self.pool).await?;
        Ok(row.as_ref().map(from_row).transpose()?.is_some_and(|key| key.is_valid_at(now)))
    }

    /// Whether there has ever been a key: from then on everybody is asked for one.
    pub async fn has_keys(&self) -> Result<bool> {
        Ok(sqlx::query("select 1 from api_keys limit 1").fetch_optional(&self.pool).await?.is_some())
    }

    /// All keys, newest first; those that do not work any more too.
    pub async fn keys(&self) -> Result<Vec<ApiKey>> {
        let rows = sqlx::query("select * from api_keys order by seq desc").fetch_all(&self.pool).await?;
        rows.iter().map(from_row).collect()
    }

    /// Makes a key stop working, at once and for good. One that was revoked already stays as it is.
    pub async fn revoke_key(&self, id: &KeyId) -> Result<ApiKey> {
        let row = sqlx::query("update api_keys set revoked_at = coalesce(revoked_at, ?) where id = ? returning *")
            .bind(unix_now())
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await?;
        from_row(&row.ok_or_else(|| StoreError::NotFound { kind: "key", id: id.to_string() })?)
    }
}

fn from_row(row: &SqliteRow) -> Result<ApiKey> {
    Ok(ApiKey {
        id: parsed(row, "id")?,
        made: NewKey {
            user: parsed(row, "user")?,
            role: from_word(row, "role")?,
            scope: from_word(row, "scope")?,
            expires_at: row.try_get("expires_at")?,
        },
        prefix: row.try_get("prefix")?,
        created_at: row.try_get("created_at")?,
        last_used_at: row.try_get("last_used_at")?,
        revoked_at: row.try_get("revoked_at")?,
    })
}
