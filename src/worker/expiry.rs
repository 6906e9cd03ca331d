//! What goes by itself when its time is over: parts of uploads that have ended, files that were to be kept for so long, kept replies, and what webhooks were told.

use std::path::Path;

use super::{Result, Worker};
use crate::store::StoreError;

/// How often one looks, in seconds.
const INTERVAL_S: i64 = 5;
/// How many things are removed in one look; the rest has its turn in the next.
const MAX_AT_ONCE: u32 = 200;

impl Worker {
    /// Removes what is due. Of files the row goes first, so that none is seen without its content; of parts the content, so that a
    /// crash in between leaves nothing that nobody knows of.
    pub(super) async fn remove_expired(&mut self, now: i64) -> Result<bool> {
        if now - self.expired_at < INTERVAL_S {
            return Ok(false);
        }
        self.expired_at = now;
        let mut changed = self.store.expire_uploads(now).await? + self.store.expire_replies(now).await? > 0;
        changed |= self.store.expire_deliveries(now).await? > 0;
        for part in self.store.parts_left_over(MAX_AT_ONCE).await? {
            if remove(&self.config.data_dir.join("uploads").join(part.as_str())).await {
                self.store.forget_part(&part).await?;
                changed = true;
            }
        }
        for file in self.store.expired_files(now, MAX_AT_ONCE).await? {
            match self.store.delete_file(&file).await {
                Ok(_) => {
                    remove(&self.config.data_dir.join("files").join(file.as_str())).await;
                    tracing::info!(%file, "a file has expired and was deleted");
                    changed = true;
                }
                // A job was quicker, or its owner.
                Err(StoreError::InUse { .. } | StoreError::NotFound { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(changed)
    }
}

/// Removes a file; whether it is gone.
async fn remove(path: &Path) -> bool {
    match tokio::fs::remove_file(path).await {
        Ok(()) => true,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "what has expired could not be removed");
            false
        }
    }
}
