//! Exports: a model with its tokenizer, its adapters merged in, as other programs read it; under its final name only when whole.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{bail, ensure};
use fs_err as fs;

use crate::{
    domain::{ExportDtype, ExportFormat, ModelLocation},
    model::{GgufText, OnWeight, export_gguf, export_huggingface, inspect},
    text::{Codec, tokenizer_keys},
};

/// A model to be written, and as what.
#[derive(Debug, Clone, Copy)]
pub struct Export<'a> {
    /// Where its files lie.
    pub location: &'a ModelLocation,
    /// A directory, or a GGUF file.
    pub format: ExportFormat,
    /// What matrices are stored as.
    pub dtype: ExportDtype,
    /// What a GGUF file calls the model, unless its own does; if absent, it is called as its files are.
    pub name: Option<&'a str>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Size of all files, in bytes.
    pub size_bytes: u64,
    /// The window, in tokens, that the model attends to and llama.cpp does not keep.
    pub lost_window: Option<usize>,
}

impl Exported {
    /// What other programs will do otherwise, in words.
    pub fn warnings(&self) -> Vec<String> {
        let window = self.lost_window.map(|window| {
            format!(
                "the model attends to a window of {window} tokens, which llama.cpp does not know of: texts longer than that \
                 get other log-probabilities there"
            )
        });
        window.into_iter().collect()
    }
}

impl Export<'_> {
    /// Writes it to `out`: a directory, or a file.
    ///
    /// # Errors
    /// If `out` is there already, the model or its tokenizer cannot be said in this format, the disk is full, or `on_weight` says that
    /// no more is wanted ([`crate::model::ModelError::Interrupted`]). Nothing of the export is left then.
    pub fn write(&self, out: &Path, on_weight: &mut OnWeight<'_>) -> anyhow::Result<Exported> {
        ensure!(
            fs::symlink_metadata(out).is_err(),
            "{} is there already: an export overwrites nothing, name another place or remove it",
            out.display()
        );
        let (parent, beside) = beside(out)?;
        remove(&beside)?;
        let written = match self.format {
            ExportFormat::Huggingface => self.write_directory(&beside, on_weight),
            ExportFormat::Gguf => self.write_file(&beside, on_weight),
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

    fn write_directory(&self, directory: &Path, on_weight: &mut OnWeight<'_>) -> anyhow::Result<Exported> {
        let codec = Codec::load(self.location)?;
        fs::create_dir_all(directory)?;
        export_huggingface(self.location, self.dtype, directory, on_weight)?;
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

    fn write_file(&self, file: &Path, on_weight: &mut OnWeight<'_>) -> anyhow::Result<Exported> {
        let n_rows = inspect(self.location)?.vocab_size as usize;
        let name = self.name.map_or_else(|| name_of(&self.location.weights), str::to_owned);
        let text = GgufText { name, tokenizer: tokenizer_keys(self.location, n_rows)? };
        let lost_window = export_gguf(self.location, self.dtype, text, file, on_weight)?;
        Ok(Exported { size_bytes: fs::metadata(file)?.len(), lost_window })
    }
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

/// Whether nothing is left to write on: the disk, its quota, or the limit of a file's size.
pub fn is_disk_full(error: &anyhow::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let is_full = |e: &io::Error| matches!(e.kind(), StorageFull | QuotaExceeded | FileTooLarge);
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(is_full))
}

/// Says of a full disk that it is one.
fn in_words(error: anyhow::Error, parent: &Path) -> anyhow::Error {
    if is_disk_full(&error) {
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
