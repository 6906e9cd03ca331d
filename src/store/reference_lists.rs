//! Named lists of references.

use sqlx::{Row, sqlite::SqliteRow};

use super::{
    Page, Result, Store, StoreError,
    column::{from_json, json, parsed},
    models,
    owners::{ownership, seen},
    unix_now,
};
use crate::domain::{Ownership, Reference, ReferenceList, ReferenceListId, UserName, Viewer};

impl Store {
    /// Adds a list, checked by the caller with [`crate::domain::validate_references`]; its models must exist.
    pub async fn insert_reference_list(
        &self,
        name: &str,
        references: &[Reference],
        ownership: &Ownership,
    ) -> Result<ReferenceList> {
        let list = ReferenceList {
            id: ReferenceListId::new(),
            name: name.to_owned(),
            references: references.to_vec(),
            created_at: unix_now(),
            ownership: ownership.clone(),
        };
        let mut tx = self.write().await?;
        for reference in references {
            models::model(&mut tx, &reference.model).await?;
        }
        sqlx::query(
            "insert into reference_lists (id, name, \"references\", created_at, owner, is_shared)
             values (?, ?, ?, ?, ?, ?)",
        )
        .bind(list.id.as_str())
        .bind(name)
        .bind(json(references))
        .bind(list.created_at)
        .bind(ownership.owner.as_ref().map(UserName::as_str))
        .bind(ownership.is_shared)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(list)
    }

    /// A list.
    pub async fn reference_list(&self, id: &ReferenceListId) -> Result<ReferenceList> {
        let row = sqlx::query("select * from reference_lists where id = ?")
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await?;
        from_row(&row.ok_or_else(|| not_found(id))?)
    }

    /// The lists they may see, newest first.
    pub async fn reference_lists(
        &self,
        viewer: &Viewer,
        after: Option<&ReferenceListId>,
        limit: usize,
    ) -> Result<Page<ReferenceList>> {
        let after: Option<i64> = match after {
            None => None,
            Some(id) => {
                let seq = sqlx::query_scalar(concat!("select seq from reference_lists where id = ?2 and ", seen!()))
                    .bind(viewer.name())
                    .bind(id.as_str())
                    .fetch_optional(&self.pool)
                    .await?;
                Some(seq.ok_or_else(|| StoreError::UnknownAfter { kind: "reference list", id: id.to_string() })?)
            }
        };
        let rows = sqlx::query(concat!(
            "select * from reference_lists where seq < coalesce(?2, 9223372036854775807) and ",
            seen!(),
            " order by seq desc limit ?3"
        ))
        .bind(viewer.name())
        .bind(after)
        .bind(Page::<ReferenceList>::n_rows(limit))
        .fetch_all(&self.pool)
        .await?;
        Page::cut(rows.iter().map(from_row), limit)
    }

    /// Deletes a list. Jobs that were made from it have their own copy.
    pub async fn delete_reference_list(&self, id: &ReferenceListId) -> Result<ReferenceList> {
        let row = sqlx::query("delete from reference_lists where id = ? returning *")
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await?;
        from_row(&row.ok_or_else(|| not_found(id))?)
    }
}

fn not_found(id: &ReferenceListId) -> StoreError {
    StoreError::NotFound { kind: "reference list", id: id.to_string() }
}

fn from_row(row: &SqliteRow) -> Result<ReferenceList> {
    Ok(ReferenceList {
        id: parsed(row, "id")?,
        name: row.try_get("name")?,
        references: from_json(row, "references")?,
        created_at: row.try_get("created_at")?,
        ownership: ownership(row)?,
    })
}
