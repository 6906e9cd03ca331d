//! What is kept of reference scores, for people: whose, how many, of which files, and what they have saved.

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Page, Result, Store, StoreError,
    column::{count, from_word, parsed, word},
    models,
    owners::seen,
};
use crate::domain::{FileId, ModelId, ScoreKey, Viewer};

/// How many models, data sets and files are named of one reference, newest first.
const MAX_NAMED: i64 = 20;

/// The scores kept of one reference in one precision.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptScores {
    /// What they are kept under.
    pub key: ScoreKey,
    /// The models with this content, the newest.
    pub models: Vec<ModelId>,
    /// How many there are.
    pub n_scores: u64,
    /// How many scores jobs were handed instead of computing them.
    pub n_hits: u64,
    /// When a job last used them, in Unix seconds.
    pub last_used_at: Option<i64>,
    /// How many data sets they belong to.
    pub n_datasets: u64,
    /// The data sets, the newest.
    pub datasets: Vec<KeptDataset>,
}

/// The rows of one training file's content that are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptDataset {
    /// SHA-256 of the file.
    pub sha256: String,
    /// Completions of it, and of the held-out pairs its jobs had.
    pub n_rows: u64,
    /// The uploads of this content that have not been deleted, with their names, the newest.
    pub files: Vec<(FileId, String)>,
}

impl Store {
    /// What is kept for the models they may see, the newest reference first; of one model only where one is named.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such model.
    pub async fn kept_scores(
        &self,
        viewer: &Viewer,
        model: Option<&ModelId>,
        after: Option<&ScoreKey>,
        limit: usize,
    ) -> Result<Page<KeptScores>> {
        let mut tx = self.pool.begin().await?; // one view of it all
        let digest = match model {
            None => None,
            // A model that is not fetched yet has no digest: nothing can be kept under it.
            Some(id) => Some(models::model(&mut tx, id).await?.info.map(|info| info.digest).unwrap_or_default()),
        };
        let after: Option<i64> = match after {
            None => None,
            Some(key) => {
                let id = sqlx::query_scalar("select id from score_references where reference = ? and precision = ?")
                    .bind(&key.digest)
                    .bind(word(&key.precision))
                    .fetch_optional(&mut *tx)
                    .await?;
                Some(id.ok_or_else(|| StoreError::UnknownAfter { kind: "kept reference", id: key.to_string() })?)
            }
        };
        let rows = sqlx::query(concat!(
            "select r.*, (select count(*) from score_files where reference_id = r.id) as n_datasets,
                    (select coalesce(sum(n_known), 0) from score_uses where reference_id = r.id) as n_hits,
                    (select max(used_at) from score_uses where reference_id = r.id) as last_used_at
             from score_references r
             where r.n_scores > 0 and r.id < coalesce(?2, 9223372036854775807) and (?3 is null or r.reference = ?3)
               and (?1 is null or exists (select 1 from models where json_extract(info, '$.digest') = r.reference and ",
            seen!(),
            ")) order by r.id desc limit ?4"
        ))
        .bind(viewer.name())
        .bind(after)
        .bind(digest)
        .bind(Page::<KeptScores>::n_rows(limit))
        .fetch_all(&mut *tx)
        .await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in &rows {
            items.push(kept_scores(&mut tx, viewer, row).await);
        }
        Page::cut(items.into_iter(), limit)
    }

    /// Deletes every score that is kept for a model's content, in whatever precision. Returns how many.
    ///
    /// Jobs may run meanwhile: a run was told what was known before its first process, in a file of its own, and what it
    /// computes is kept anew; one that is about to start finds less and computes more.
    pub async fn delete_scores(&self, model: &ModelId) -> Result<u64> {
        let mut tx = self.write().await?;
        let Some(info) = models::model(&mut tx, model).await?.info else { return Ok(0) };
        let deleted: Vec<i64> =
            sqlx::query_scalar("delete from score_references where reference = ? returning n_scores")
                .bind(info.digest)
                .fetch_all(&mut *tx)
                .await?;
        tx.commit().await?;
        Ok(deleted.into_iter().sum::<i64>() as u64)
    }
}

async fn kept_scores(db: &mut SqliteConnection, viewer: &Viewer, row: &SqliteRow) -> Result<KeptScores> {
    let key = ScoreKey { digest: row.try_get("reference")?, precision: from_word(row, "precision")? };
    let models = sqlx::query(concat!(
        "select id from models where json_extract(info, '$.digest') = ?2 and ",
        seen!(),
        " order by seq desc limit ?3"
    ))
    .bind(viewer.name())
    .bind(&key.digest)
    .bind(MAX_NAMED)
    .fetch_all(&mut *db)
    .await?;
    let sets = sqlx::query("select file, n_rows from score_files where reference_id = ? order by seq desc limit ?")
        .bind(row.try_get::<i64, _>("id")?)
        .bind(MAX_NAMED)
        .fetch_all(&mut *db)
        .await?;
    let mut datasets = Vec::with_capacity(sets.len());
    for set in &sets {
        datasets.push(kept_dataset(db, viewer, set).await?);
    }
    Ok(KeptScores {
        models: models.iter().map(|model| parsed(model, "id")).collect::<Result<_>>()?,
        n_scores: count(row, "n_scores")?,
        n_hits: count(row, "n_hits")?,
        last_used_at: row.try_get("last_used_at")?,
        n_datasets: count(row, "n_datasets")?,
        datasets,
        key,
    })
}

async fn kept_dataset(db: &mut SqliteConnection, viewer: &Viewer, set: &SqliteRow) -> Result<KeptDataset> {
    let sha256: String = set.try_get("file")?;
    let files = sqlx::query(concat!(
        "select id, filename from files where sha256 = ?2 and ",
        seen!(),
        " order by seq desc limit ?3"
    ))
    .bind(viewer.name())
    .bind(&sha256)
    .bind(MAX_NAMED)
    .fetch_all(db)
    .await?;
    let files = files.iter().map(|file| Ok((parsed(file, "id")?, file.try_get("filename")?)));
    Ok(KeptDataset { n_rows: count(set, "n_rows")?, files: files.collect::<Result<_>>()?, sha256 })
}
