//! The files of one run and their formats: the only thing the two halves of mrpo exchange.
//!
//! ```text
//! spec.json               what to do; written once, before the first process
//! run.lock                held (flock) by the process that works here, with its pid inside: a free lock means nobody does
//! events.jsonl            what the process says; only appended to, read from an offset
//! scores.in.jsonl         reference log-probabilities known before; written once, before spec.json
//! scores.out.jsonl        reference log-probabilities computed so far; only appended to, read from an offset
//! stderr.log              what the process printed
//! checkpoints/step-000100 one complete checkpoint; `manifest.json` lists its files
//! tensorboard/            the metrics once more, as TensorBoard reads them; a file per attempt, only appended to
//! export/                 what an export makes; whole when the run has succeeded
//! ```

mod checkpoints;
mod disk;
mod lines;
mod scores;

use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use fs_err as fs;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::{
    checkpoints::Reading,
    disk::{AskSpace, Disk, Space, free_disk_bytes},
    scores::{ScoresIn, read_all_scores},
};
use crate::domain::{EventRecord, HashedFile, RunSpec};

/// How often, and how long apart, a process tries to take the lock.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A run's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    root: PathBuf,
}

/// The lock of a run directory; free again when dropped or when the process ends, however it ends.
#[derive(Debug)]
pub struct RunLock {
    file: Flock<std::fs::File>,
}

/// `manifest.json` of a checkpoint: written last, so a checkpoint with one is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointManifest {
    /// Optimizer steps done.
    pub step: u64,
    /// Its files, by name, the manifest itself left out.
    pub files: Vec<HashedFile>,
}

/// An event as read back.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadEvent {
    /// Where its line begins: its identity.
    pub offset: u64,
    /// What it says.
    pub record: EventRecord,
}

impl RunDir {
    /// Name of a checkpoint's manifest.
    pub const MANIFEST: &'static str = "manifest.json";

    /// What the names of TensorBoard's files begin with.
    pub const TENSORBOARD_PREFIX: &'static str = "events.out.tfevents.";

    /// The run directory at `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the directory and writes `spec.json`, whole or not at all.
    pub fn create(&self, spec: &RunSpec) -> io::Result<()> {
        fs::create_dir_all(self.checkpoints())?;
        write_atomic(&self.root.join("spec.json"), &serde_json::to_vec_pretty(spec)?)
    }

    /// Reads `spec.json`.
    pub fn spec(&self) -> io::Result<RunSpec> {
        read_json(&self.root.join("spec.json"))
    }

    /// `events.jsonl`.
    pub fn events(&self) -> PathBuf {
        self.root.join("events.jsonl")
    }

    /// `stderr.log`.
    pub fn stderr(&self) -> PathBuf {
        self.root.join("stderr.log")
    }

    /// `checkpoints/`.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Directory name of the checkpoint at `step`.
    pub fn checkpoint_name(step: u64) -> String {
        format!("step-{step:06}")
    }

    /// `tensorboard/`, where the metrics stand once more.
    pub fn tensorboard(&self) -> PathBuf {
        self.root.join("tensorboard")
    }

    /// TensorBoard's files as they are now: names and sizes in bytes, the oldest first. None before there are metrics.
    pub fn tensorboard_files(&self) -> io::Result<Vec<(String, u64)>> {
        let entries = match std::fs::read_dir(self.tensorboard()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string()
                && name.starts_with(Self::TENSORBOARD_PREFIX)
            {
                files.push((name, entry.metadata()?.len()));
            }
        }
        files.sort();
        Ok(files)
    }

    /// `export/`, where an export is written.
    pub fn export(&self) -> PathBuf {
        self.root.join("export")
    }

    /// The directory with an export's files, below `export/`; under this name only when whole, or a file under its own.
    pub fn export_files(&self) -> PathBuf {
        self.export().join("files")
    }

    /// Removes whatever an attempt at an export has left.
    pub fn discard_export(&self) -> io::Result<()> {
        remove_all(&self.export())
    }

