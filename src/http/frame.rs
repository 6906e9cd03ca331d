//! How events look in a stream: frames of `text/event-stream`.

use axum::body::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::events::JobEventObject;
use crate::{
    domain::{EventId, JobId, JobStatus},
    store::{EventKind, LiveEvent},
};

/// A comment, so that neither the client nor what stands between takes a silent stream for a dead one.
pub(super) const HEARTBEAT: Bytes = Bytes::from_static(b": nothing new\n\n");
/// How soon a browser comes back when the connection was lost, in milliseconds; the first frame of every stream.
pub(super) const RETRY: Bytes = Bytes::from_static(b"retry: 2000\n\n");
/// The last frame of a stream as OpenAI had it.
pub(super) const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// What a stream's frames are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum StreamFormat {
    /// Named events: `message`, `metrics`, `checkpoint`, and `status` when the job's has changed and as the last one.
    #[default]
    Named,
    /// Events without names and nothing else, then `data: [DONE]`.
    Openai,
}

/// One frame of a stream.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the frame in the API document; frames are made as bytes")]
pub(super) struct StreamFrame {
    /// Of a named stream: what it tells.
    #[schema(example = "metrics")]
    event: String,
    /// The event's id, to go on after; a status has none.
    id: EventId,
    /// JSON, on one line: the event, or the status. The last frame of a stream with `format=openai` is `[DONE]`.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// An event in a stream: as in lists, and where its job stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StreamedEvent {
    #[serde(flatten)]
    event: JobEventObject,
    /// The job.
    job_id: JobId,
    /// The job's status when the event was read.
    status: JobStatus,
}

/// Where a job stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StreamedStatus<'a> {
    /// `fine_tuning.job.status`.
    #[schema(example = "fine_tuning.job.status")]
    object: &'static str,
    /// The job.
    job_id: &'a JobId,
    status: JobStatus,
    /// Whether it never changes again; a stream of this job ends here.
    is_final: bool,
}

/// An event's bytes, made once for all streams.
#[derive(Debug)]
pub(super) struct Frame {
    named: Bytes,
    plain: Bytes,
}

impl Frame {
    /// The bytes of an event.
    pub(super) fn of(live: &LiveEvent) -> Self {
        let name = match live.event.kind {
            EventKind::Metrics => "metrics",
            EventKind::Message if live.event.is_checkpoint() => "checkpoint",
            EventKind::Message => "message",
        };
        let id = live.event.id.clone();
        let body = StreamedEvent {
            job_id: live.event.job_id.clone(),
            status: live.status,
            event: JobEventObject::from(live.event.clone()),
        };
        let json = json(&body);
        let plain = Bytes::from(format!("id: {id}\ndata: {json}\n\n"));
        Self { named: format!("event: {name}\nid: {id}\ndata: {json}\n\n").into(), plain }
    }

    /// Them, as a stream of this format has them.
    pub(super) fn bytes(&self, format: StreamFormat) -> Bytes {
        match format {
            StreamFormat::Named => self.named.clone(),
            StreamFormat::Openai => self.plain.clone(),
        }
    }
}

/// A job's status. It has no id: who comes back goes on after the last event.
pub(super) fn status(job: &JobId, status: JobStatus) -> Bytes {
    let object = "fine_tuning.job.status";
    let body = StreamedStatus { object, job_id: job, status, is_final: status.is_final() };
    format!("event: status\ndata: {}\n\n", json(&body)).into()
}

/// JSON holds no line break outside of strings, and escapes those within: always one line.
fn json(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("texts and numbers always serialise")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        domain::{Level, Ownership},
        store::JobEvent,
    };

    #[test]
    fn a_frame_is_named_after_what_it_tells() {
        let named = |kind: EventKind, data: Option<serde_json::Value>| {
            let event = JobEvent {
                id: EventId::new(),
                seq: 1,
                job_id: JobId::new(),
                level: Level::Info,
                kind,
                message: "two\nlines".into(),
                data,
                created_at: 0,
            };
            let live = LiveEvent { event, status: JobStatus::Running, ownership: Ownership::default() };
            let bytes = Frame::of(&live).bytes(StreamFormat::Named);
            let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
            assert_eq!((text.lines().count(), text.ends_with("}\n\n")), (4, true), "{text}");
            text.lines().next().expect("a line").to_owned()
        };
        assert_eq!(named(EventKind::Message, None), "event: message");
        assert_eq!(named(EventKind::Message, Some(json!({"step": 1, "model": "m"}))), "event: message");
        assert_eq!(named(EventKind::Message, Some(json!({"checkpoint": "ftckpt-0"}))), "event: checkpoint");
        assert_eq!(named(EventKind::Metrics, Some(json!({"loss": 1.0}))), "event: metrics");
    }
}
