//! Events in the order they happen, each with where its job stands: what streams are made of.

use super::{
    JobEvent, Page, Result, Store, StoreError,
    column::from_word,
    history::event_from_row,
    owners::{ownership, seen},
};
use crate::domain::{EventId, JobId, JobStatus, Ownership, Viewer};

/// An event, and its job as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveEvent {
    /// The event.
    pub event: JobEvent,
    /// Where the job stands.
    pub status: JobStatus,
    /// Whose the job is.
    pub ownership: Ownership,
}

/// Events joined with their jobs, those that the viewer may see, up to which condition follows.
macro_rules! live {
    ($condition:literal) => {
        concat!(
            concat!(
                "select events.*, jobs.status, jobs.owner, jobs.is_shared
                 from events join jobs on jobs.id = events.job_id where events.seq > ?2 and ",
                seen!()
            ),
            $condition,
            " order by events.seq limit ?3"
        )
    };
}

impl Store {
    /// The events with a `seq` above `after_seq`, oldest first: of one job, or of all that the viewer may see.
    pub async fn live_events(
        &self,
        job: Option<&JobId>,
        viewer: &Viewer,
        after_seq: i64,
        limit: usize,
    ) -> Result<Page<LiveEvent>> {
        let query = match job {
            Some(_) => sqlx::query(live!(" and events.job_id = ?4")),
            None => sqlx::query(live!("")),
        };
        let query = query.bind(viewer.name()).bind(after_seq).bind(Page::<LiveEvent>::n_rows(limit));
        let query = match job {
            Some(id) => query.bind(id.as_str()),
            None => query,
        };
        let rows = query.fetch_all(&self.pool).await?;
        let live = rows.iter().map(|row| {
            Ok(LiveEvent { event: event_from_row(row)?, status: from_word(row, "status")?, ownership: ownership(row)? })
        });
        Page::cut(live, limit)
    }

    /// The place of an event in that order.
    ///
    /// # Errors
    /// [`StoreError::UnknownAfter`] if it is none of the job's, or none that the viewer may see.
    pub async fn event_seq(&self, id: &EventId, job: Option<&JobId>, viewer: &Viewer) -> Result<i64> {
        let seq = sqlx::query_scalar(concat!(
            "select events.seq from events join jobs on jobs.id = events.job_id
             where events.id = ?2 and (?3 is null or events.job_id = ?3) and ",
            seen!()
        ));
        let seq = seq.bind(viewer.name()).bind(id.as_str()).bind(job.map(JobId::as_str));
        let seq = seq.fetch_optional(&self.pool).await?;
        seq.ok_or_else(|| StoreError::UnknownAfter { kind: "event", id: id.to_string() })
    }

    /// The place of the newest event; 0 where there is none.
    pub async fn last_event_seq(&self) -> Result<i64> {
        Ok(sqlx::query_scalar("select coalesce(max(seq), 0) from events").fetch_one(&self.pool).await?)
    }
}
