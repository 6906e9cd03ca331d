//! The queue's rule: which waiting job goes next and what stands before each, as functions of what waits and what runs. No I/O.
//!
//! Of the jobs whose owners may have another slot: the higher class first; within a class the job at whose turn its owner would have
//! the fewest slots; then of whoever has used the devices least lately; then of whoever waits longest. An owner's own jobs go by
//! class, then by age. A job's turn counts the slots its owner has and the own jobs before it, so it stays what it is when one of
//! these starts: places only change when somebody comes, leaves or uses a device.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, HashMap},
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{JobId, UserName};

/// How soon a job is to run, beside others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// When nothing else waits.
    Low,
    /// As everybody.
    #[default]
    Normal,
    /// Before everybody: for admins to give.
    High,
}

impl Priority {
    /// Every priority, lowest first.
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

/// What the operator has said of slots and of each user; without a number there is no limit. What nobody owns has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRules {
    /// How many jobs run at once.
    pub n_slots: u16,
    /// How many of them may be one user's.
    pub max_running_per_user: Option<u32>,
    /// How many jobs of one user may wait, be it for a check, a slot or their user.
    pub max_waiting_per_user: Option<u32>,
    /// Bytes one user's files, checkpoints and exports may take before more are refused.
    pub max_disk_bytes_per_user: Option<u64>,
}

impl QueueRules {
    /// After how many seconds of waiting a job goes among those of the next higher priority, so that none waits for ever.
    pub const RAISED_AFTER_SECONDS: i64 = 24 * 3600;
    /// After how many seconds a second of use counts half.
    pub const HALF_LIFE_SECONDS: i64 = 24 * 3600;

    /// No limits but so many slots.
    pub fn new(n_slots: u16) -> Self {
        Self { n_slots, max_running_per_user: None, max_waiting_per_user: None, max_disk_bytes_per_user: None }
    }

    /// What is left at `now` of so many seconds of use noted at `at`.
    pub fn left_of_use(seconds: f64, at: i64, now: i64) -> f64 {
        seconds * (-((now - at).max(0) as f64) / Self::HALF_LIFE_SECONDS as f64).exp2()
    }
}

/// The queued jobs of one owner in one class, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// Whose they are.
    pub owner: Option<UserName>,
    /// Their priority, or a higher one that waiting has given them.
    pub class: Priority,
    /// How many.
    pub n_waiting: u64,
    /// The number of the oldest in order of creation.
    pub oldest_seq: i64,
}

/// A job that has a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningJob {
    /// The job.
    pub id: JobId,
    /// Whose it is.
    pub owner: Option<UserName>,
    /// What was asked for it.
    pub priority: Priority,
    /// The slot.
    pub slot: u16,
    /// Since when it has it: Unix time in seconds.
    pub since: i64,
    /// When it will be done, as far as one can tell.
    pub estimated_finish: Option<i64>,
}

/// All that the rule looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// What the operator has said.
    pub rules: QueueRules,
    /// What waits.
    pub lanes: Vec<Lane>,
    /// What has a slot.
    pub running: Vec<RunningJob>,
    /// Seconds of devices each owner has used lately.
    pub used_seconds: HashMap<Option<UserName>, f64>,
    /// How long jobs that ended well have had a slot: the median, in seconds, once there was one.
    pub usual_seconds: Option<i64>,
}

impl Queue {
    /// The lane whose oldest job goes next. None when all wait for their owners' other jobs.
    pub fn next(&self) -> Option<&Lane> {
        let allowed = self.lanes.iter().filter(|lane| self.n_allowed(lane) > 0);
        allowed.min_by(|a, b| self.order_of(a, 0, b, 0))
    }

    /// The first so many places, in order: a lane and which of its jobs, the oldest being number 0.
    pub fn first(&self, limit: usize) -> Vec<(&Lane, u64)> {
        let mut n_taken = vec![0; self.lanes.len()];
        let mut places = Vec::new();
        while places.len() < limit {
            let left = (0..self.lanes.len()).filter(|i| n_taken[*i] < self.lanes[*i].n_waiting);
            let next = left.min_by(|a, b| {
                let (a, b) = ((&self.lanes[*a], n_taken[*a]), (&self.lanes[*b], n_taken[*b]));
                let is_held = |(lane, nth): (&Lane, u64)| self.is_held(lane, nth);
                is_held(a).cmp(&is_held(b)).then_with(|| self.order_of(a.0, a.1, b.0, b.1))
            });
            let Some(next) = next else { break };
            places.push((&self.lanes[next], n_taken[next]));
            n_taken[next] += 1;
        }
        places
    }

