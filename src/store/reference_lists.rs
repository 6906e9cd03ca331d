//! Named lists of references.

use sqlx::{Row, sqlite::SqliteRow};

use super::{
    Page, Result, Store, StoreError,
    column::{from_json, json, parsed},
    models, unix_now,
};
use crate::domain::{Reference, ReferenceList, ReferenceListId};

impl Store {
    /// Adds a list, checked by the caller with [`crate::domain::validate_references`]; its models must exist.
    pub async fn insert_reference_list(&self, name: &str, references: &[Reference]) -> Result<ReferenceList> {
        let list = ReferenceList {
            id: ReferenceListId::new(),
            name: name.to_owned(),
            references: references.to_vec(),
            created_at: unix_now(),
        };
        let mut tx = self.write().await?;
        for reference in references {
            models::model(&mut tx, &reference.model).await?;
        }
        sqlx::query("insert into reference_lists (id, name, \"references\", created_at) values (?, ?, ?, ?)")
            .bind(list.id.as_str())
            .bind(name)
            .bind(json(references))
            .bind(list.created_at)
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

    /// Lists, newest first.
    pub async fn reference_lists(&self, after: Option<&ReferenceListId>, limit: usize) -> Result<Page<ReferenceList>> {
        let after: Option<i64> = match after {
            None => None,
            Some(id) => {
                let seq = sqlx::query_scalar("select seq from reference_lists where id = ?")
                    .bind(id.as_str())
                    .fetch_optional(&self.pool)
                    .await?;
                Some(seq.ok_or_else(|| StoreError::UnknownAfter { kind: "reference list", id: id.to_string() })?)
            }
        };
        let rows = sqlx::query(
            "select * from reference_lists where seq < coalesce(?1, 9223372036854775807) order by seq desc limit ?2",
        )
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
    })
}
