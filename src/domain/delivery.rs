//! What webhooks are told, how often it is tried, and what became of it.

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::{HttpAddress, JobId, JobStatus, WebhookEventId, WebhookId, WebhookSecret};

/// What a webhook can be told of (OpenAI's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum WebhookEventType {
    /// A job has made its model.
    #[serde(rename = "fine_tuning.job.succeeded")]
    JobSucceeded,
    /// A job could not go on.
    #[serde(rename = "fine_tuning.job.failed")]
    JobFailed,
    /// Somebody has cancelled a job.
    #[serde(rename = "fine_tuning.job.cancelled")]
    JobCancelled,
}

impl WebhookEventType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::JobSucceeded, Self::JobFailed, Self::JobCancelled];

    /// What there is to tell of a job that has come to this status.
    pub fn of(status: JobStatus) -> Option<Self> {
        match status {
            JobStatus::Succeeded => Some(Self::JobSucceeded),
            JobStatus::Failed => Some(Self::JobFailed),
            JobStatus::Cancelled => Some(Self::JobCancelled),
            JobStatus::ValidatingFiles | JobStatus::Queued | JobStatus::Running | JobStatus::Paused => None,
        }
    }
}

/// Something that webhooks are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookEvent {
    /// Its id: the same for every webhook and in every attempt.
    pub id: WebhookEventId,
    /// What has happened.
    pub event_type: WebhookEventType,
    /// The job; absent in a test, which is about none.
    pub job: Option<JobId>,
    /// Unix time in seconds.
    pub created_at: i64,
}

impl WebhookEvent {
    /// The id of the job that a test speaks of: there is none.
    const NO_JOB: &str = "ftjob-00000000000000000000000000000000";

    /// That a job has ended.
    pub fn of_end(job: &JobId, event_type: WebhookEventType, created_at: i64) -> Self {
        Self { id: WebhookEventId::about(job, "has ended"), event_type, job: Some(job.clone()), created_at }
    }

    /// A test.
    pub fn test(event_type: WebhookEventType, created_at: i64) -> Self {
        Self { id: WebhookEventId::new(), event_type, job: None, created_at }
    }

    /// What is sent: always the same bytes.
    pub fn body(&self) -> String {
        json!({
            "id": self.id,
            "object": "event",
            "created_at": self.created_at,
            "type": self.event_type,
            "data": {"id": self.job.as_ref().map_or(Self::NO_JOB, JobId::as_str)},
        })
        .to_string()
    }
}

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// It is yet to be sent, or to be sent again.
    Pending,
    /// The webhook has taken it: an answer of 200 to 299.
    Delivered,
    /// Given up.
    Failed,
}

impl DeliveryStatus {
    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

/// One event on its way to one webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What it tells.
    pub event: WebhookEvent,
    /// How far it is.
    pub status: DeliveryStatus,
    /// How often it was begun to send it.
    pub n_attempts: u32,
    /// When it is sent next, while it is pending: Unix time in seconds.
    pub next_attempt_at: Option<i64>,
    /// HTTP status of the last answer.
    pub status_code: Option<u16>,
    /// What was wrong with the last attempt, in words.
    pub error: Option<String>,
    /// When it was delivered or given up: Unix time in seconds.
    pub ended_at: Option<i64>,
}

impl Delivery {
    /// How often one is sent by itself. The pauses between make up two to three days.
    pub const MAX_ATTEMPTS: u32 = 12;
    /// How old an event may be to be sent by itself, in seconds.
    pub const MAX_AGE_S: i64 = 3 * 24 * 3600;
    /// How long one that has ended is remembered, in seconds.
    pub const KEPT_S: i64 = 30 * 24 * 3600;
    /// The first pause, in seconds; each one is three times as long.
    const FIRST_PAUSE_S: u64 = 10;
    /// The longest pause, in seconds.
    const MAX_PAUSE_S: u64 = 16 * 3600;
    /// The longest pause that a webhook may ask for, in seconds.
    const MAX_ASKED_S: u64 = 24 * 3600;
}

/// A delivery whose attempt is this worker's to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueDelivery {
    /// What to tell.
    pub event: WebhookEvent,
    /// The webhook.
    pub webhook: WebhookId,
    /// Its address.
    pub url: HttpAddress,
    /// What signs: the secret, and until its time is over the one before.
    pub secrets: Vec<WebhookSecret>,
    /// The how manieth attempt this is.
    pub n_attempts: u32,
    /// When it was due: Unix time in seconds.
    pub due_at: i64,
}

