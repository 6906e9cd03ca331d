//! What streams live on: one reader of the store for all of them, how many there may be, and what ends them.
//!
//! The store tells when something was written; then the news is read once, put into the bytes that go over the wire, and handed
//! to every stream. A stream that is too slow for that reads what it has missed from the store itself.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit, broadcast},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    error::{ApiError, ErrorCode},
    frame::Frame,
};
use crate::{
    domain::{Caller, JobId, JobStatus, KeyId, Ownership},
    store::{LiveEvent, Owned, Store, StoreError, unix_now},
};

/// How many events are read at once.
pub(super) const BATCH: usize = 100;
/// How many batches a stream may be behind before it reads from the store.
const N_WAITING: usize = 16;
/// How many streams are opened at once; the others wait.
const N_OPENING: usize = 32;
/// How often it is asked whether those who read may still do so, and whether another process has written.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// An event on its way to every stream.
#[derive(Debug)]
pub(super) struct News {
    /// The event.
    pub(super) live: LiveEvent,
    /// The event as it goes over the wire.
    pub(super) frame: Frame,
}

/// A job whose status has changed; it comes after all its events.
#[derive(Debug)]
pub(super) struct Turn {
    /// The job.
    pub(super) job: JobId,
    /// Its status now.
    pub(super) status: JobStatus,
    /// Whose it is.
    pub(super) ownership: Ownership,
}

/// What was new when the store was last read.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Events, oldest first.
    pub(super) news: Vec<News>,
    /// What has changed with them.
    pub(super) turns: Vec<Turn>,
}

/// Who reads what. Whoever reads the same with the same key shares one.
#[derive(Debug)]
pub(super) struct Admission {
    /// Who.
    pub(super) caller: Caller,
    /// Which job; without one, all that they may see.
    pub(super) job: Option<JobId>,
    over: CancellationToken,
}

/// A place among the streams; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    live: Arc<Live>,
    pub(super) admission: Arc<Admission>,
}

#[derive(Debug, Default)]
struct Seats {
    n_taken: usize,
    n_by_key: HashMap<Option<KeyId>, usize>,
    admissions: HashMap<(Option<KeyId>, Option<JobId>), Weak<Admission>>,
}

/// The streams.
#[derive(Debug)]
pub(super) struct Live {
    store: Store,
    batches: broadcast::Sender<Arc<Batch>>,
    seats: Mutex<Seats>,
    /// How many there may be; one key has half of them at most.
    max_streams: usize,
    opening: Semaphore,
    recheck: Notify,
    end: CancellationToken,
}

/// How far the streams were told.
#[derive(Debug)]
struct Told {
    last_seq: i64,
    /// The last status of each job that has not ended.
    statuses: BTreeMap<JobId, JobStatus>,
    /// Jobs of which events were told and not yet all.
    turned: BTreeMap<JobId, (JobStatus, Ownership)>,
}

impl Told {
    /// The jobs whose status has changed, now that all their events were told.
    fn turns(&mut self) -> Vec<Turn> {
        let mut turns = Vec::new();
        for (job, (status, ownership)) in std::mem::take(&mut self.turned) {
            let before =
                if status.is_final() { self.statuses.remove(&job) } else { self.statuses.insert(job.clone(), status) };
            if before != Some(status) {
                turns.push(Turn { job, status, ownership });
            }
        }
        turns
    }
}

impl Live {
    /// Begins to follow the store.
    pub(super) async fn open(store: Store, max_streams: usize) -> Result<Arc<Self>, StoreError> {
        let last_seq = store.last_event_seq().await?;
        let live = Arc::new(Self {
            store,
            batches: broadcast::Sender::new(N_WAITING),
            seats: Mutex::default(),
            max_streams,
            opening: Semaphore::new(N_OPENING),
            recheck: Notify::new(),
            end: CancellationToken::new(),
        });
        tokio::spawn(live.clone().follow(last_seq));
        Ok(live)
    }

    /// Ends every stream, and begins no other.
    pub(super) fn end(&self) {
        self.end.cancel();
    }

    /// Asks at once whether those who read may still do so: a key was revoked, or a job is no longer shared.
    pub(super) fn recheck(&self) {
        self.recheck.notify_one();
    }

