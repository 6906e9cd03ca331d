//! `mrpo backup` and `mrpo restore`: a data directory as one file, taken while a server works on it.
//!
//! The database is taken first, in one consistent copy; what its rows name is there before they are, and only appended to or replaced as
//! a whole. So what is copied later may hold more than the rows know, which a server does not mind, and lacks only what has been deleted
//! in between.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use fs_err::{self as fs, os::unix::fs::OpenOptionsExt};
use mrpo::{
    run_dir::Reading,
    store::{Store, unix_now},
};
use serde::{Deserialize, Serialize};
use tar::{Archive, Builder, EntryType, Header};

/// The entry that says what the file is.
const MANIFEST: &str = "manifest.json";
/// What changes when this program could not read an older file.
const FORMAT: u32 = 1;
/// What of a data directory is kept.
const KEPT: [&str; 3] = ["files", "uploads", "runs"];
/// Models that were fetched; they could be fetched again.
const MODELS: &str = "models";
/// The longest manifest that is read.
const MAX_MANIFEST_BYTES: u64 = 64 << 10;

/// `mrpo backup`, as typed.
#[derive(Debug, Clone, Args)]
pub(crate) struct BackupArgs {
    /// The server's data directory.
    #[arg(long, env = "MRPO_DATA_DIR", default_value = "./mrpo-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// Leaves out what was fetched from elsewhere: jobs on it then wait until it is put back.
    #[arg(long)]
    without_models: bool,
    /// The file to write (a tar archive); it must not be there yet.
    #[arg(value_name = "FILE")]
    out: PathBuf,
}

/// `mrpo restore`, as typed.
#[derive(Debug, Clone, Args)]
pub(crate) struct RestoreArgs {
    /// The data directory to make: at the same path as the one that was backed up, because its rows name paths below it.
    #[arg(long, env = "MRPO_DATA_DIR", default_value = "./mrpo-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// The file that `mrpo backup` wrote.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    version: String,
    /// Absolute: rows and runs name paths below it.
    data_dir: PathBuf,
    created_at: i64,
}

/// Writes the file, whole or not at all.
pub(crate) fn backup(args: &BackupArgs) -> Result<()> {
    let data_dir = fs::canonicalize(&args.data_dir).context("the data directory")?;
    ensure!(
        data_dir.join(Store::FILE_NAME).is_file(),
        "{} is no data directory: it has no database",
        data_dir.display()
    );
    ensure!(fs::symlink_metadata(&args.out).is_err(), "{} is there already: name another file", args.out.display());
    let mut beside = args.out.clone().into_os_string();
    beside.push(".writing");
    let beside = PathBuf::from(beside);
    let written = write(&data_dir, args.without_models, &beside).and_then(|n_bytes| {
        fs::rename(&beside, &args.out)?;
        Ok(n_bytes)
    });
    match written {
        Ok(n_bytes) => println!("wrote {} ({:.1} MB)", args.out.display(), n_bytes as f64 / 1e6),
        Err(error) => {
            let _ = fs::remove_file(&beside);
            return Err(error);
        }
    }
    Ok(())
}

fn write(data_dir: &Path, without_models: bool, out: &Path) -> Result<u64> {
    // The database holds what signs requests to webhooks.
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(out)?;
    let mut archive = Builder::new(io::BufWriter::new(file));
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        data_dir: data_dir.to_owned(),
        created_at: unix_now(),
    };
    let manifest = serde_json::to_vec(&manifest)?;
    append(&mut archive, Path::new(MANIFEST), manifest.len() as u64, manifest.as_slice())?;
    let snapshot = tempfile_beside(out);
    let taken = snapshot_database(data_dir, &snapshot)
        .and_then(|()| add_file(&mut archive, &snapshot, Path::new(Store::FILE_NAME)));
    let _ = fs::remove_file(&snapshot);
    taken?;
    for part in KEPT.into_iter().chain((!without_models).then_some(MODELS)) {
        add_directory(&mut archive, data_dir, Path::new(part))?;
    }
    let file = archive.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

fn tempfile_beside(out: &Path) -> PathBuf {
    let mut name = out.to_owned().into_os_string();
    name.push(".database");
    name.into()
}

