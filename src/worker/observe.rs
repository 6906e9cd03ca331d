//! One look at one run: what has it said, does its process live, must it stop, has it ended.

use std::io;

use super::{Result, Worker, WorkerError, leftovers};
use crate::{
    domain::{EventRecord, Failure, FailureCode, JobId, Level, ReferenceScore, RunEvent},
    launch::{ProcessStatus, Stop},
    run_dir::RunDir,
    store::{Run, RunBatch, RunEnd, RunSubject, StoreError},
};

/// How much of `events.jsonl` is read and recorded at once; no line is longer.
const MAX_BATCH_BYTES: u64 = 4 << 20;

/// The same of `scores.out.jsonl`: some five thousand scores, which take the write lock for a few hundredths of a second.
const MAX_SCORES_BYTES: u64 = 1 << 20;

impl Worker {
    pub(super) async fn observe(&mut self, run: &Run, now: i64) -> Result<bool> {
        let dir = self.dir(&run.id);
        let failed = |source| WorkerError::Run { run_id: run.id.clone(), source };
        // Asked before the events are read: what a process that is gone has said is then all there.
        let process = self.launcher.status(&dir).map_err(failed)?;
        match self.observe_process(run, &dir, &process, now).await {
            Err(WorkerError::Run { source, .. }) if source.kind() == io::ErrorKind::InvalidData => {
                self.give_up_unreadable(run, &dir, &process, &source).await
            }
            Err(WorkerError::Store(StoreError::LeaseLost { run_id })) => {
                tracing::warn!(run_id, "another worker has taken this run over");
                Ok(true)
            }
            other => other,
        }
    }

    async fn observe_process(&mut self, run: &Run, dir: &RunDir, process: &ProcessStatus, now: i64) -> Result<bool> {
        // Before the events: whatever ends the run, what it has scored is then kept, with the end or before it.
        let (scores, next_scores_offset) = self.record_all_but_the_last_scores(run, dir).await?;
        let (mut events, mut next_offset) = self.record_all_but_the_last_batch(run, dir).await?;
        let last = events.pop_if(|(_, record)| record.event.is_last());
        let last_offset = last.as_ref().map(|(offset, _)| *offset);
        let end = match (process, last) {
            (ProcessStatus::Gone { .. }, Some((_, record))) => Some(self.spared(run, end_of(record.event))),
            (ProcessStatus::Gone { how }, None) if events.is_empty() => {
                Some(self.spared(run, self.died(dir, how.as_deref())))
            }
            // First what it said; that it died is recorded in the next look.
            (ProcessStatus::Gone { .. }, None) => None,
            (ProcessStatus::Live, Some((offset, _))) => {
                // The last word counts when the process has gone: its device and its directory are free only then.
                next_offset = offset;
                self.hurry(run, dir, now, false)?;
                None
            }
            (ProcessStatus::Live, None) => {
                if run.stop_requested.is_some() {
                    self.hurry(run, dir, now, true)?;
                } else if let RunSubject::Job(job) = &run.subject
                    && self.config.disk.is_critical_at(self.free_disk_bytes)
                {
                    self.interrupt_for_disk(run, job, dir, now).await?;
                }
                None
            }
        };
        if events.is_empty() && scores.is_empty() && end.is_none() {
            return Ok(false);
        }
        if let Some(end) = &end {
            leftovers::discard(run, dir, end).await;
        }
        let mut results = Vec::new();
        if let (RunSubject::Job(job), Some(RunEnd::Succeeded { model: Some(_), .. }), Some(offset)) =
            (&run.subject, &end, last_offset)
        {
            // The last metrics first, but not the last word: after a crash in between the rest is done again.
            self.record(run, &events, offset, None).await?;
            events.clear();
            results = self.results_of(job).await?;
        }
        let results = results.as_slice();
        let batch = self.batch(run, &events, next_offset);
        let (scores, next_scores_offset) = (scores.as_slice(), Some(next_scores_offset));
        self.store.record(&RunBatch { scores, next_scores_offset, results, end: end.as_ref(), ..batch }).await?;
        if events.iter().any(|(_, record)| matches!(record.event, RunEvent::Checkpoint(_))) {
            // What it is one too many of goes before the next is written.
            self.retained_at = 0;
        }
        if let Some(end) = &end {
            // It may be started again in this very look, with all its time before it.
            self.due_since.remove(&run.id);
            if matches!(run.subject, RunSubject::Inspection(_)) {
                // Its answer is in the database, and it holds text.
                leftovers::forget(dir).await;
            }
            tracing::info!(run_id = %run.id, ?run.subject, end = in_a_word(end), "a run has ended");
        }
        Ok(true)
    }