    /// Removes the directory with all it holds. It has another name first, so that nothing half removed is ever found under its own.
    pub fn remove(&self) -> io::Result<()> {
        let aside = self.root.with_extension("removed");
        remove_all(&aside)?; // a crash may have left it
        match std::fs::rename(&self.root, &aside) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| remove_all(&aside)),
        }
    }

    /// Takes the lock and leaves this process's id in it, or tells that another process works here.
    pub fn lock(&self) -> io::Result<Option<RunLock>> {
        // Whoever asks `is_live` holds the lock for a moment: not a reason to give up.
        for attempt in 0..LOCK_ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(LOCK_PAUSE);
            }
            if let Some(mut lock) = self.try_lock()? {
                lock.file.set_len(0)?;
                write!(lock.file, "{}", std::process::id())?;
                return Ok(Some(lock));
            }
        }
        Ok(None)
    }

    fn try_lock(&self) -> io::Result<Option<RunLock>> {
        let path = self.root.join("run.lock");
        let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Some(RunLock { file })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }

    /// Whether a process works here now.
    pub fn is_live(&self) -> io::Result<bool> {
        if !self.root.join("run.lock").exists() {
            return Ok(false);
        }
        Ok(self.try_lock()?.is_none())
    }

    /// The id of the process that works here now; `None` also in the moment before it has written it.
    pub fn holder(&self) -> io::Result<Option<u32>> {
        if !self.is_live()? {
            return Ok(None);
        }
        Ok(std::fs::read_to_string(self.root.join("run.lock"))?.parse().ok())
    }

    /// Every whole line of `events.jsonl` from `offset` on, at most `max_bytes` of them, and the offset to go on from.
    ///
    /// A line still being written (no newline yet) is left for the next call. A line that does not parse is an error:
    /// events are never skipped.
    pub fn read_events(&self, offset: u64, max_bytes: u64) -> io::Result<(Vec<ReadEvent>, u64)> {
        let (lines, next) = lines::read(&self.events(), offset, max_bytes)?;
        Ok((lines.into_iter().map(|(offset, record)| ReadEvent { offset, record }).collect(), next))
    }
}

/// An append-only file of JSON lines that survives being killed in the middle of a line.
#[derive(Debug)]
pub struct JsonLines {
    file: std::fs::File,
}

impl JsonLines {
    /// Opens for appending; a last line without its newline (a write that was cut off) is removed first.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = std::fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        let length = file.metadata()?.len();
        let mut end = length;
        let mut byte = [0];
        while end > 0 {
            file.seek(SeekFrom::Start(end - 1))?;
            file.read_exact(&mut byte)?;
            if byte[0] == b'\n' {
                break;
            }
            end -= 1;
        }
        if end < length {
            file.set_len(end)?;
        }
        file.seek(SeekFrom::Start(end))?;
        Ok(Self { file })
    }

    /// Appends one value as one line, in one write. What a full disk cuts off is taken back: the next line is a line again.
    pub fn append(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        let start = self.file.stream_position()?;
        let written = self.file.write_all(&line);
        if written.is_err() {
            self.file.set_len(start)?;
            self.file.seek(SeekFrom::Start(start))?;
        }
        written
    }

    /// Waits until all of it is on the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Writes a file whole or not at all: beside it, synced, renamed, and the directory synced.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    let mut file = fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&beside, path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Makes renames in a directory durable.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Removes a directory and all it holds, if it is there.
fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Reads a JSON file; an error names the path.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&fs::read(path)?)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Level, RunEvent};

    fn message(text: &str) -> EventRecord {
        EventRecord { at_ms: 1, event: RunEvent::Message { level: Level::Info, message: text.into(), data: None } }
    }

    #[test]
    fn a_line_cut_off_by_a_kill_is_neither_read_nor_kept() {
        let dir = tempfile::tempdir().expect("temp dir");
        let run = RunDir::new(dir.path());
        JsonLines::open(&run.events()).and_then(|mut f| f.append(&message("one"))).expect("append");
        let mut half = std::fs::OpenOptions::new().append(true).open(run.events()).expect("open");
        half.write_all(br#"{"at_ms":2,"type":"mess"#).expect("write");
        let (events, next) = run.read_events(0, 1 << 20).expect("read");
        assert_eq!(events.len(), 1);
        JsonLines::open(&run.events()).and_then(|mut f| f.append(&message("two"))).expect("append");
        let (events, end) = run.read_events(next, 1 << 20).expect("read");
        assert_eq!((events.len(), events[0].offset), (1, next));
        assert_eq!(events[0].record, message("two"));
        assert_eq!(run.read_events(end, 1 << 20).expect("read").0, []);
    }

    #[test]
    fn the_lock_tells_whether_somebody_works_here() {
        let dir = tempfile::tempdir().expect("temp dir");
        let run = RunDir::new(dir.path());
        assert!(!run.is_live().expect("asked"));
        let held = run.lock().expect("asked").expect("free");
        assert!(run.is_live().expect("asked"));
        assert_eq!(run.holder().expect("asked"), Some(std::process::id()));
        assert!(run.lock().expect("asked").is_none());
        drop(held);
        assert!(!run.is_live().expect("asked"));
        assert_eq!(run.holder().expect("asked"), None);
    }
}
