//! How much may still be written.

use std::{io, path::Path};

use nix::sys::statvfs::statvfs;

/// What whoever writes here may still write, in bytes.
///
/// # Errors
/// If the system does not tell; the text names the directory.
pub fn free_disk_bytes(directory: &Path) -> io::Result<u64> {
    let disk = statvfs(directory)
        .map_err(|e| io::Error::other(format!("how full the disk of {} is, is not known: {e}", directory.display())))?;
    Ok(disk.blocks_available() * disk.fragment_size())
}
