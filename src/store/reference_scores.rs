//! Reference scores kept across jobs: each is a fact about a model and a text, computed once.

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{Result, Store, StoreError, column::word};
use crate::domain::{JobId, ReferenceScore, ScoreKey, ScorePrecision};

/// Rows of one statement; with four values each they stay below SQLite's 32766.
const N_AT_ONCE: usize = 1000;

/// The rows that runs on one training file have used of one reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreSet {
    seq: i64,
    /// SHA-256 of the file.
    pub file: String,
}

/// A kept score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeptScore {
    /// Digest of the row.
    pub row: [u8; 32],
    /// Log-probability, in nats.
    pub logp: f64,
    /// Tokens that count.
    pub n_tokens: f64,
}

impl KeptScore {
    /// The same as a run reads it.
    pub fn to_score(self, reference: &str, precision: ScorePrecision, is_of_file: bool) -> ReferenceScore {
        ReferenceScore {
            reference: reference.to_owned(),
            precision,
            row: to_hex(&self.row),
            line: None,
            logp: self.logp,
            n_tokens: self.n_tokens,
            is_of_file,
        }
    }
}

impl Store {
    /// The files whose rows are kept for a reference, newest first.
    pub async fn score_sets(&self, reference: &str, precision: ScorePrecision) -> Result<Vec<ScoreSet>> {
        let rows = sqlx::query(
            "select seq, file from score_files join score_references on id = reference_id
             where reference = ? and precision = ? order by seq desc",
        )
        .bind(reference)
        .bind(word(&precision))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok(ScoreSet { seq: row.try_get("seq")?, file: row.try_get("file")? })).collect()
    }

    /// The kept scores of a set in the order of their digests, from the one after `after` on, at most `limit`.
    pub async fn scores_of_set(
        &self,
        set: &ScoreSet,
        after: Option<&[u8; 32]>,
        limit: usize,
    ) -> Result<Vec<KeptScore>> {
        let rows = sqlx::query(
            "select r.row_digest, s.logp, s.n_tokens from score_file_rows r
             join score_files f on f.seq = r.file_seq
             join reference_scores s on s.reference_id = f.reference_id and s.row_digest = r.row_digest
             where r.file_seq = ? and r.row_digest > ? order by r.row_digest limit ?",
        )
        .bind(set.seq)
        .bind(after.map_or(&[][..], |row| &row[..]))
        .bind(limit as i64)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(kept).collect()
    }
}

fn kept(row: &SqliteRow) -> Result<KeptScore> {
    let digest: &[u8] = row.try_get("row_digest")?;
    let digest = digest.try_into().map_err(|e| StoreError::Decode { what: "row_digest", source: Box::new(e) })?;
    Ok(KeptScore { row: digest, logp: row.try_get("logp")?, n_tokens: row.try_get("n_tokens")? })
}

/// Keeps what a job's run has scored. A score that stands stays as it is: what was handed out once must not change.
pub(super) async fn record(db: &mut SqliteConnection, job: &JobId, scores: &[ReferenceScore]) -> Result<()> {
    if scores.is_empty() {
        return Ok(());
    }
    let file: String = sqlx::query_scalar(
        "select coalesce(sha256, file_id) from (select json_extract(spec, '$.training_file') file_id from jobs where id = ?)
         left join files on files.id = file_id",
    )
    .bind(job.as_str())
    .fetch_one(&mut *db)
    .await?;
    // A run scores one reference after the other.
    for of_one in scores.chunk_by(|a, b| (&a.reference, a.precision) == (&b.reference, b.precision)) {
        let reference = reference_id(db, &of_one[0].reference, of_one[0].precision).await?;
        let set: i64 = sqlx::query_scalar(
            "insert into score_files (reference_id, file) values (?, ?)
             on conflict do update set file = excluded.file returning seq",
        )
        .bind(reference)
        .bind(&file)
        .fetch_one(&mut *db)
        .await?;
        for some in of_one.chunks(N_AT_ONCE) {
            insert(db, reference, set, some).await?;
        }
    }
    Ok(())
}

