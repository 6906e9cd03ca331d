//! Who runs when, and why: stories of the queue with more than one user and more than one slot.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use mrpo::{
    domain::{DeviceMemory, JobId, JobMemory, JobStatus, Ownership, Priority, QueueRules, ReadMemory, RunEvent},
    store::{JobTerms, StoreError},
};

use crate::{
    records::{checkpoint, succeeded},
    world::{BEGIN, PATIENCE, Process, World},
};

fn of(user: &str) -> Ownership {
    Ownership { owner: Some(user.parse().expect("a name")), is_shared: false }
}

fn terms(priority: Priority) -> JobTerms {
    JobTerms { priority, max_waiting: None }
}

/// A world, and the jobs of its story by name.
struct Story {
    w: World,
    rules: QueueRules,
    jobs: Vec<(&'static str, JobId)>,
    text: String,
    /// The processes of what runs: without one a run would have died.
    processes: HashMap<JobId, Process>,
}

impl Story {
    async fn begin(rules: QueueRules) -> Self {
        Self::with_memory(rules, ReadMemory::unknown()).await
    }

    async fn with_memory(rules: QueueRules, memory: ReadMemory) -> Self {
        let w = World::with_queue(rules.clone(), memory).await;
        Self { w, rules, jobs: Vec::new(), text: String::new(), processes: HashMap::new() }
    }

    /// A look of the worker; what it has started is then played here.
    async fn look(&mut self) {
        self.w.tick().await;
        for run in self.w.store.queue(&self.rules, self.w.now).await.expect("read").running {
            if !self.processes.contains_key(&run.id) {
                let process = self.w.process(&run.id).await;
                self.processes.insert(run.id, process);
            }
        }
    }

    async fn send(&mut self, name: &'static str, priority: Priority) {
        let user = name.split('-').next().expect("user-number");
        let job = self.w.job_of(name, &of(user), &terms(priority)).await;
        self.jobs.push((name, job));
    }

    fn job(&self, name: &str) -> JobId {
        self.jobs.iter().find(|(n, _)| *n == name).expect("it was sent").1.clone()
    }

    /// What has just happened, and after a look of the worker where every job is.
    async fn tell(&mut self, what: &str) {
        self.look().await;
        writeln!(self.text, "{} {what}", clock(self.w.now)).expect("memory");
        let mut jobs = Vec::new();
        for (_, id) in &self.jobs {
            jobs.push(self.w.store.job(id).await.expect("found"));
        }
        let queue = self.w.store.queue(&self.rules, self.w.now).await.expect("read");
        let places =
            self.w.store.waiting(&self.rules, &jobs.iter().collect::<Vec<_>>(), self.w.now).await.expect("read");
        for (((name, id), job), place) in self.jobs.iter().zip(&jobs).zip(places) {
            write!(self.text, "    {name:6} {:7} {}", job.priority.as_str(), job.status).expect("memory");
            if let Some(run) = queue.running.iter().find(|run| run.id == *id) {
                write!(self.text, " in slot {}", run.slot).expect("memory");
            }
            if let Some(place) = place {
                let position = place.position.expect("it is queued");
                let start = place
                    .estimated_start
                    .map_or_else(|| "nobody knows when".to_owned(), |at| format!("about {}", clock(at)));
                write!(self.text, ", place {position}, {start}: {}", place.reason.message).expect("memory");
            }
            self.text.push('\n');
        }
    }

