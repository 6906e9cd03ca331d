//! Runs of the real program in directories of their own: how they are started, hit and compared.
#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use mrpo::{
    domain::{
        Failure, Hyperparameters, JobId, Method, Problems, ResolvedReference, RunEvent, RunSpec, TrainSpec, metric,
    },
    run_dir::{RunDir, read_json},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tiny;

/// How long a test waits for a run.
const PATIENCE: Duration = Duration::from_mins(2);

/// Two models, two files, and the runs that use them.
pub(crate) struct World {
    directory: TempDir,
    references: Vec<ResolvedReference>,
}

/// The moment at which a run is hit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    /// So many scores are written.
    Scored(usize),
    /// The metrics of this step are written.
    Step(u64),
    /// The checkpoint of this step has its name, whether the run has said so or not.
    Saved(u64),
}

/// What must not depend on how often a run was hit.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    last: RunEvent,
    /// By kind and step, each exactly once.
    events: BTreeMap<(u8, u64), Value>,
    /// Digests of what the last checkpoint holds.
    files: BTreeMap<String, String>,
}

/// A tiny model of this name below `directory`, as a reference.
pub(crate) fn reference(directory: &Path, name: &str, seed: usize) -> ResolvedReference {
    let location = tiny::write_model(&directory.join(name), seed);
    let (digest, _) = mrpo::fetch::digest(&location).unwrap();
    ResolvedReference { model: name.parse().unwrap(), digest, location, weight: None }
}

impl World {
    pub(crate) fn new(n_pairs: usize, n_chars: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let references = [("base", 1), ("other", 50)].map(|(name, seed)| reference(directory.path(), name, seed));
        let world = Self { directory, references: references.into() };
        std::fs::write(world.path("training.jsonl"), tiny::pairs(n_pairs, 0, n_chars)).unwrap();
        std::fs::write(world.path("validation.jsonl"), tiny::pairs(3, 900, n_chars)).unwrap();
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A run of the method `mrpo`.
    pub(crate) fn spec(&self, hyperparameters: &Value) -> TrainSpec {
        self.spec_of(Method::Mrpo, hyperparameters)
    }

    pub(crate) fn spec_of(&self, method: Method, hyperparameters: &Value) -> TrainSpec {
        let mut problems = Problems::default();
        let request = serde_json::from_value(hyperparameters.clone()).unwrap();
        let hyperparameters = Hyperparameters::resolve(&request, &method, "", &mut problems);
        assert!(problems.first.is_empty(), "{:?}", problems.first);
        TrainSpec {
            job: JobId::new(),
            seed: 7,
            references: self.references.clone(),
            method,
            earlier: Vec::new(),
            training_file: self.path("training.jsonl"),
            validation_file: Some(self.path("validation.jsonl")),
            training_format: None,
            validation_format: None,
            hyperparameters,
        }
    }

    pub(crate) fn run(&self, name: &str, spec: TrainSpec) -> Run {
        let dir = RunDir::new(self.path(name));
        dir.create(&RunSpec::Train(Box::new(spec))).unwrap();
        Run { dir }
    }
}

/// A run's directory.
pub(crate) struct Run {
    pub(crate) dir: RunDir,
}

impl Run {
    fn start(&self) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.stderr()).unwrap();
        Command::new(env!("CARGO_BIN_EXE_mrpo"))
            .arg("run")
            .arg(self.dir.root())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Starts it and waits for its end.
    pub(crate) fn finish(&self) -> RunEvent {
        let status = self.start().wait().unwrap();
        assert!(status.success(), "{}", std::fs::read_to_string(self.dir.stderr()).unwrap());
        self.events().pop().unwrap()
    }

    /// Starts it where no file may be longer than so many bytes, as on a disk that is full, and waits for its end.
    pub(crate) fn finish_within(&self, n_bytes: u64) -> ExitStatus {
        Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f $1; exec $0 run $2", env!("CARGO_BIN_EXE_mrpo")])
            .arg((n_bytes / 512).to_string())
            .arg(self.dir.root())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
    }