async fn insert(db: &mut SqliteConnection, reference: i64, set: i64, scores: &[ReferenceScore]) -> Result<()> {
    let mut digests = Vec::with_capacity(scores.len());
    for score in scores {
        digests.push(from_hex(&score.row)?);
    }
    let start = "insert into reference_scores (reference_id, row_digest, logp, n_tokens) ";
    let mut statement = QueryBuilder::<Sqlite>::new(start);
    statement.push_values(scores.iter().zip(&digests), |mut row, (score, digest)| {
        row.push_bind(reference).push_bind(&digest[..]).push_bind(score.logp).push_bind(score.n_tokens);
    });
    let added = statement.push(" on conflict do nothing").build().execute(&mut *db).await?.rows_affected();
    sqlx::query("update score_references set n_scores = n_scores + ? where id = ?")
        .bind(added as i64)
        .bind(reference)
        .execute(&mut *db)
        .await?;
    let mut statement = QueryBuilder::<Sqlite>::new("insert into score_file_rows (file_seq, row_digest) ");
    statement.push_values(&digests, |mut row, digest| {
        row.push_bind(set).push_bind(&digest[..]);
    });
    let added = statement.push(" on conflict do nothing").build().execute(&mut *db).await?.rows_affected();
    sqlx::query("update score_files set n_rows = n_rows + ? where seq = ?")
        .bind(added as i64)
        .bind(set)
        .execute(&mut *db)
        .await?;
    Ok(())
}

/// The reference's number; it gets one where it has none yet.
async fn reference_id(db: &mut SqliteConnection, digest: &str, precision: ScorePrecision) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "insert into score_references (reference, precision) values (?, ?)
         on conflict do update set reference = excluded.reference returning id",
    )
    .bind(digest)
    .bind(word(&precision))
    .fetch_one(db)
    .await?)
}

/// Notes that a job has used a reference's scores. Its run says it in every attempt, and what an earlier attempt has computed is
/// not known from elsewhere then either: the first time counts.
pub(super) async fn note_use(
    db: &mut SqliteConnection,
    job: &JobId,
    key: &ScoreKey,
    n_known: u64,
    at: i64,
) -> Result<()> {
    let reference = reference_id(db, &key.digest, key.precision).await?;
    sqlx::query(
        "insert into score_uses (job_id, reference_id, n_known, used_at) values (?, ?, ?, ?) on conflict do nothing",
    )
    .bind(job.as_str())
    .bind(reference)
    .bind(n_known as i64)
    .bind(at)
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes the scores of a reference when no model with its digest is left: without the model they are worthless.
pub(super) async fn delete_orphans(db: &mut SqliteConnection, digest: &str) -> Result<()> {
    sqlx::query(
        "delete from score_references where reference = ?1
         and not exists (select 1 from models where json_extract(info, '$.digest') = ?1)",
    )
    .bind(digest)
    .execute(db)
    .await?;
    Ok(())
}

fn to_hex(digest: &[u8; 32]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let nibbles = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

fn from_hex(text: &str) -> Result<[u8; 32]> {
    let mut digest = [0; 32];
    let decode = |what: &str| StoreError::Decode { what: "row", source: what.into() };
    if text.len() != 64 || !text.is_ascii() {
        return Err(decode("not 64 hexadecimal digits"));
    }
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|e| decode(&e.to_string()))?;
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_same_there_and_back() {
        let text: String = (0..32u8).map(|i| format!("{:02x}", i.wrapping_mul(37))).collect();
        assert_eq!(to_hex(&from_hex(&text).expect("hexadecimal")), text);
        assert!(from_hex("zz").is_err() && from_hex(&"g".repeat(64)).is_err());
    }
}
