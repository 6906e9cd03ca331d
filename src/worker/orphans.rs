//! What lies in the data directory and no row knows of: left by a server that died between a file's last name and its row, or between a
//! row's end and the removal of its files.

use std::{
    io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use super::{Result, Worker};
use crate::{
    domain::{FileId, RunId},
    run_dir::RunDir,
};

/// What is this much newer than the newest row, in seconds, may still be this database's: a kill came between the two.
const MARGIN_S: i64 = 15 * 60;

impl Worker {
    /// Removes what no row knows of. For the start only, before anything is uploaded or started: then a name of ours without a row is
    /// nobody's. What is older than the database, or newer than all it knows, is another database's (an older copy may have been put
    /// back alone), and stays. Returns how many things were removed.
    ///
    /// # Errors
    /// The database's; what cannot be removed is logged.
    pub async fn remove_orphans(&self) -> Result<usize> {
        let born_at = self.store.born_at().await?;
        let ours = born_at..=self.store.newest_at().await?.unwrap_or(born_at).saturating_add(MARGIN_S);
        let mut n_removed = 0;
        for path in entries(&self.config.data_dir.join("files")) {
            let Some(id) = name(&path).and_then(|name| name.parse::<FileId>().ok()) else { continue };
            if !self.store.has_file(&id).await? && is_of(&ours, &path) {
                n_removed += usize::from(removed(&path, std::fs::remove_file(&path)));
            }
        }
        for path in entries(&self.config.data_dir.join("runs")) {
            let id = name(&path).and_then(|name| name.strip_suffix(".removed").unwrap_or(name).parse::<RunId>().ok());
            let Some(id) = id else { continue };
            let is_live = RunDir::new(&path).is_live().unwrap_or(true);
            if !is_live && !self.store.has_run(&id).await? && is_of(&ours, &path) {
                n_removed += usize::from(removed(&path, std::fs::remove_dir_all(&path)));
            }
        }
        Ok(n_removed)
    }
}

/// What lies in a folder; nothing where there is none.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// Whether something was last changed in the time of this database; what is newer is told of.
fn is_of(ours: &RangeInclusive<i64>, path: &Path) -> bool {
    let changed = path.symlink_metadata().and_then(|metadata| metadata.modified());
    let seconds = changed.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs() as i64);
    if seconds.is_some_and(|seconds| seconds > *ours.end()) {
        tracing::warn!(
            path = %path.display(),
            "no row knows of it, but it is newer than everything in the database: it stays; if no newer copy of the database is to be \
             put back, remove it by hand (`mrpo doctor` lists such files)"
        );
    }
    seconds.is_some_and(|seconds| ours.contains(&seconds))
}

fn removed(path: &Path, outcome: io::Result<()>) -> bool {
    match outcome {
        Ok(()) => tracing::info!(path = %path.display(), "removed what no row knows of"),
        Err(error) => tracing::warn!(path = %path.display(), %error, "what no row knows of could not be removed"),
    }
    !path.exists()
}
