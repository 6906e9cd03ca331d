//! Exports: a model with its tokenizer, its adapters merged in, as other programs read it; under its final name only when whole.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{bail, ensure};
use fs_err as fs;

use crate::{
    domain::{ExportDtype, ModelLocation, WeightsFormat},
    model::{GgufText, export_gguf, export_huggingface, inspect},
    text::{Codec, tokenizer_keys},
};

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Size of all files, in bytes.
    pub size_bytes: u64,
    /// The window, in tokens, that the model attends to and llama.cpp does not keep.
    pub lost_window: Option<usize>,
}

/// Writes the model at `location` to `out`: a directory, or a GGUF file.
///
/// # Errors
/// If `out` is there already, the model or its tokenizer cannot be said in this format, or the disk is full. Nothing of the
/// export is left then.
pub fn export(
    location: &ModelLocation,
    format: WeightsFormat,
    dtype: ExportDtype,
    out: &Path,
) -> anyhow::Result<Exported> {
    ensure!(
        fs::symlink_metadata(out).is_err(),
        "{} is there already: an export overwrites nothing, name another place or remove it",
        out.display()
    );
    let (parent, beside) = beside(out)?;
    remove(&beside)?;
    let written = match format {
        WeightsFormat::Huggingface => write_directory(location, dtype, &beside),
        WeightsFormat::Gguf => write_file(location, dtype, &beside),
        WeightsFormat::Scores | WeightsFormat::Remote => Err(anyhow::anyhow!(WeightsFormat::NOT_A_MODEL)),
    };
    let exported = match written {
        Ok(exported) => exported,
        Err(error) => {
            // Its room is needed by others, on a full disk above all.
            let _ = remove(&beside);
            return Err(in_words(error, &parent));
        }
    };
    fs::rename(&beside, out)?;
    fs::File::open(parent)?.sync_all()?;
    Ok(exported)
}

fn write_directory(location: &ModelLocation, dtype: ExportDtype, directory: &Path) -> anyhow::Result<Exported> {
    let codec = Codec::load(location)?;
    fs::create_dir_all(directory)?;
    export_huggingface(location, dtype, directory)?;
    codec.save(directory)?;
    let mut size_bytes = 0;
    for entry in fs::read_dir(directory)? {
        let file = fs::File::open(entry?.path())?;
        file.sync_all()?;
        size_bytes += file.metadata()?.len();
    }
    fs::File::open(directory)?.sync_all()?;
    Ok(Exported { size_bytes, lost_window: None })
}

fn write_file(location: &ModelLocation, dtype: ExportDtype, file: &Path) -> anyhow::Result<Exported> {
    let n_rows = inspect(location)?.vocab_size as usize;
    let text = GgufText { name: name_of(&location.weights), tokenizer: tokenizer_keys(location, n_rows)? };
    let lost_window = export_gguf(location, dtype, text, file)?;
    Ok(Exported { size_bytes: fs::metadata(file)?.len(), lost_window })
}

/// A directory's name, or a file's without its ending.
fn name_of(weights: &Path) -> String {
    let path = if weights.is_dir() { weights.file_name() } else { weights.file_stem() };
    path.map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The directory that `out` is to be in, and where it is written until it is whole.
fn beside(out: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let out = std::path::absolute(out)?;
    let (Some(parent), Some(name)) = (out.parent(), out.file_name()) else {
        bail!("{} is not a place for a file", out.display());
    };
    let mut name = name.to_owned();
    name.push(".writing");
    fs::create_dir_all(parent)?;
    Ok((parent.to_owned(), parent.join(name)))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}

/// Says of a full disk that it is one.
fn in_words(error: anyhow::Error, parent: &Path) -> anyhow::Error {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let is_full = |e: &io::Error| matches!(e.kind(), StorageFull | QuotaExceeded | FileTooLarge);
    if error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(is_full)) {
        return error.context(format!(
            "there is no room for the export in {} (the disk, its quota or the limit of a file's size): free some space, or \
             name another place",
            parent.display()
        ));
    }
    error
}

/// A model's files with these adapters on them; a directory that holds no adapter is refused by name.
///
/// # Errors
/// If one is not a PEFT adapter.
pub fn with_adapters(mut location: ModelLocation, adapters: Vec<PathBuf>) -> anyhow::Result<ModelLocation> {
    for adapter in adapters {
        let config = adapter.join("adapter_config.json");
        ensure!(config.is_file(), "{} is not an adapter: it has no adapter_config.json", adapter.display());
        location.adapters.push(fs::canonicalize(&adapter)?);
    }
    Ok(location)
}
