//! One stream: what it has missed from the store, then what comes, until its job has ended or its reader may not read any more.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Query, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Deserialize;
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::Instant,
};

use super::{
    App,
    error::{ApiError, ErrorCode},
    frame::{self, Frame, StreamFormat},
    live::{BATCH, Batch, Seat},
    paging::unknown_cursor,
};
use crate::{
    domain::{Caller, EventId, JobId, JobStatus, Ownership},
    store::{Store, StoreError},
};

/// A stream that has nothing to say says so after this long.
pub(super) const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// What a browser sends when it comes back: the id of the last event it has.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What a client asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Who.
    pub(super) caller: &'a Caller,
    /// Which job; without one, all that they may see.
    pub(super) job: Option<&'a JobId>,
    /// After which event, if the query says so. A browser that comes back says it in a header, which then counts.
    pub(super) after: Option<&'a str>,
    /// What the frames are like.
    pub(super) format: StreamFormat,
}

/// Whether a request is for a stream: it says so, or takes nothing else.
pub(super) fn is_asked_for(said: Option<bool>, headers: &HeaderMap) -> bool {
    let accepts = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.contains("text/event-stream"));
    said.unwrap_or_else(|| headers.get_all(header::ACCEPT).iter().any(accepts))
}

/// Whether a request to a route is for a stream.
pub(super) fn is_stream(route: &str, req: &Request) -> bool {
    req.method() == Method::GET
        && match route {
            "/v1/events" => true,
            "/v1/fine_tuning/jobs/{job_id}/events" => {
                let said = Query::try_from_uri(req.uri()).ok().and_then(|Query(SaidQuery { stream })| stream);
                is_asked_for(said, req.headers())
            }
            _ => false,
        }
}

#[derive(Deserialize)]
struct SaidQuery {
    stream: Option<bool>,
}

/// Begins a stream.
///
/// # Errors
/// If the event to go on after is unknown, or there are too many streams.
pub(super) async fn answer(app: &App, asked: Asked<'_>, headers: &HeaderMap) -> Result<Response, ApiError> {
    let after = match headers.get(LAST_EVENT_ID) {
        None => asked.after,
        Some(value) => Some(value.to_str().map_err(|_| {
            ApiError::new(ErrorCode::InvalidRequest, "the header Last-Event-ID is no event's id: leave it out")
        })?),
    };
    let seat = app.live().take_seat(asked.caller, asked.job)?;
    // Before anything is read: what is written in between comes twice, and is told by its place, instead of never.
    let batches = app.live().subscribe();
    let last_seq = match after.filter(|text| !text.is_empty()) {
        Some(text) => {
            let id: EventId = text.parse().map_err(|_| unknown_cursor(text))?;
            app.store().event_seq(&id, asked.job, &asked.caller.viewer()).await?
        }
        // A job from its beginning; of everything there is too much.
        None if asked.job.is_some() => 0,
        None => app.store().last_event_seq().await?,
    };
    if let Some(job) = asked.job
        && headers.contains_key(LAST_EVENT_ID)
        && has_all(app, job, asked.caller, last_seq).await?
    {
        // The one answer after which a browser does not come back.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let reader = Reader {
        store: app.store().clone(),
        seat,
        batches,
        format: asked.format,
        last_seq,
        status: None,
        is_behind: true,
        is_over: false,
        beat_at: Instant::now() + HEARTBEAT_EVERY,
        ready: VecDeque::from([frame::RETRY]),
    };
    let mut response = Response::new(Body::from_stream(stream::unfold(reader, Reader::next)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // nginx would keep events back until its buffer is full.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// Whether a job has ended and nothing of it comes after this place.
async fn has_all(app: &App, job: &JobId, caller: &Caller, last_seq: i64) -> Result<bool, StoreError> {
    let is_final = app.store().job(job).await?.status.is_final();
    Ok(is_final && app.store().live_events(Some(job), &caller.viewer(), last_seq, 1).await?.items.is_empty())
}

struct Reader {
    store: Store,
    seat: Seat,
    batches: Receiver<Arc<Batch>>,
    format: StreamFormat,
    /// The place of the last event that was sent.
    last_seq: i64,
    /// The status that was last sent of the one job.
    status: Option<JobStatus>,
    /// Whether the store has more than was sent.
    is_behind: bool,
    is_over: bool,
    beat_at: Instant,
    ready: VecDeque<Bytes>,
}

impl Reader {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                self.beat_at = Instant::now() + HEARTBEAT_EVERY;
                return Some((Ok(frame), self));
            }
            if self.is_over || self.seat.admission.has_ended() {
                return None;
            }
            if self.is_behind {
                if let Err(e) = self.catch_up().await {
                    // The client comes back and goes on where it was.
                    tracing::warn!(cause = &e as &dyn std::error::Error, "a stream ended early");
                    return None;
                }
                continue;
            }
            tokio::select! {
                () = self.seat.admission.is_over() => return None,
                batch = self.batches.recv() => match batch {
                    Ok(batch) => self.take(&batch),
                    Err(RecvError::Lagged(_)) => self.is_behind = true,
                    Err(RecvError::Closed) => return None,
                },
                () = tokio::time::sleep_until(self.beat_at) => self.ready.push_back(frame::HEARTBEAT),
            }
        }
    }

    /// Reads on in the store.
    async fn catch_up(&mut self) -> Result<(), StoreError> {
        let admission = self.seat.admission.clone();
        let viewer = admission.caller.viewer();
        // Asked first: if it is final, then all the job's events stand.
        let status = match &admission.job {
            Some(job) => Some((job, self.store.job(job).await?.status)),
            None => None,
        };
        let page = self.store.live_events(admission.job.as_ref(), &viewer, self.last_seq, BATCH).await?;
        for live in &page.items {
            self.last_seq = live.event.seq;
            self.ready.push_back(Frame::of(live).bytes(self.format));
        }
        self.is_behind = page.has_more;
        if let Some((job, status)) = status.filter(|_| !page.has_more) {
            self.turn(job, status);
        }
        Ok(())
    }

    /// Takes what concerns it out of a batch.
    fn take(&mut self, batch: &Batch) {
        let admission = self.seat.admission.clone();
        let viewer = admission.caller.viewer();
        let is_of_mine = |job: &JobId| admission.job.as_ref().is_none_or(|mine| mine == job);
        let is_seen = |ownership: &Ownership| ownership.lets_see(&viewer);
        for news in &batch.news {
            let event = &news.live.event;
            if event.seq > self.last_seq && is_of_mine(&event.job_id) && is_seen(&news.live.ownership) {
                self.last_seq = event.seq;
                self.ready.push_back(news.frame.bytes(self.format));
            }
        }
        for turn in &batch.turns {
            if is_of_mine(&turn.job) && is_seen(&turn.ownership) {
                self.turn(&turn.job, turn.status);
            }
        }
    }

    /// Tells a job's status, unless it was the last that was told; the final one of the one job is the end.
    fn turn(&mut self, job: &JobId, status: JobStatus) {
        let is_of_one = self.seat.admission.job.is_some();
        if is_of_one && self.status.replace(status) == Some(status) {
            return;
        }
        if self.format == StreamFormat::Named {
            self.ready.push_back(frame::status(job, status));
        }
        if is_of_one && status.is_final() {
            self.is_over = true;
            if self.format == StreamFormat::Openai {
                self.ready.push_back(frame::DONE);
            }
        }
    }
}
