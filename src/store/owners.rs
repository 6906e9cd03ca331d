//! To whom things belong: looked up in one way for all kinds.

use sqlx::{AssertSqlSafe, Row, sqlite::SqliteRow};

use super::{Result, Store, StoreError, column::parsed_opt};
use crate::domain::{ExportId, FileId, JobId, ModelId, Ownership, ReferenceListId, UploadId, WebhookId};

/// Something that belongs to somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owned {
    /// An uploaded file.
    File(FileId),
    /// A file on its way in.
    Upload(UploadId),
    /// A model.
    Model(ModelId),
    /// A list of references.
    ReferenceList(ReferenceListId),
    /// A job, with all its events, metrics and checkpoints.
    Job(JobId),
    /// A model written for other programs: whoever sees the model sees it.
    Export(ExportId),
    /// An address that is told when jobs have ended.
    Webhook(WebhookId),
}

impl Owned {
    /// Its kind in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Upload(_) => "upload",
            Self::Model(_) => "model",
            Self::ReferenceList(_) => "reference list",
            Self::Job(_) => "job",
            Self::Export(_) => "export",
            Self::Webhook(_) => "webhook",
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Self::File(id) => id.as_str(),
            Self::Upload(id) => id.as_str(),
            Self::Model(id) => id.as_str(),
            Self::ReferenceList(id) => id.as_str(),
            Self::Job(id) => id.as_str(),
            Self::Export(id) => id.as_str(),
            Self::Webhook(id) => id.as_str(),
        }
    }

    fn table(&self) -> &'static str {
        match self {
            Self::File(_) => "files",
            Self::Upload(_) => "uploads",
            Self::Model(_) => "models",
            Self::ReferenceList(_) => "reference_lists",
            Self::Job(_) => "jobs",
            Self::Export(_) => "exports",
            Self::Webhook(_) => "webhooks",
        }
    }

    fn not_found(&self) -> StoreError {
        StoreError::NotFound { kind: self.kind(), id: self.id().to_owned() }
    }
}

/// The condition that the viewer, who is bound as ?1, may see a row.
macro_rules! seen {
    () => {
        "(?1 is null or owner is null or owner = ?1 or is_shared)"
    };
}
pub(super) use seen;

impl Store {
    /// To whom something belongs.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn ownership(&self, thing: &Owned) -> Result<Ownership> {
        let statement = match thing {
            // Whoever sees the model sees what was exported of it.
            Owned::Export(_) => "select exports.owner, models.is_shared or models.owner is null as is_shared
                 from exports join models on models.id = model_id where exports.id = ? and exports.status <> 'deleted'"
                .to_owned(),
            other => format!("select owner, is_shared from {} where id = ?", other.table()),
        };
        // The names of tables are ours.
        let row = sqlx::query(AssertSqlSafe(statement)).bind(thing.id()).fetch_optional(&self.pool).await?;
        ownership(&row.ok_or_else(|| thing.not_found())?)
    }

    /// Lets the team see and use something, or no longer.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn share(&self, thing: &Owned, is_shared: bool) -> Result<()> {
        let statement = format!("update {} set is_shared = ? where id = ?", thing.table());
        let changed =
            sqlx::query(AssertSqlSafe(statement)).bind(is_shared).bind(thing.id()).execute(&self.pool).await?;
        if changed.rows_affected() == 0 {
            return Err(thing.not_found());
        }
        Ok(())
    }
}

/// Reads whose a row is.
pub(super) fn ownership(row: &SqliteRow) -> Result<Ownership> {
    Ok(Ownership { owner: parsed_opt(row, "owner")?, is_shared: row.try_get("is_shared")? })
}
