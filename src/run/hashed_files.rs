//! The files of a directory, with what tells later whether they are whole.

use std::{io::Read, path::Path};

use anyhow::Context;
use sha2::{Digest, Sha256};

use crate::domain::HashedFile;

/// The files of a directory, by name.
pub(super) fn hashed_files(directory: &Path) -> anyhow::Result<Vec<HashedFile>> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).context("a file of ours has a plain name")?.to_owned();
        files.push(HashedFile { name, size_bytes: fs_err::metadata(&path)?.len(), sha256: sha256_of(&path)? });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// SHA-256 of a file, in hexadecimal.
pub(super) fn sha256_of(path: &Path) -> anyhow::Result<String> {
    let mut file = fs_err::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect());
        }
        hasher.update(&buffer[..n]);
    }
}
