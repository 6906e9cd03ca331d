//! Files that only their owner may read: the database holds what signs requests to webhooks.

use std::{
    fs::{self, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// What a file's owner may do, and nobody else anything.
const OWNER_ONLY: u32 = 0o600;
/// What SQLite keeps beside a database; made by it with the rights of the database.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// Makes an empty file that only its owner may read; takes rights away from one that an older version has made.
///
/// One that is there is never opened: closing it would let go of the locks that SQLite holds on it in this process.
pub(super) fn keep(path: &Path) -> io::Result<()> {
    match OpenOptions::new().create_new(true).write(true).mode(OWNER_ONLY).open(path) {
        Ok(_) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => restrict(path)?,
        Err(e) => return Err(e),
    }
    for suffix in BESIDE {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        restrict(Path::new(&name))?;
    }
    Ok(())
}

fn restrict(path: &Path) -> io::Result<()> {
    let restricted = fs::metadata(path).and_then(|metadata| {
        if metadata.permissions().mode() & 0o777 == OWNER_ONLY {
            return Ok(());
        }
        fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY))
    });
    match restricted {
        // There is none; or it is somebody else's, who has shared it: theirs to decide.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_may_read_it_whoever_has_made_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mode = |name: &str| std::fs::metadata(dir.path().join(name)).expect("there").permissions().mode() & 0o777;
        for name in ["old", "old-wal"] {
            std::fs::write(dir.path().join(name), "x").expect("written");
            std::fs::set_permissions(dir.path().join(name), Permissions::from_mode(0o644)).expect("set");
        }
        for name in ["old", "new"] {
            keep(&dir.path().join(name)).expect("kept");
        }
        assert_eq!([mode("old"), mode("old-wal"), mode("new")], [0o600; 3]);
        assert_eq!(std::fs::read(dir.path().join("old")).expect("there"), b"x");
    }
}