    /// Records what stands in the file up to its last batch, which it returns: only its last event can be the run's.
    async fn record_all_but_the_last_batch(&self, run: &Run, dir: &RunDir) -> Result<(Vec<(u64, EventRecord)>, u64)> {
        let (mut batch, mut next_offset) = (Vec::new(), run.events_offset);
        loop {
            let (dir, from) = (dir.clone(), next_offset);
            let (events, end) = tokio::task::spawn_blocking(move || dir.read_events(from, MAX_BATCH_BYTES))
                .await
                .map_err(io::Error::other)
                .flatten()
                .map_err(|source| WorkerError::Run { run_id: run.id.clone(), source })?;
            if events.is_empty() {
                return Ok((batch, next_offset));
            }
            if !batch.is_empty() {
                self.record(run, &batch, next_offset, None).await?;
            }
            batch = events.into_iter().map(|event| (event.offset, event.record)).collect();
            next_offset = end;
        }
    }

    /// Keeps what stands in `scores.out.jsonl` up to its last batch, which it returns.
    async fn record_all_but_the_last_scores(&self, run: &Run, dir: &RunDir) -> Result<(Vec<ReferenceScore>, u64)> {
        let (mut batch, mut next_offset) = (Vec::new(), run.scores_offset);
        loop {
            let (dir, from) = (dir.clone(), next_offset);
            let (scores, end) = tokio::task::spawn_blocking(move || dir.read_scores(from, MAX_SCORES_BYTES))
                .await
                .map_err(io::Error::other)
                .flatten()
                .map_err(|source| WorkerError::Run { run_id: run.id.clone(), source })?;
            if scores.is_empty() {
                return Ok((batch, next_offset));
            }
            if !batch.is_empty() {
                let (scores, next_scores_offset) = (batch.as_slice(), Some(next_offset));
                let nothing_said = self.batch(run, &[], run.events_offset);
                self.store.record(&RunBatch { scores, next_scores_offset, ..nothing_said }).await?;
            }
            (batch, next_offset) = (scores, end);
        }
    }

