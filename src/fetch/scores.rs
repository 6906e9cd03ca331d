//! Scores made elsewhere: a copy of the uploaded file, so that the upload may be deleted.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use fs_err::File;
use sha2::{Digest, Sha256};

use super::FetchError;
use crate::domain::{ModelLocation, WeightsFormat};

/// Copies the file to `store_dir`, under its content's digest: the same scores are kept once.
pub(super) fn keep(file: &Path, store_dir: &Path) -> Result<ModelLocation, FetchError> {
    let mut from = File::open(file).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            FetchError::Unavailable("the file of scores has been deleted: upload it again".into())
        }
        _ => FetchError::Io(e),
    })?;
    let directory = store_dir.join("scores");
    fs_err::create_dir_all(&directory)?;
    // Two registrations may copy at once.
    let beside = directory.join(format!("{}.tmp", std::process::id()));
    let copied = copy(&mut from, &beside);
    let weights = copied.and_then(|digest| {
        let home = directory.join(format!("{digest}.jsonl"));
        fs_err::rename(&beside, &home)?;
        File::open(&directory)?.sync_all()?;
        fs_err::canonicalize(home)
    });
    if weights.is_err() {
        let _ = fs_err::remove_file(&beside);
    }
    Ok(ModelLocation { format: WeightsFormat::Scores, weights: weights?, adapters: Vec::new() })
}

/// Copies all of it. Returns its SHA-256 in hexadecimal.
fn copy(from: &mut File, to: &Path) -> io::Result<String> {
    let mut to = File::create(to)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            to.sync_all()?;
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&buffer[..n]);
        to.write_all(&buffer[..n])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_kept_once_and_outlive_the_upload() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        fs_err::write(&a, "{}\n").unwrap();
        fs_err::write(&b, "{}\n").unwrap();
        let kept = keep(&a, dir.path()).unwrap();
        assert_eq!(keep(&b, dir.path()).unwrap(), kept);
        fs_err::remove_file(&a).unwrap();
        assert_eq!(fs_err::read_to_string(&kept.weights).unwrap(), "{}\n");
        assert_eq!(fs_err::read_dir(dir.path().join("scores")).unwrap().count(), 1);
        let gone = keep(&a, dir.path()).unwrap_err();
        assert!(gone.to_string().contains("upload it again"), "{gone}");
    }
}
