//! The checkpoints of a run on the disk: found, read by somebody, stripped of what nobody goes on from, removed.

use std::{
    io,
    path::{Path, PathBuf},
};

use fs_err as fs;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::{CheckpointManifest, RunDir, read_json, remove_all, sync_dir, write_atomic};

/// Somebody reads files below a directory: what is there stays until this is dropped, or its process ends.
#[derive(Debug)]
pub struct Reading {
    _directory: Flock<std::fs::File>,
}

impl Reading {
    /// Begins to read; waits for a removal that is under way.
    pub fn begin(directory: &Path) -> io::Result<Self> {
        match Flock::lock(std::fs::File::open(directory)?, FlockArg::LockShared) {
            Ok(directory) => Ok(Self { _directory: directory }),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}

/// A directory that nobody reads and nobody begins to; nothing of one that is read, or is not there.
fn alone(directory: &Path) -> io::Result<Option<Flock<std::fs::File>>> {
    match Flock::lock(std::fs::File::open(directory)?, FlockArg::LockExclusiveNonblock) {
        Ok(directory) => Ok(Some(directory)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

impl RunDir {
    /// The files that only the run itself reads, to go on: a model is whole without them. The first tells that they are there.
    pub const RESUME_STATE: [&'static str; 2] = ["state.json", "optimizer.safetensors"];

    /// The complete checkpoints, oldest first: those under a final name and with a manifest.
    pub fn list_checkpoints(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        let entries = match std::fs::read_dir(self.checkpoints()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
            other => other?,
        };
        for entry in entries {
            let path = entry?.path();
            if let Some(step) = path.file_name().and_then(|name| step_of(name.to_str()?))
                && path.join(Self::MANIFEST).is_file()
            {
                found.push((step, path));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The newest checkpoint that a run can go on from.
    pub fn newest_resumable(&self) -> io::Result<Option<(u64, PathBuf)>> {
        let mut checkpoints = self.list_checkpoints()?;
        checkpoints.retain(|(_, home)| home.join(Self::RESUME_STATE[0]).is_file());
        Ok(checkpoints.pop())
    }

    /// Removes a checkpoint, and what is then empty above it. Whether it is gone: not while somebody reads it.
    pub fn remove_checkpoint(&self, directory: &str) -> io::Result<bool> {
        let home = self.checkpoint(directory)?;
        let aside = home.with_extension("removed");
        match (alone(&self.checkpoints()), alone(&home)) {
            (Ok(None), _) | (_, Ok(None)) => return Ok(false),
            (Err(e), _) | (_, Err(e)) if e.kind() == io::ErrorKind::NotFound => {}
            (Err(e), _) | (_, Err(e)) => return Err(e),
            // Another name first, so that nothing half removed is ever found under its own.
            (Ok(Some(_above)), Ok(Some(_this))) => {
                remove_all(&aside)?;
                fs::rename(&home, &aside)?;
            }
        }
        remove_all(&aside)?; // also what a crash has left
        // They go only when they are empty.
        let _ = std::fs::remove_dir(self.checkpoints());
        let _ = std::fs::remove_dir(self.root());
        Ok(true)
    }

    /// Removes what only the run itself would read. The size of what is left, in bytes; nothing while somebody reads the checkpoint.
    pub fn drop_resume_state(&self, directory: &str) -> io::Result<Option<u64>> {
        let home = self.checkpoint(directory)?;
        let (Some(_above), Some(_this)) = (alone(&self.checkpoints())?, alone(&home)?) else { return Ok(None) };
        let path = home.join(Self::MANIFEST);
        let mut manifest: CheckpointManifest = read_json(&path)?;
        manifest.files.retain(|file| !Self::RESUME_STATE.contains(&file.name.as_str()));
        // The manifest first: it never names what is not there.
        write_atomic(&path, &serde_json::to_vec_pretty(&manifest)?)?;
        for name in Self::RESUME_STATE {
            match std::fs::remove_file(home.join(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        sync_dir(&home)?;
        Ok(Some(manifest.files.iter().map(|file| file.size_bytes).sum()))
    }

    /// Removes everything but the checkpoints.
    pub fn remove_all_but_checkpoints(&self) -> io::Result<()> {
        let entries = match std::fs::read_dir(self.root()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.path() == self.checkpoints() {
                continue;
            }
            if entry.file_type()?.is_dir() { remove_all(&entry.path())? } else { fs::remove_file(entry.path())? }
        }
        let _ = std::fs::remove_dir(self.checkpoints());
        let _ = std::fs::remove_dir(self.root());
        Ok(())
    }

    /// The directory of a checkpoint, whose name is one of ours.
    fn checkpoint(&self, directory: &str) -> io::Result<PathBuf> {
        match step_of(directory) {
            Some(_) => Ok(self.checkpoints().join(directory)),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "a checkpoint's name is step- and a number")),
        }
    }
}

fn step_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("step-")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::HashedFile;

    fn checkpoint(run: &RunDir, step: u64) -> PathBuf {
        let home = run.checkpoints().join(RunDir::checkpoint_name(step));
        fs::create_dir_all(&home).expect("made");
        let names = ["adapter_model.safetensors", "optimizer.safetensors", "state.json"];
        let files = names.map(|name| {
            fs::write(home.join(name), "12345").expect("written");
            HashedFile { name: name.into(), size_bytes: 5, sha256: String::new() }
        });
        let manifest = serde_json::to_vec(&CheckpointManifest { step, files: files.into() }).expect("serialises");
        fs::write(home.join(RunDir::MANIFEST), manifest).expect("written");
        home
    }

    #[test]
    fn what_is_read_stays_and_what_is_left_is_a_model() {
        let dir = tempfile::tempdir().expect("temp dir");
        let run = RunDir::new(dir.path().join("run"));
        let (first, second) = (checkpoint(&run, 1), checkpoint(&run, 2));
        let reading = Reading::begin(&first).expect("there");
        assert_eq!(run.drop_resume_state("step-000001").expect("asked"), None);
        assert!(!run.remove_checkpoint("step-000001").expect("asked") && first.exists());
        drop(reading);
        // Whoever copies all of a run keeps all of it.
        let copying = Reading::begin(&run.checkpoints()).expect("there");
        assert!(!run.remove_checkpoint("step-000001").expect("asked"));
        drop(copying);

        for _ in 0..2 {
            // A crash in the middle means that it is done again.
            assert_eq!(run.drop_resume_state("step-000002").expect("done"), Some(5));
        }
        assert!(second.join("adapter_model.safetensors").exists() && !second.join("optimizer.safetensors").exists());
        assert_eq!(run.list_checkpoints().expect("listed").len(), 2);
        assert_eq!(run.newest_resumable().expect("found").map(|(step, _)| step), Some(1));
        assert!(run.remove_checkpoint("step-000001").expect("done") && !first.exists());
        assert!(run.remove_checkpoint("step-000001").expect("done"), "what is gone is gone");
        assert!(run.root().exists());
        run.remove_all_but_checkpoints().expect("done");
        assert!(second.exists());
        assert!(run.remove_checkpoint("step-000002").expect("done") && !run.root().exists());
        assert!(run.remove_checkpoint("../x").is_err());
    }
}