    /// Its process says this and ends; the worker looks until the job is what it is to become.
    async fn ends(&mut self, name: &str, events: Vec<RunEvent>, as_what: JobStatus) {
        let job = self.job(name);
        let mut process = self.processes.remove(&job).expect("it runs");
        events.into_iter().for_each(|event| process.say(event));
        drop(process);
        let asked = Instant::now();
        while self.w.store.job(&job).await.expect("found").status != as_what {
            assert!(asked.elapsed() < PATIENCE, "{name} never becomes {as_what}");
            self.w.tick().await;
            tokio::task::yield_now().await;
        }
        self.look().await;
    }
}

/// Days, hours and minutes since the story began.
fn clock(at: i64) -> String {
    let minutes = (at - BEGIN) / 60;
    format!("day {} {:02}:{:02}", minutes / 1440, minutes / 60 % 24, minutes % 60)
}

#[tokio::test]
async fn two_users_three_priorities_two_slots() {
    let mut s = Story::begin(QueueRules::new(2)).await;
    for (name, priority) in [
        ("ana-1", Priority::Normal),
        ("ana-2", Priority::Normal),
        ("ana-3", Priority::Low),
        ("bo-1", Priority::Normal),
        ("bo-2", Priority::Normal),
    ] {
        s.send(name, priority).await;
    }
    s.tell("Ana sends three jobs, then Bo two: each gets a slot.").await;

    s.w.store.set_priority(&s.job("bo-2"), Priority::High).await.expect("it waits");
    s.tell("An admin gives Bo's second one the priority high.").await;

    s.w.now += 3600;
    s.ends("ana-1", vec![succeeded()], JobStatus::Succeeded).await;
    s.tell("Ana's first one is done: what is high goes before everybody, though Bo has a slot.").await;

    s.w.now += 600;
    s.w.store.pause_job(&s.job("bo-1")).await.expect("asked");
    s.ends("bo-1", vec![checkpoint(1), RunEvent::Stopped { step: 1 }], JobStatus::Paused).await;
    s.tell("Bo pauses his first one: it has saved its state, and the slot is Ana's.").await;

    s.w.store.resume_job(&s.job("bo-1")).await.expect("paused");
    s.tell("Bo resumes it.").await;

    s.w.now += 24 * 3600;
    s.send("bo-3", Priority::Normal).await;
    s.tell(
        "Both slots stay taken for a day, and Bo sends a third: what has waited that long goes one priority higher.",
    )
    .await;

    s.ends("bo-2", vec![succeeded()], JobStatus::Succeeded).await;
    s.tell("Bo's second one is done: his first one goes on, from its checkpoint.").await;

    s.w.now += 60;
    s.ends("ana-2", vec![succeeded()], JobStatus::Succeeded).await;
    s.tell("Ana's second one is done: Bo has a slot and she has none, so it is her turn, low as it once was.").await;

    assert!(s.w.said(&s.job("ana-3")).await.iter().any(|line| line.contains("goes among those of priority normal")));

    let expected = include_str!("queue_story.txt");
    assert!(s.text == expected, "the story is now told like this:\n{}", s.text);
}

#[tokio::test]
async fn a_user_has_no_more_slots_than_allowed_and_others_pass() {
    let rules = QueueRules { max_running_per_user: Some(1), ..QueueRules::new(2) };
    let mut s = Story::begin(rules).await;
    for name in ["ana-1", "ana-2", "bo-1"] {
        s.send(name, Priority::Normal).await;
    }
    s.tell("").await;
    assert_eq!(
        s.text.lines().skip(1).map(str::trim).collect::<Vec<_>>(),
        [
            "ana-1  normal  running in slot 0",
            "ana-2  normal  queued, place 1, nobody knows when: its owner may have 1 running at once, and has those or sooner \
             ones",
            "bo-1   normal  running in slot 1",
        ]
    );
}

#[tokio::test]
async fn no_more_jobs_of_a_user_wait_than_allowed() {
    let mut w = World::new().await;
    let one = JobTerms { max_waiting: Some(1), ..JobTerms::default() };
    let first = w.job_of("first", &of("ana"), &one).await;
    let job = w.store.job(&first).await.expect("found");
    let refused = w.store.insert_job(&job.spec, &of("ana"), &one).await.expect_err("one waits").to_string();
    assert!(refused.contains("1 jobs of 'ana' wait already") && refused.contains("cancel some"), "{refused}");
    w.store.insert_job(&job.spec, &of("bo"), &one).await.expect("it is another user's");
    w.tick().await;
    w.store.insert_job(&job.spec, &of("ana"), &one).await.expect("the first one runs now");
    assert!(matches!(w.store.set_priority(&first, Priority::Low).await, Err(StoreError::NotWaiting { .. })));
}

#[tokio::test]
async fn a_job_waits_for_memory_unless_nothing_else_runs() {
    let free_bytes = Arc::new(AtomicU64::new(1 << 20));
    let told = free_bytes.clone();
    let memory = ReadMemory::new(move || {
        let free_bytes = told.load(Ordering::Relaxed);
        Some(JobMemory::Shared(DeviceMemory { device: "cpu".into(), free_bytes, all_bytes: 1 << 40 }))
    });
    let rules = QueueRules::new(3);
    let mut s = Story::with_memory(rules, memory).await;
    s.send("ana-1", Priority::Normal).await;
    s.send("bo-1", Priority::Normal).await;
    s.send("bo-2", Priority::Normal).await;
    s.tell("").await;
    let told: Vec<_> = s.text.lines().skip(1).map(str::trim).collect();
    assert_eq!(told[0], "ana-1  normal  running in slot 0", "nothing else ran: waiting would not have helped");
    assert!(told[1].contains("place 1") && told[1].contains("needs about 0.1 GiB of memory"), "{}", told[1]);
    assert!(told[2].starts_with("bo-2   normal  queued, place 2"), "nobody passes: {}", told[2]);
    s.w.tick().await;
    let said = s.w.said(&s.job("bo-1")).await;
    assert_eq!(said.iter().filter(|line| line.contains("waits for memory")).count(), 1, "{said:?}");

    free_bytes.store(1 << 40, Ordering::Relaxed);
    s.text.clear();
    s.tell("").await;
    assert_eq!(s.text.matches("running").count(), 3, "{}", s.text);
}

#[tokio::test]
async fn a_job_gets_the_gpu_with_the_most_memory_and_waits_while_others_run() {
    let free_bytes = Arc::new(Mutex::new([1_u64 << 20, 0, 2 << 20]));
    let told = free_bytes.clone();
    let memory = ReadMemory::new(move || {
        let of = |free_bytes| DeviceMemory { device: "a GPU".into(), free_bytes, all_bytes: 1 << 40 };
        Some(JobMemory::OfSlots(told.lock().expect("not poisoned").map(of).to_vec()))
    });
    let mut s = Story::with_memory(QueueRules::new(3), memory).await;
    s.send("ana-1", Priority::Normal).await;
    s.send("bo-1", Priority::Normal).await;
    s.tell("").await;
    assert!(s.text.contains("ana-1  normal  running in slot 2"), "nothing else ran: {}", s.text);
    assert!(s.text.contains("needs about 0.1 GiB of memory"), "{}", s.text);
    *free_bytes.lock().expect("not poisoned") = [1 << 30, 1 << 20, 2 << 30];
    s.text.clear();
    s.tell("").await;
    for line in ["ana-1  normal  running in slot 2", "bo-1   normal  running in slot 0"] {
        assert!(s.text.contains(line), "{}", s.text);
    }
}
