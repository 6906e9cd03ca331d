//! What the run says: `events.jsonl`, without repeating what an earlier attempt has said, and its metrics once more for TensorBoard.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use super::tensorboard::EventFile;
use crate::{
    domain::{EventRecord, Level, Phase, RunEvent},
    run_dir::{JsonLines, RunDir},
};

/// The open event file.
pub(super) struct Journal {
    lines: JsonLines,
    said: BTreeSet<(u8, u64)>,
    /// Where TensorBoard's copy of the metrics goes, and this attempt's file once there are any.
    tensorboard: (PathBuf, Option<EventFile>),
}

impl Journal {
    /// Opens it and notes which steps' events already stand.
    pub(super) fn open(run: &RunDir) -> anyhow::Result<Self> {
        let lines = JsonLines::open(&run.events())?;
        let (mut said, mut offset) = (BTreeSet::new(), 0);
        loop {
            let (events, next) = run.read_events(offset, 64 << 20)?;
            said.extend(events.iter().filter_map(|e| e.record.event.repeatable_step()));
            if events.is_empty() {
                return Ok(Self { lines, said, tensorboard: (run.tensorboard(), None) });
            }
            offset = next;
        }
    }

    /// Appends an event, unless an earlier attempt has already said it.
    pub(super) fn say(&mut self, event: RunEvent) -> anyhow::Result<()> {
        if let Some(step) = event.repeatable_step()
            && !self.said.insert(step)
        {
            return Ok(());
        }
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        let record = EventRecord { at_ms, event };
        // First the file that counts: of what the other one lacks nothing is lost.
        self.lines.append(&record)?;
        match &record.event {
            RunEvent::Metrics { step, values } => self.plot(("train/", values), *step, at_ms),
            RunEvent::Evaluation { step, values, .. } => self.plot(("eval/", values), *step, at_ms),
            _ => Ok(()),
        }
    }

    fn plot(&mut self, values: (&str, &BTreeMap<String, f64>), step: u64, at_ms: i64) -> anyhow::Result<()> {
        let (directory, file) = &mut self.tensorboard;
        let file = match file {
            Some(file) => file,
            None => file.insert(EventFile::create(directory, at_ms)?),
        };
        Ok(file.scalars(values, step, at_ms)?)
    }

    /// A line for people.
    pub(super) fn message(&mut self, level: Level, message: impl Into<String>) -> anyhow::Result<()> {
        self.say(RunEvent::Message { level, message: message.into(), data: None })
    }

    /// How far a phase is.
    pub(super) fn progress(
        &mut self,
        phase: Phase,
        done: usize,
        total: usize,
        item: Option<&str>,
    ) -> anyhow::Result<()> {
        self.say(RunEvent::Progress {
            phase,
            n_done: done as u64,
            n_total: total as u64,
            item: item.map(str::to_owned),
        })
    }

    /// Waits until all of it is on the disk.
    pub(super) fn sync(&self) -> anyhow::Result<()> {
        Ok(self.lines.sync()?)
    }
}
