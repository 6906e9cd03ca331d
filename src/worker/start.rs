//! From a claim to a process: the run's directory, its spec, the start.

use std::io;

use super::{Result, Worker, WorkerError, scores, spec};
use crate::{
    domain::{DryRunSpec, Failure, FailureCode, InspectSpec, JobId, JobSpec, Question, RunSpec, TrainSpec},
    launch::Work,
    run_dir::RunDir,
    store::{Errand, FreeRoom, Lease, Run, RunEnd, RunSubject},
};

impl Worker {
    /// Starts queued jobs while a device is free.
    pub(super) async fn start_jobs(&mut self, lease: &Lease<'_>) -> Result<bool> {
        let mut changed = false;
        loop {
            let (disk, free_bytes) = (&self.config.disk, self.free_disk_bytes);
            let beside_the_reserve = |bytes: u64| bytes.saturating_sub(disk.reserve_bytes());
            let room = FreeRoom {
                memory: self.config.memory.read(),
                disk_bytes: beside_the_reserve(free_bytes),
                most_disk_bytes: disk.space().map_or(u64::MAX, |space| beside_the_reserve(space.total_bytes)),
            };
            let Some(run) = self.store.claim_job(lease, &self.config.queue, &room).await? else { break };
            let slot = run.slot.expect("claim_job gives every run a slot");
            changed = true;
            if !self.start(&run, Work::Train { slot }).await? {
                break; // it may be queued again: not twice in one look
            }
        }
        Ok(changed)
    }

    /// Starts what needs no device, some of each kind at a time.
    pub(super) async fn start_errands(&mut self, errand: Errand, lease: &Lease<'_>) -> Result<bool> {
        let (max_at_once, work) = match errand {
            Errand::Registration => (self.config.n_registrations, Work::Register),
            Errand::Inspection => (self.config.n_inspections, Work::Inspect),
            Errand::Export => (self.config.n_exports, Work::Export),
        };
        let mut changed = false;
        // A question is answered also then: it writes next to nothing.
        if errand != Errand::Inspection && self.config.disk.is_low_at(self.free_disk_bytes) {
            return Ok(false);
        }
        while let Some(run) = self.store.claim_errand(errand, lease, max_at_once).await? {
            changed = true;
            if !self.start(&run, work).await? {
                break;
            }
        }
        Ok(changed)
    }

    /// Starts the process of a claimed run. Returns whether it could be started; if not, the run has ended.
    async fn start(&mut self, run: &Run, work: Work) -> Result<bool> {
        let dir = self.dir(&run.id);
        let started = match self.write_spec(run, &dir).await? {
            Ok(()) => self.launcher.launch(&dir, work).map_err(|e| self.could_not_start(&e)),
            Err(end) => Err(end),
        };
        let started = started.map_err(|end| self.spared(run, end));
        match &started {
            Ok(()) => tracing::info!(run_id = %run.id, ?run.subject, run.n_attempts, ?work, "started a run"),
            Err(end) => {
                tracing::warn!(run_id = %run.id, ?run.subject, ?end, "a run could not be started");
                self.record(run, &[], run.events_offset, Some(end)).await?;
            }
        }
        Ok(started.is_ok())
    }

    /// Writes the spec, and before it what is known of the references' scores, before the first attempt. Later ones find it:
    /// what a run does never changes on the way.
    async fn write_spec(&self, run: &Run, dir: &RunDir) -> Result<std::result::Result<(), RunEnd>> {
        if dir.spec().is_ok() {
            return Ok(Ok(()));
        }
        let spec = match &run.subject {
            RunSubject::Job(job) => {
                let job = self.store.job(job).await?;
                self.train(&job.id, &job.spec, dir).await?.map(|spec| RunSpec::Train(Box::new(spec)))
            }
            RunSubject::Model(model) => {
                let model = self.store.model(model).await?;
                let spec = spec::register(&self.store, &self.config, &model).await?;
                spec.map(|spec| RunSpec::Register(Box::new(spec))).map_err(RunEnd::Failed)
            }
            RunSubject::Inspection(id) => {
                self.inspect(self.store.question(id).await?, dir).await?.map(RunSpec::Inspect)
            }
            RunSubject::Export(id) => {
                spec::export(&self.store, &self.config, id).await?.map(RunSpec::Export).map_err(RunEnd::Failed)
            }
        };
        let spec = match spec {
            Ok(spec) => spec,
            Err(end) => return Ok(Err(end)),
        };
        let dir = dir.clone();
        let written = tokio::task::spawn_blocking(move || dir.create(&spec))
            .await
            .map_err(|e| WorkerError::Run { run_id: run.id.clone(), source: io::Error::other(e) })?;
        Ok(written.map_err(|e| self.could_not_start(&e)))
    }

    /// What a job's run is told, its directory with what is known of the scores in it.
    async fn train(&self, id: &JobId, job: &JobSpec, dir: &RunDir) -> Result<std::result::Result<TrainSpec, RunEnd>> {
        let spec = match spec::train(&self.store, &self.config, id, job).await? {
            Ok(spec) => spec,
            Err(failure) => return Ok(Err(RunEnd::Failed(failure))),
        };
        let handed_over = scores::hand_over(&self.store, dir, job, &spec).await?;
        Ok(handed_over.map(|()| spec).map_err(|e| self.could_not_start(&e)))
    }

    /// A question as a run gets it. One about a job gets all that the job's run would get.
    async fn inspect(&self, question: Question, dir: &RunDir) -> Result<std::result::Result<InspectSpec, RunEnd>> {
        let job = match question {
            Question::Preview(spec) => return Ok(Ok(InspectSpec::Preview(spec))),
            Question::DryRun(job) => job,
        };
        let device = self.launcher.device().to_owned();
        // There is no job: the id names none.
        let train = self.train(&JobId::new(), &job, dir).await?;
        Ok(train.map(|train| InspectSpec::DryRun(Box::new(DryRunSpec { train, device, retention: job.retention }))))
    }

    /// A full disk stays full, and a job waits for it (`spared`); anything else may pass, so it counts as a death and is tried again.
    fn could_not_start(&self, error: &io::Error) -> RunEnd {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            let message = format!("the run could not be started, the disk is full: {error}");
            return RunEnd::Failed(Failure::new(FailureCode::DiskFull, message));
        }
        let failure = Failure::new(FailureCode::RunDied, format!("the run's process could not be started: {error}"));
        RunEnd::Died { failure, max_deaths: self.config.max_deaths }
    }
}
