//! How much may still be written, and what of the disk is never filled.

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::sys::statvfs::statvfs;

/// A filesystem's room, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What whoever writes there may still write.
    pub free_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
}

/// Tells how much room there is where a directory lies.
pub type AskSpace = fn(&Path) -> io::Result<Space>;

/// The disk that everything is kept on.
#[derive(Debug, Clone)]
pub struct Disk {
    directory: PathBuf,
    reserve_bytes: u64,
    ask: AskSpace,
}

impl Disk {
    /// The disk that `directory` lies on, of which `reserve_bytes` are kept free: for the database, and for what runs must still save.
    pub fn new(directory: &Path, reserve_bytes: u64) -> Self {
        Self { directory: directory.to_owned(), reserve_bytes, ask: ask_system }
    }

    /// The same, asking somebody else than the system.
    #[must_use]
    pub fn asking(self, ask: AskSpace) -> Self {
        Self { ask, ..self }
    }

    /// The room there is.
    ///
    /// # Errors
    /// If the system does not tell; the text names the directory.
    pub fn space(&self) -> io::Result<Space> {
        (self.ask)(&self.directory)
    }

    /// What is free, above the reserve or not; everything where the system does not tell, so that nothing waits for an answer.
    pub fn free_bytes(&self) -> u64 {
        self.space().map_or(u64::MAX, |space| space.free_bytes)
    }

    /// What is kept free.
    pub fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes
    }

    /// Whether so many free bytes are too few to begin anything.
    pub fn is_low_at(&self, free_bytes: u64) -> bool {
        free_bytes < self.reserve_bytes
    }

    /// Whether so many free bytes are too few to go on with what runs: half of the reserve, so that its state can still be saved.
    pub fn is_critical_at(&self, free_bytes: u64) -> bool {
        free_bytes < self.reserve_bytes / 2
    }
}

fn ask_system(directory: &Path) -> io::Result<Space> {
    let disk = statvfs(directory)
        .map_err(|e| io::Error::other(format!("how full the disk of {} is, is not known: {e}", directory.display())))?;
    let bytes = |blocks| blocks * disk.fragment_size();
    Ok(Space { free_bytes: bytes(disk.blocks_available()), total_bytes: bytes(disk.blocks()) })
}

/// What whoever writes here may still write, in bytes.
///
/// # Errors
/// If the system does not tell; the text names the directory.
pub fn free_disk_bytes(directory: &Path) -> io::Result<u64> {
    Ok(ask_system(directory)?.free_bytes)
}