    fn batch<'a>(&'a self, run: &'a Run, events: &'a [(u64, EventRecord)], next_offset: u64) -> RunBatch<'a> {
        let (owner, now) = (&self.owner, self.now);
        RunBatch {
            run_id: &run.id,
            owner,
            events,
            next_offset,
            scores: &[],
            next_scores_offset: None,
            results: &[],
            end: None,
            now,
        }
    }

    pub(super) async fn record(
        &self,
        run: &Run,
        events: &[(u64, EventRecord)],
        next_offset: u64,
        end: Option<&RunEnd>,
    ) -> Result<()> {
        Ok(self.store.record(&RunBatch { end, ..self.batch(run, events, next_offset) }).await?)
    }

    /// Sees to it that a process ends: asks once, where it has to be asked, and kills it when its time is over.
    fn hurry(&mut self, run: &Run, dir: &RunDir, now: i64, ask: bool) -> Result<()> {
        let stop = match self.due_since.get(&run.id) {
            None => {
                self.due_since.insert(run.id.clone(), now);
                if !ask {
                    return Ok(());
                }
                Stop::Gently
            }
            Some(since) if now - since >= self.config.grace.as_secs() as i64 => Stop::AtOnce,
            Some(_) => return Ok(()),
        };
        tracing::info!(run_id = %run.id, how = ?stop, "stopping a run's process");
        self.launcher.stop(dir, stop).map_err(|source| WorkerError::Run { run_id: run.id.clone(), source })
    }

    /// Lets a job save its state and go back into the queue, where it waits until there is room again.
    async fn interrupt_for_disk(&mut self, run: &Run, job: &JobId, dir: &RunDir, now: i64) -> Result<()> {
        let is_first = !self.due_since.contains_key(&run.id);
        self.hurry(run, dir, now, true)?;
        let said = "The disk is nearly full: the job saves its state, and goes on by itself when there is room again";
        // On a full disk that may not be written: it must stop nevertheless.
        if is_first && let Err(error) = self.store.tell(job, Level::Warn, said).await {
            tracing::warn!(run_id = %run.id, %error, "a job could not be told that the disk is nearly full");
        }
        Ok(())
    }

    /// A job that ended badly for the disk's sake has not failed: it waits in the queue until there is room. Where its process was
    /// told to stop by us, that is no death either; where it was not, a quota may be the reason, so it must not go on for ever.
    pub(super) fn spared(&self, run: &Run, end: RunEnd) -> RunEnd {
        let (RunSubject::Job(_), RunEnd::Failed(failure) | RunEnd::Died { failure, .. }) = (&run.subject, &end) else {
            return end;
        };
        let (failure, is_full) = (failure.clone(), failure.code == FailureCode::DiskFull);
        let is_ours = run.stop_requested.is_none() && self.due_since.contains_key(&run.id);
        match end {
            RunEnd::Died { .. } if is_ours => RunEnd::Interrupted { failure },
            RunEnd::Failed(_) if is_full && is_ours => RunEnd::Interrupted { failure },
            RunEnd::Failed(_) if is_full => RunEnd::Died { failure, max_deaths: self.config.max_deaths },
            other => other,
        }
    }

    /// Events are never skipped, so a file with a line that cannot be read ends its run.
    async fn give_up_unreadable(
        &mut self,
        run: &Run,
        dir: &RunDir,
        process: &ProcessStatus,
        why: &io::Error,
    ) -> Result<bool> {
        if *process == ProcessStatus::Live {
            let stopped = self.launcher.stop(dir, Stop::AtOnce);
            stopped.map_err(|source| WorkerError::Run { run_id: run.id.clone(), source })?;
            return Ok(true);
        }
        let failure = Failure::new(FailureCode::Internal, format!("what the run said cannot be read: {why}"));
        let end = RunEnd::Failed(failure);
        leftovers::discard(run, dir, &end).await;
        self.record(run, &[], run.events_offset, Some(&end)).await?;
        Ok(true)
    }

    /// What its process printed may hold training text: the message only says where that is.
    fn died(&self, dir: &RunDir, how: Option<&str>) -> RunEnd {
        let how = how.map_or(String::new(), |how| format!(": {how}"));
        let message = format!("the run's process ended without saying why{how}; see {}", dir.stderr().display());
        RunEnd::Died { failure: Failure::new(FailureCode::RunDied, message), max_deaths: self.config.max_deaths }
    }
}

fn end_of(event: RunEvent) -> RunEnd {
    match event {
        RunEvent::Succeeded { model, n_trained_tokens } => RunEnd::Succeeded { model, n_trained_tokens },
        RunEvent::Stopped { step } => RunEnd::Stopped { step },
        RunEvent::Failed { failure } => RunEnd::Failed(failure),
        _ => unreachable!("is_last() is true for these three only"),
    }
}

fn in_a_word(end: &RunEnd) -> &'static str {
    match end {
        RunEnd::Succeeded { .. } => "succeeded",
        RunEnd::Stopped { .. } => "stopped",
        RunEnd::Failed(_) => "failed",
        RunEnd::Died { .. } => "died",
        RunEnd::Interrupted { .. } => "interrupted",
    }
}