    /// Waits until one more stream may be opened: its request has no place among the others.
    pub(super) async fn may_open(&self) -> Option<SemaphorePermit<'_>> {
        self.opening.acquire().await.ok()
    }

    /// What comes from now on.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Arc<Batch>> {
        self.batches.subscribe()
    }

    /// A place for one more stream.
    ///
    /// # Errors
    /// If all are taken, or this key has its half.
    pub(super) fn take_seat(self: &Arc<Self>, caller: &Caller, job: Option<&JobId>) -> Result<Seat, ApiError> {
        let mut seats = self.seats();
        let n_of_key = seats.n_by_key.get(&caller.key).copied().unwrap_or(0);
        if seats.n_taken >= self.max_streams || (caller.key.is_some() && n_of_key >= self.max_streams.div_ceil(2)) {
            let message = format!(
                "there are {} streams, {n_of_key} of them with this key: close one, or list the events instead",
                seats.n_taken
            );
            return Err(ApiError::new(ErrorCode::TooManyStreams, message));
        }
        seats.n_taken += 1;
        *seats.n_by_key.entry(caller.key.clone()).or_default() += 1;
        let standing = seats.admissions.entry((caller.key.clone(), job.cloned())).or_default();
        let admission = standing.upgrade().filter(|a| !a.over.is_cancelled()).unwrap_or_else(|| {
            let over = self.end.child_token();
            let admission = Arc::new(Admission { caller: caller.clone(), job: job.cloned(), over });
            *standing = Arc::downgrade(&admission);
            admission
        });
        Ok(Seat { live: self.clone(), admission })
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the store whenever it has changed, and asks now and then who may still read.
    async fn follow(self: Arc<Self>, last_seq: i64) {
        let mut changes = self.store.changes();
        let mut ticks = tokio::time::interval_at(Instant::now() + CHECK_EVERY, CHECK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Told { last_seq, statuses: BTreeMap::new(), turned: BTreeMap::new() };
        loop {
            let is_time_to_check = tokio::select! {
                () = self.end.cancelled() => return,
                changed = changes.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return, // the store is gone
                },
                () = self.recheck.notified() => true,
                _ = ticks.tick() => true,
            };
            if let Err(e) = self.tell(&mut told).await {
                tracing::warn!(cause = &e as &dyn std::error::Error, "streams could not be fed; the next try is soon");
            }
            if is_time_to_check {
                self.check_admissions().await;
            }
        }
    }

    /// Hands everything new to the streams.
    async fn tell(&self, told: &mut Told) -> Result<(), StoreError> {
        loop {
            let page = self.store.live_events(None, &Caller::ANYBODY.viewer(), told.last_seq, BATCH).await?;
            let Some(last) = page.items.last() else { return Ok(()) };
            told.last_seq = last.event.seq;
            let mut batch = Batch::default();
            for live in page.items {
                told.turned.insert(live.event.job_id.clone(), (live.status, live.ownership.clone()));
                batch.news.push(News { frame: Frame::of(&live), live });
            }
            if !page.has_more {
                batch.turns = told.turns();
            }
            // Nobody listens: nothing is lost, whoever comes reads from the store first.
            let _ = self.batches.send(Arc::new(batch));
            if !page.has_more {
                return Ok(());
            }
        }
    }

    async fn check_admissions(&self) {
        let standing: Vec<Arc<Admission>> = {
            let mut seats = self.seats();
            seats.admissions.retain(|_, admission| admission.strong_count() > 0);
            seats.admissions.values().filter_map(Weak::upgrade).collect()
        };
        for admission in standing {
            match self.still_holds(&admission).await {
                Ok(true) => {}
                Ok(false) | Err(StoreError::NotFound { .. }) => admission.over.cancel(),
                Err(e) => tracing::warn!(cause = &e as &dyn std::error::Error, "a stream's key could not be checked"),
            }
        }
    }

    async fn still_holds(&self, admission: &Admission) -> Result<bool, StoreError> {
        let key_works = match &admission.caller.key {
            Some(key) => self.store.key_works(key, unix_now()).await?,
            None => !self.store.has_keys().await?,
        };
        let sees = match &admission.job {
            Some(job) => {
                let ownership = self.store.ownership(&Owned::Job(job.clone())).await?;
                ownership.lets_see(&admission.caller.viewer())
            }
            None => true,
        };
        Ok(key_works && sees)
    }
}

impl Admission {
    /// Done when it does not hold any more.
    pub(super) async fn is_over(&self) {
        self.over.cancelled().await;
    }

    /// Whether it does not hold any more.
    pub(super) fn has_ended(&self) -> bool {
        self.over.is_cancelled()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.live.seats();
        seats.n_taken -= 1;
        let key = &self.admission.caller.key;
        if let Some(n) = seats.n_by_key.get_mut(key) {
            *n -= 1;
            if *n == 0 {
                seats.n_by_key.remove(key);
            }
        }
    }
}
