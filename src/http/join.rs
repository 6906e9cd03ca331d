//! The parts of an upload made one file, with its digests.

use std::io::{self, Read, Write};

use md5::Md5;
use sha2::{Digest, Sha256};

use super::form::{TempFile, hex};

/// Bytes read and written at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// What parts have become.
#[derive(Debug)]
pub(super) struct Joined {
    /// The content, in a temporary place.
    pub(super) content: TempFile,
    /// SHA-256 in hexadecimal.
    pub(super) sha256: String,
    /// MD5 in hexadecimal, where it was asked for.
    pub(super) md5: Option<String>,
}

/// Writes `parts`, paths with sizes in bytes, one after the other into `content`; durable when this returns.
///
/// # Errors
/// Those of files; a part that has not its size is damaged, and none is passed over.
pub(super) fn join(parts: &[(std::path::PathBuf, u64)], content: TempFile, with_md5: bool) -> io::Result<Joined> {
    let mut file = fs_err::File::create_new(content.path())?;
    let (mut sha256, mut md5) = (Sha256::new(), with_md5.then(Md5::new));
    let mut buffer = vec![0; CHUNK_BYTES];
    for (path, size_bytes) in parts {
        let mut part = fs_err::File::open(path)?;
        let mut n_bytes = 0;
        loop {
            let n = part.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            n_bytes += n as u64;
            sha256.update(&buffer[..n]);
            if let Some(md5) = &mut md5 {
                md5.update(&buffer[..n]);
            }
            file.write_all(&buffer[..n])?;
        }
        if n_bytes != *size_bytes {
            let message = format!("{} has {n_bytes} bytes, recorded are {size_bytes}", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
    }
    file.sync_all()?;
    Ok(Joined { content, sha256: hex(&sha256.finalize()), md5: md5.map(|md5| hex(&md5.finalize())) })
}
