//! `/v1/queue`: who runs, what waits and when it will start, for everybody; and a job's priority.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    access::By,
    error::ApiError,
    extract::{Id, Json},
    jobs::{self, FineTuningJob},
    user_limits::may_give,
};
use crate::{
    domain::{Caller, Job, JobId, Ownership, Priority, Queue, UserName, Waiting},
    store::unix_now,
};

/// Waiting jobs that are shown, first ones first.
pub(super) const N_SHOWN: usize = 100;

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_queue)).routes(routes!(set_priority))
}

/// What the server works on.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct QueueObject {
    /// `queue`.
    #[schema(example = "queue")]
    object: &'static str,
    /// How many jobs run at once.
    n_slots: u16,
    /// How many slots nobody has.
    n_free_slots: usize,
    /// How many jobs wait for a slot.
    n_waiting: u64,
    /// How long the last jobs that ended well have had a slot: the median, in seconds.
    usual_seconds: Option<i64>,
    /// By slot.
    running: Vec<RunningEntry>,
    /// The first 100, in order.
    waiting: Vec<WaitingEntry>,
    /// Of whoever asks; null where nobody is asked for a key.
    yours: Option<YourShare>,
}

/// A job that has a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct RunningEntry {
    /// Which slot, from 0.
    slot: u16,
    /// The job; null of what whoever asks may not see.
    job: Option<JobId>,
    /// Whose it is; null of what whoever asks may not see.
    owner: Option<UserName>,
    priority: Priority,
    /// Since when it has the slot: Unix time in seconds.
    since: i64,
    /// When it will be done, as far as one can tell.
    estimated_finish: Option<i64>,
}

/// A job that waits for a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct WaitingEntry {
    /// The job; null of what whoever asks may not see.
    job: Option<JobId>,
    /// Whose it is; null of what whoever asks may not see.
    owner: Option<UserName>,
    priority: Priority,
    #[serde(flatten)]
    queue: Waiting,
}

/// What somebody has of what is limited per user; a limit that is null is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct YourShare {
    /// Jobs that have a slot.
    n_running: u64,
    /// How many may.
    max_running: Option<u32>,
    /// Jobs that wait for a check, a slot, or for you.
    n_waiting: u64,
    /// How many may.
    max_waiting: Option<u32>,
    /// Files, checkpoints and exports.
    disk_bytes: u64,
    /// How much they may take.
    max_disk_bytes: Option<u64>,
}

/// What a priority is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PriorityRequest {
    /// `high` is an admin's to give.
    priority: Priority,
}

/// Shows the queue
///
/// Everybody sees all slots and all places; of jobs they may not see, neither which nor whose.
#[utoipa::path(
    get, path = "/v1/queue", tag = "queue",
    responses((status = 200, description = "Who runs and what waits", body = QueueObject))
)]
async fn get_queue(State(app): State<App>, By(caller): By) -> Result<axum::Json<QueueObject>, ApiError> {
    let (store, rules, now) = (app.store(), &app.settings().queue, unix_now());
    let queue = store.queue(rules, now).await?;
    let first = store.first_waiting(&queue, N_SHOWN).await?;
    let places = store.waiting(rules, &first.iter().collect::<Vec<_>>(), now).await?;
    let mut waiting: Vec<WaitingEntry> =
        first.into_iter().zip(places).filter_map(|(job, place)| Some(entry(job, place?, &caller))).collect();
    waiting.sort_by_key(|entry| entry.queue.position);
    let running = running(&app, &queue, &caller).await?;
    Ok(axum::Json(QueueObject {
        object: "queue",
        n_slots: rules.n_slots,
        n_free_slots: queue.n_free(),
        n_waiting: queue.lanes.iter().map(|lane| lane.n_waiting).sum(),
        usual_seconds: queue.usual_seconds,
        running,
        waiting,
        yours: match &caller.user {
            Some(user) => Some(share(&app, user).await?),
            None => None,
        },
    }))
}

async fn running(app: &App, queue: &Queue, caller: &Caller) -> Result<Vec<RunningEntry>, ApiError> {
    let mut entries = Vec::with_capacity(queue.running.len());
    for job in &queue.running {
        let is_seen = app.store().job(&job.id).await?.ownership.lets_see(&caller.viewer());
        entries.push(RunningEntry {
            slot: job.slot,
            job: is_seen.then(|| job.id.clone()),
            owner: job.owner.clone().filter(|_| is_seen),
            priority: job.priority,
            since: job.since,
            estimated_finish: job.estimated_finish,
        });
    }
    Ok(entries)
}

fn entry(job: Job, queue: Waiting, caller: &Caller) -> WaitingEntry {
    let Ownership { owner, .. } = job.ownership.clone();
    let is_seen = job.ownership.lets_see(&caller.viewer());
    WaitingEntry { job: is_seen.then_some(job.id), owner: owner.filter(|_| is_seen), priority: job.priority, queue }
}

async fn share(app: &App, user: &UserName) -> Result<YourShare, ApiError> {
    let rules = &app.settings().queue;
    let (n_waiting, n_running) = app.store().count_of_user(user).await?;
    Ok(YourShare {
        n_running,
        max_running: rules.max_running_per_user,
        n_waiting,
        max_waiting: rules.max_waiting_per_user,
        disk_bytes: app.store().disk_bytes(user).await?,
        max_disk_bytes: rules.max_disk_bytes_per_user,
    })
}

/// Gives a job another priority
///
/// While it waits for a check, for a slot, or, paused, for its user. What waiting has added to the priority before is lost.
#[utoipa::path(
    post, path = "/v1/fine_tuning/jobs/{job_id}/priority", tag = "queue", request_body = PriorityRequest,
    params(("job_id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "The job", body = FineTuningJob),
        (status = 403, description = "It belongs to somebody else, or the priority is an admin's to give: `admins_only`"),
        (status = 404, description = "No such job"),
        (status = 409, description = "It runs or has ended: `illegal_transition`"),
    )
)]
async fn set_priority(
    State(app): State<App>,
    By(caller): By,
    Id(id): Id<JobId>,
    Json(request): Json<PriorityRequest>,
) -> Result<axum::Json<FineTuningJob>, ApiError> {
    may_give(&caller, request.priority)?;
    Ok(axum::Json(jobs::answer(&app, app.store().set_priority(&id, request.priority).await?).await?))
}
