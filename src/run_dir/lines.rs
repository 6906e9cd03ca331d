//! Files of JSON lines, read from an offset while somebody else appends to them.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use serde::de::DeserializeOwned;

/// Every whole line from `offset` on, at most `max_bytes` of them, each with the byte at which it begins, and the offset to
/// go on from.
///
/// A line still being written (no newline yet) is left for the next call. A line that does not parse is an error.
pub(super) fn read<T: DeserializeOwned>(path: &Path, offset: u64, max_bytes: u64) -> io::Result<(Vec<(u64, T)>, u64)> {
    let mut file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), offset)),
        other => other?,
    };
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(max_bytes).read_to_end(&mut bytes)?;
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}{why}", path.display()));
    let (mut values, mut at) = (Vec::new(), offset);
    for line in bytes.split_inclusive(|b| *b == b'\n').filter(|line| line.ends_with(b"\n")) {
        let value = serde_json::from_slice(line).map_err(|e| invalid(format!(" at byte {at}: {e}")))?;
        values.push((at, value));
        at += line.len() as u64;
    }
    if values.is_empty() && bytes.len() as u64 == max_bytes {
        return Err(invalid(format!(": the line at byte {offset} is longer than {max_bytes} bytes")));
    }
    Ok((values, at))
}

/// Whether a line begins, or the file ends with a whole one, at `offset`.
pub(super) fn begins_at(path: &Path, offset: u64) -> io::Result<bool> {
    let Some(before) = offset.checked_sub(1) else { return Ok(true) };
    let mut file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    file.seek(SeekFrom::Start(before))?;
    let mut byte = [0];
    Ok(file.read(&mut byte)? == 1 && byte[0] == b'\n')
}