impl DueDelivery {
    /// When to try again after this attempt has failed at `now`, where the webhook has asked for a pause of `asked_s` seconds; never, if
    /// it was tried often or long enough. A test is tried once.
    pub fn again_at(&self, asked_s: Option<u64>, now: i64) -> Option<i64> {
        if self.event.job.is_none() || self.n_attempts >= Delivery::MAX_ATTEMPTS {
            return None;
        }
        let tripled = 3_u64.saturating_pow(self.n_attempts.saturating_sub(1));
        let pause = Delivery::FIRST_PAUSE_S.saturating_mul(tripled).min(Delivery::MAX_PAUSE_S);
        // Up to a fifth longer, so that what has failed together does not come back together.
        let spread = (pause as f64 * 0.2 * self.share()) as u64;
        let asked = asked_s.unwrap_or(0).min(Delivery::MAX_ASKED_S);
        let at = now + (pause + spread).max(asked) as i64;
        (at <= self.event.created_at + Delivery::MAX_AGE_S).then_some(at)
    }

    /// A number from 0 to 1 that each attempt of each delivery has for itself.
    fn share(&self) -> f64 {
        let digest = Sha256::digest(format!("{} {} {}", self.event.id, self.webhook, self.n_attempts));
        f64::from(digest[0]) / 255.0
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attempt {
    /// HTTP status of the answer, if there was one.
    pub status_code: Option<u16>,
    /// What was wrong, in words; nothing, if the webhook has taken it.
    pub error: Option<String>,
    /// For how many seconds the webhook asks for silence.
    pub asked_s: Option<u64>,
}

impl Attempt {
    /// The status that says: never again.
    const GONE: u16 = 410;

    /// One without an answer: why.
    pub fn unanswered(why: impl Into<String>) -> Self {
        Self { error: Some(why.into()), ..Self::default() }
    }

    /// Whether the webhook wants to be told nothing more.
    pub fn is_gone(&self) -> bool {
        self.status_code == Some(Self::GONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(n_attempts: u32) -> DueDelivery {
        DueDelivery {
            event: WebhookEvent::of_end(&JobId::new(), WebhookEventType::JobSucceeded, 0),
            webhook: WebhookId::new(),
            url: "http://a/hook".parse().expect("an address"),
            secrets: Vec::new(),
            n_attempts,
            due_at: 0,
        }
    }

    #[test]
    fn what_is_sent_is_openai_s_event_and_always_the_same() {
        let event = WebhookEvent::of_end(&JobId::new(), WebhookEventType::JobCancelled, 7);
        let body: serde_json::Value = serde_json::from_str(&event.body()).expect("JSON");
        let expected = json!({"id": event.id, "object": "event", "created_at": 7, "type": "fine_tuning.job.cancelled",
            "data": {"id": event.job}});
        assert_eq!((body, event.body()), (expected, event.clone().body()));
        let job = event.job.expect("a job");
        assert_eq!(WebhookEvent::of_end(&job, WebhookEventType::JobFailed, 9).id, event.id, "a job ends once");
        assert!(WebhookEvent::NO_JOB.parse::<JobId>().is_ok());
    }

    #[test]
    fn pauses_grow_and_end_within_three_days() {
        let (mut at, mut n_attempts) = (0, 1);
        while let Some(next) = due(n_attempts).again_at(None, at) {
            let pause = (Delivery::FIRST_PAUSE_S * 3_u64.pow(n_attempts - 1)).min(Delivery::MAX_PAUSE_S) as i64;
            assert!((pause..=pause + pause / 5).contains(&(next - at)), "{n_attempts}: {}", next - at);
            (at, n_attempts) = (next, n_attempts + 1);
        }
        assert_eq!(n_attempts, Delivery::MAX_ATTEMPTS);
        assert!((2 * 24 * 3600..=Delivery::MAX_AGE_S).contains(&at), "{at}");
    }

    #[test]
    fn a_webhook_may_ask_for_a_longer_pause_but_not_for_any() {
        assert_eq!(due(1).again_at(Some(600), 0), Some(600));
        assert!(due(1).again_at(Some(1), 0) >= Some(10));
        assert_eq!(due(1).again_at(Some(u64::MAX), 0), Some(24 * 3600));
        assert_eq!(due(1).again_at(None, Delivery::MAX_AGE_S), None);
        let test = DueDelivery { event: WebhookEvent::test(WebhookEventType::JobFailed, 0), ..due(1) };
        assert_eq!(test.again_at(None, 0), None);
    }
}