fn snapshot_database(data_dir: &Path, to: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::open(data_dir).await?;
        let copied = store.copy_to(to).await;
        store.close().await;
        Ok(copied?)
    })
}

fn add_directory(archive: &mut Builder<impl io::Write>, data_dir: &Path, below: &Path) -> Result<()> {
    let entries = match fs::read_dir(data_dir.join(below)) {
        Ok(entries) => entries,
        // Nothing of the kind was ever made, or it has just been deleted.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    // What is listed here is still there when its turn comes, and what a job goes on from with it.
    let _reading = if below.ends_with("checkpoints") { Reading::begin(&data_dir.join(below)).ok() } else { None };
    for entry in entries {
        let entry = entry?;
        let name = below.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => add_directory(archive, data_dir, &name)?,
            Ok(kind) if kind.is_file() && entry.file_name() != "run.lock" => {
                add_file(archive, &data_dir.join(&name), &name)?;
            }
            // Links are the cache's own affair: what they point at is a file of its own.
            Ok(kind) if kind.is_symlink() => add_link(archive, &data_dir.join(&name), &name)?,
            _ => {}
        }
    }
    Ok(())
}

fn add_file(archive: &mut Builder<impl io::Write>, path: &Path, name: &Path) -> Result<()> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    // One that is being appended to is taken as long as it is now.
    let size = file.metadata()?.len();
    append(archive, name, size, file.take(size))
}

fn add_link(archive: &mut Builder<impl io::Write>, path: &Path, name: &Path) -> Result<()> {
    let Ok(target) = fs::read_link(path) else { return Ok(()) };
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Symlink);
    header.set_size(0);
    Ok(archive.append_link(&mut header, name, target)?)
}

fn append(archive: &mut Builder<impl io::Write>, name: &Path, size: u64, content: impl Read) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o600);
    header.set_mtime(unix_now() as u64);
    Ok(archive.append_data(&mut header, name, content)?)
}

/// Makes a data directory of a backup, whole or not at all.
pub(crate) fn restore(args: &RestoreArgs) -> Result<()> {
    let data_dir = std::path::absolute(&args.data_dir)?;
    let is_empty = fs::read_dir(&data_dir).map_or(true, |mut entries| entries.next().is_none());
    ensure!(is_empty, "{} is there already: move it away first", data_dir.display());
    let manifest = manifest(&args.file)?;
    ensure!(
        manifest.data_dir == data_dir,
        "this is a backup of {0}, whose rows name paths below it: restore it there (--data-dir {0}), or make that path a link to where it is to be",
        manifest.data_dir.display()
    );
    let mut beside = data_dir.clone().into_os_string();
    beside.push(".restoring");
    let beside = PathBuf::from(beside);
    if beside.exists() {
        fs::remove_dir_all(&beside)?;
    }
    fs::create_dir_all(&beside)?;
    // The archive's reader writes nothing outside it, whatever its entries are called.
    Archive::new(io::BufReader::new(fs::File::open(&args.file)?)).unpack(&beside)?;
    fs::remove_file(beside.join(MANIFEST))?;
    ensure!(beside.join(Store::FILE_NAME).is_file(), "{} has no database: it was cut off", args.file.display());
    if data_dir.exists() {
        fs::remove_dir(&data_dir)?;
    }
    fs::rename(&beside, &data_dir)?;
    println!("restored {} as it was at Unix time {}", data_dir.display(), manifest.created_at);
    Ok(())
}

fn manifest(file: &Path) -> Result<Manifest> {
    let mut archive = Archive::new(io::BufReader::new(fs::File::open(file)?));
    let first = archive.entries()?.next();
    let not_ours = || format!("{} was not written by `mrpo backup`", file.display());
    let Some(Ok(entry)) = first else { bail!(not_ours()) };
    ensure!(entry.path()?.as_ref() == Path::new(MANIFEST), not_ours());
    let manifest: Manifest = serde_json::from_reader(entry.take(MAX_MANIFEST_BYTES)).with_context(not_ours)?;
    ensure!(
        manifest.format == FORMAT,
        "{} has format {}, and this program reads {FORMAT}: use mrpo {}",
        file.display(),
        manifest.format,
        manifest.version
    );
    Ok(manifest)
}