    /// Starts it, and hits it at the moment. Returns its last event.
    pub(crate) fn hit(&self, moment: Moment, signal: Signal) -> RunEvent {
        let mut child = self.start();
        let begin = Instant::now();
        while !self.has_come(moment) {
            assert!(child.try_wait().unwrap().is_none(), "it ended before {moment:?}: {:?}", self.events().pop());
            assert!(begin.elapsed() < PATIENCE, "{moment:?} never comes");
            std::thread::sleep(Duration::from_millis(1));
        }
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        child.wait().unwrap();
        let last = self.events().pop().unwrap();
        assert!(!matches!(last, RunEvent::Succeeded { .. }), "it was done before it was hit at {moment:?}");
        last
    }

    fn has_come(&self, moment: Moment) -> bool {
        match moment {
            Moment::Scored(n) => self.scores().len() >= n,
            Moment::Step(step) => self.events().iter().any(|e| e.repeatable_step() == Some((0, step))),
            Moment::Saved(step) => self.checkpoint(step).exists(),
        }
    }

    pub(crate) fn checkpoint(&self, step: u64) -> PathBuf {
        self.dir.checkpoints().join(RunDir::checkpoint_name(step))
    }

    pub(crate) fn events(&self) -> Vec<RunEvent> {
        let (events, _) = self.dir.read_events(0, 64 << 20).unwrap();
        events.into_iter().map(|e| e.record.event).collect()
    }

    /// Every score as (reference, chosen, rejected).
    pub(crate) fn scores(&self) -> Vec<[String; 2]> {
        let text = std::fs::read_to_string(self.dir.scores_out()).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let lines = whole.map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| ["reference", "row"].map(|key| line[key].to_string())).collect()
    }

    /// What came of it; `extra` names the steps of checkpoints that only a stop has brought.
    pub(crate) fn outcome(&self, extra: &[u64]) -> Outcome {
        let mut events = BTreeMap::new();
        let mut all = self.events();
        let last = all.pop().unwrap();
        assert!(matches!(last, RunEvent::Succeeded { .. }), "{last:?}");
        for event in all {
            let Some(key) = event.repeatable_step() else { continue };
            if !extra.iter().any(|step| key == (2, *step)) {
                assert!(events.insert(key, lasting(&event)).is_none(), "said twice: {key:?}");
            }
        }
        let (_, home) = self.dir.list_checkpoints().unwrap().pop().unwrap();
        let manifest: mrpo::run_dir::CheckpointManifest = read_json(&home.join(RunDir::MANIFEST)).unwrap();
        // The loop's state holds how long its last step took.
        let files = manifest.files.into_iter().filter(|f| f.name != "state.json");
        let files: BTreeMap<_, _> = files.map(|f| (f.name, f.sha256)).collect();
        assert!(files.contains_key("optimizer.safetensors"), "{files:?}");
        Outcome { last: without_place(last), events, files }
    }
}

/// What of an event does not depend on the clock or the directory.
fn lasting(event: &RunEvent) -> Value {
    let clean = |values: &BTreeMap<String, f64>| {
        let mut values = values.clone();
        values.remove(metric::STEP_DURATION_MS);
        json!(values)
    };
    match event {
        RunEvent::Metrics { values, .. } => clean(values),
        RunEvent::Evaluation { values, phase, .. } => json!([phase, clean(values)]),
        RunEvent::Checkpoint(summary) => json!([summary.model.digest, clean(&summary.metrics)]),
        other => panic!("{other:?} is of no step"),
    }
}

fn without_place(mut last: RunEvent) -> RunEvent {
    if let RunEvent::Succeeded { model: Some(model), .. } = &mut last {
        model.location.weights = PathBuf::new();
        model.location.adapters.clear();
    }
    last
}

/// The failure of a run that must have failed.
pub(crate) fn failure(last: RunEvent) -> Failure {
    let RunEvent::Failed { failure } = last else { panic!("it did not fail: {last:?}") };
    failure
}

/// Adds a line to a file.
pub(crate) fn append(path: &Path, text: &str) {
    let whole = std::fs::read_to_string(path).unwrap() + text;
    std::fs::write(path, whole).unwrap();
}