    /// How many jobs go before number `nth` of a lane, if nobody comes and nothing ends.
    pub fn n_ahead(&self, lane: &Lane, nth: u64) -> u64 {
        let turn = self.first_turn(lane) + nth;
        let is_held = self.is_held(lane, nth);
        let before = |other: &Lane| {
            let n_earlier = match other.class.cmp(&lane.class) {
                Ordering::Greater => other.n_waiting,
                Ordering::Less => 0,
                Ordering::Equal => {
                    let wins_ties = self.tie(other, lane) == Ordering::Less;
                    (turn + u64::from(wins_ties)).saturating_sub(self.first_turn(other)).min(other.n_waiting)
                }
            };
            let n_allowed = self.n_allowed(other);
            if is_held { n_earlier.max(n_allowed) } else { n_earlier.min(n_allowed) }
        };
        self.lanes.iter().map(before).sum()
    }

    /// Whether number `nth` of a lane waits for its owner's other jobs, for whom the limit leaves no more slots.
    pub fn is_held(&self, lane: &Lane, nth: u64) -> bool {
        nth >= self.n_allowed(lane)
    }

    /// When the first `n` waiting jobs start, in Unix seconds; `None` from where it cannot be told.
    pub fn starts(&self, now: i64, n: usize) -> Vec<Option<i64>> {
        const UNKNOWN: i64 = i64::MAX;
        let usual = self.usual_seconds.unwrap_or(UNKNOWN);
        let finish = |job: &RunningJob| job.estimated_finish.unwrap_or(job.since.saturating_add(usual)).max(now);
        let mut free_at: BinaryHeap<Reverse<i64>> = self.running.iter().map(|job| Reverse(finish(job))).collect();
        (0..self.n_free()).for_each(|_| free_at.push(Reverse(now)));
        let mut starts = Vec::with_capacity(n);
        while starts.len() < n {
            let Some(Reverse(at)) = free_at.pop() else { break };
            starts.push((at != UNKNOWN).then_some(at));
            free_at.push(Reverse(at.saturating_add(usual)));
        }
        starts.resize(n, None);
        starts
    }

    /// How many slots nobody has.
    pub fn n_free(&self) -> usize {
        usize::from(self.rules.n_slots).saturating_sub(self.running.len())
    }

    /// The slots its owner has when a lane's oldest job has its turn: those of now, and one for each own job that goes before.
    fn first_turn(&self, lane: &Lane) -> u64 {
        let n_running = self.running.iter().filter(|job| job.owner == lane.owner).count() as u64;
        let higher = self.lanes.iter().filter(|other| other.owner == lane.owner && other.class > lane.class);
        n_running + higher.map(|other| other.n_waiting).sum::<u64>()
    }

    /// How many of a lane's jobs its owner's limit lets run beside what goes before them.
    fn n_allowed(&self, lane: &Lane) -> u64 {
        match (self.rules.max_running_per_user, &lane.owner) {
            (Some(max), Some(_)) => u64::from(max).saturating_sub(self.first_turn(lane)).min(lane.n_waiting),
            _ => lane.n_waiting,
        }
    }

    fn order_of(&self, a: &Lane, a_nth: u64, b: &Lane, b_nth: u64) -> Ordering {
        let turn = |lane, nth| self.first_turn(lane) + nth;
        b.class.cmp(&a.class).then_with(|| turn(a, a_nth).cmp(&turn(b, b_nth))).then_with(|| self.tie(a, b))
    }

    /// Of two whose turn it is alike.
    fn tie(&self, a: &Lane, b: &Lane) -> Ordering {
        let used = |lane: &Lane| self.used_seconds.get(&lane.owner).copied().unwrap_or(0.0);
        used(a).total_cmp(&used(b)).then(a.oldest_seq.cmp(&b.oldest_seq))
    }
}

/// Why a job waits, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaitCode {
    /// What it reads is still being checked or fetched.
    FilesBeingChecked,
    /// All slots are taken, or go to jobs before it.
    Slot,
    /// Its owner has as many slots as one user may have.
    UserLimit,
    /// It is next, and less memory is free than it needs.
    Memory,
    /// It is next, and less disk is free than it needs.
    Disk,
    /// Nothing: it starts in a moment.
    Starting,
}

/// Why a job waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WaitReason {
    /// For programs.
    pub code: WaitCode,
    /// For people.
    pub message: String,
}

/// Where a job stands in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Waiting {
    /// Its place, from 1; null until what it reads is checked.
    pub position: Option<u64>,
    /// How many jobs go before it; null until what it reads is checked.
    pub n_ahead: Option<u64>,
    /// Why it waits.
    pub reason: WaitReason,
    /// When it will start, as far as one can tell from what runs and what jobs usually take: Unix time in seconds.
    pub estimated_start: Option<i64>,
}

#[cfg(test)]
mod properties;
