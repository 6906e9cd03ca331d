//! A worker on a data directory, with the test in the part of the processes it starts.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mrpo::{
    domain::{EventRecord, FilePurpose, JobId, ModelId, Ownership, QueueRules, ReadMemory, RunEvent, RunId, Viewer},
    launch::{Launcher, Local},
    run_dir::{JsonLines, RunDir, RunLock},
    store::{FileQuery, JobQuery, JobTerms, Store},
    worker::{Worker, WorkerConfig},
};
use tempfile::TempDir;

use crate::records::{file, info, open, spec};

/// How long a test waits for the operating system.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// When every test begins, in Unix seconds.
pub(crate) const BEGIN: i64 = 1_800_000_000;

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) store: Store,
    pub(crate) worker: Worker,
    pub(crate) now: i64,
    jobs: Vec<(&'static str, JobId)>,
    models: Vec<ModelId>,
}

impl World {
    /// Whatever is started ends at once: the test itself plays the processes.
    pub(crate) async fn new() -> Self {
        Self::with_program("/bin/true".into()).await
    }

    pub(crate) async fn with_program(program: PathBuf) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = open(dir.path()).await;
        let worker = worker(&store, dir.path(), program);
        Self { dir, store, worker, now: BEGIN, jobs: Vec::new(), models: Vec::new() }
    }

    /// The same with slots and limits.
    pub(crate) async fn with_queue(queue: QueueRules, memory: ReadMemory) -> Self {
        let mut world = Self::new().await;
        let config = WorkerConfig { queue, memory, ..WorkerConfig::new(world.dir.path().to_owned(), 1) };
        let launcher = Launcher::Local(Local::on_cpu("/bin/true".into()));
        world.worker = Worker::new(world.store.clone(), launcher, config);
        world
    }

    /// Another server on the same data directory; the one before is gone without a farewell.
    pub(crate) async fn restart(&mut self) {
        self.store = open(self.dir.path()).await;
        self.worker = worker(&self.store, self.dir.path(), "/bin/true".into());
    }

    /// A model that is ready: registered by a run that the test played.
    pub(crate) async fn ready_model(&mut self, name: &str) -> ModelId {
        let id = self.pending_model(name).await;
        self.tick().await;
        let mut process = self.newest_process();
        process.say(RunEvent::Registered { model: info("/models/base.gguf", &[]) });
        process.say(RunEvent::Succeeded { model: None, n_trained_tokens: 0 });
        drop(process);
        self.becomes(&[&format!("{name} ready")]).await;
        self.models.clear();
        id
    }

    pub(crate) async fn pending_model(&mut self, name: &str) -> ModelId {
        let id: ModelId = name.parse().expect("legal");
        self.store
            .insert_model(&id, &"path:/models/base.gguf".parse().expect("legal"), &Ownership::default())
            .await
            .expect("inserted");
        self.models.push(id.clone());
        id
    }

    /// A job on a checked file and the model `smol`; the story calls it `name`.
    pub(crate) async fn job(&mut self, name: &'static str) -> JobId {
        self.job_of(name, &Ownership::default(), &JobTerms::default()).await
    }

    /// The same of somebody, on these terms.
    pub(crate) async fn job_of(&mut self, name: &'static str, ownership: &Ownership, terms: &JobTerms) -> JobId {
        let smol: ModelId = "smol".parse().expect("legal");
        if self.store.model(&smol).await.is_err() {
            self.ready_model("smol").await;
        }
        let newest = self
            .store
            .files(&FileQuery { purpose: Some(FilePurpose::FineTune), limit: 1, ..Default::default() })
            .await
            .expect("listed")
            .items
            .pop();
        let file = match newest {
            Some(file) => file.id,
            None => file(&self.store).await,
        };
        let job = self.store.insert_job(&spec(&smol, &file), ownership, terms).await.expect("inserted").id;
        self.call(name, &job);
        job
    }

    /// Gives a job its name in the story.
    pub(crate) fn call(&mut self, name: &'static str, job: &JobId) {
        self.jobs.push((name, job.clone()));
    }

    pub(crate) async fn tick(&mut self) -> bool {
        self.worker.tick_at(self.now).await.expect("a good look")
    }

    /// The queue as text: a line for every model under registration, then one for every job.
    pub(crate) async fn queue(&self) -> String {
        let mut text = String::new();
        for id in &self.models {
            let model = self.store.model(id).await.expect("found");
            let status = serde_json::to_value(model.status).expect("a word");
            let error = model.error.map_or(String::new(), |e| format!(" ({:?})", e.code));
            writeln!(text, "{id} {}{error}", status.as_str().expect("a word")).expect("memory");
        }
        for (name, id) in &self.jobs {
            let job = self.store.job(id).await.expect("found");
            write!(text, "{name} {}", job.status).expect("memory");
            if let Some((done, total)) = job.progress {
                write!(text, " {done}/{total}").expect("memory");
            }
            if job.n_attempts > 1 {
                write!(text, " attempt {}", job.n_attempts).expect("memory");
            }
            if let Some(error) = job.error {
                write!(text, " ({:?})", error.code).expect("memory");
            }
            text.push('\n');
        }
        text
    }

    /// Looks until the queue is as told. A process needs a moment to end.
    pub(crate) async fn becomes(&mut self, lines: &[&str]) {
        let expected = lines.join("\n") + "\n";
        let asked = Instant::now();
        loop {
            self.tick().await;
            let queue = self.queue().await;
            if queue == expected {
                return;
            }
            assert!(asked.elapsed() < PATIENCE, "the queue stays\n{queue}and never becomes\n{expected}");
            tokio::task::yield_now().await;
        }
    }

    /// One look, and what the queue is then.
    pub(crate) async fn is(&mut self, lines: &[&str]) {
        self.tick().await;
        assert_eq!(self.queue().await.lines().collect::<Vec<_>>(), lines);
    }

    /// Everything a job has said, oldest first.
    pub(crate) async fn said(&self, job: &JobId) -> Vec<String> {
        let page = self.store.live_events(Some(job), &Viewer::default(), 0, 1000).await.expect("listed");
        page.items.into_iter().map(|live| live.event.message).collect()
    }

    pub(crate) fn run_dir(&self, run: &RunId) -> RunDir {
        RunDir::new(self.dir.path().join("runs").join(run.as_str()))
    }

    /// Plays the process of a running job.
    pub(crate) async fn process(&self, job: &JobId) -> Process {
        let run = self.store.job(job).await.expect("found").run_id.expect("it has been started");
        Process { at_ms: self.now * 1000, ..Process::begin(self.run_dir(&run)) }
    }

    /// Plays the process of the run that was begun last.
    pub(crate) fn newest_process(&self) -> Process {
        let runs = std::fs::read_dir(self.dir.path().join("runs")).expect("runs");
        let newest = runs.map(|entry| entry.expect("entry").path()).max().expect("one was started");
        Process::begin(RunDir::new(newest))
    }

    pub(crate) async fn jobs(&self) -> usize {
        self.store.jobs(&JobQuery { limit: 100, ..Default::default() }).await.expect("listed").items.len()
    }
}

pub(crate) fn worker(store: &Store, data_dir: &Path, program: PathBuf) -> Worker {
    let config = WorkerConfig::new(data_dir.to_owned(), 1);
    Worker::new(store.clone(), Launcher::Local(Local::on_cpu(program)), config)
}

/// A run's process, played by the test: it lives until it is dropped.
pub(crate) struct Process {
    pub(crate) dir: RunDir,
    events: JsonLines,
    at_ms: i64,
    _lock: RunLock,
}

impl Process {
    pub(crate) fn begin(dir: RunDir) -> Self {
        let lock = dir.lock().expect("asked").expect("nobody else works here");
        // The test is not to be stopped by its own worker: signals for this process go nowhere.
        std::fs::write(dir.root().join("run.lock"), "").expect("written");
        let events = JsonLines::open(&dir.events()).expect("opened");
        Self { dir, events, at_ms: BEGIN * 1000, _lock: lock }
    }

    /// Says one thing, a second after the one before.
    pub(crate) fn say(&mut self, event: RunEvent) {
        self.at_ms += 1000;
        self.events.append(&EventRecord { at_ms: self.at_ms, event }).expect("written");
    }
}
