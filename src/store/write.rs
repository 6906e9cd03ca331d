//! A transaction that writes, and tells when it has.

use std::ops::{Deref, DerefMut};

use sqlx::{Sqlite, SqliteConnection, Transaction};
use tokio::sync::watch;

/// A transaction that writes. Dropped without a commit it changes nothing, and nobody is told.
pub(super) struct Write {
    tx: Transaction<'static, Sqlite>,
    changed: watch::Sender<()>,
}

impl Write {
    /// Of a transaction that has the write lock.
    pub(super) fn new(tx: Transaction<'static, Sqlite>, changed: watch::Sender<()>) -> Self {
        Self { tx, changed }
    }

    /// Makes it so, and tells whoever waits for news.
    pub(super) async fn commit(self) -> sqlx::Result<()> {
        self.tx.commit().await?;
        self.changed.send_replace(());
        Ok(())
    }
}

impl Deref for Write {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.tx
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }
}
