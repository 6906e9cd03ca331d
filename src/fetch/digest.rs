//! The digest that names a model: weights, tokenizer, template and adapters at once.

use std::{
    fmt::Write,
    io::{self, Read},
    path::{Path, PathBuf},
};

use fs_err::File;
use sha2::{Digest, Sha256};

use crate::domain::{ModelLocation, RemoteRecord, WeightsFormat};

/// What decides how a Hugging Face directory behaves, besides its safetensors files.
const NAMES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
];

/// The files of an adapter.
const ADAPTER_NAMES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// `sha256:` and 64 hexadecimal digits over a model's files, and their size in bytes.
///
/// Of every file, in name order: its name, its length and its content; adapters follow in the order they are merged. Where
/// the files lie, and what a GGUF file is called, makes no difference.
pub fn digest(location: &ModelLocation) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut n_bytes = 0;
    match location.format {
        WeightsFormat::Gguf => n_bytes += add(&mut hash, "model.gguf", &location.weights)?,
        WeightsFormat::Scores => n_bytes += add(&mut hash, "scores.jsonl", &location.weights)?,
        // Not of the file itself: it also says where the tokenizer lies.
        WeightsFormat::Remote => {
            let text = fs_err::read(&location.weights)?;
            let record: RemoteRecord = serde_json::from_slice(&text)?;
            let tokenizer = record.tokenizer.map(|tokenizer| digest(&tokenizer.location)).transpose()?;
            for part in [&record.url, &record.model, &tokenizer.map_or_else(String::new, |(digest, _)| digest)] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
            n_bytes += text.len() as u64;
        }
        WeightsFormat::Huggingface => {
            for (name, path) in files_of(&location.weights)? {
                n_bytes += add(&mut hash, &name, &path)?;
            }
        }
    }
    for (i, adapter) in location.adapters.iter().enumerate() {
        for name in ADAPTER_NAMES {
            n_bytes += add(&mut hash, &format!("adapter {i}/{name}"), &adapter.join(name))?;
        }
    }
    let name = hash.finalize().iter().fold(String::from("sha256:"), |mut name, byte| {
        write!(name, "{byte:02x}").expect("writing to a string cannot fail");
        name
    });
    Ok((name, n_bytes))
}

/// The size of a model's files in bytes: that of [`digest`], without reading them.
pub fn size_bytes(location: &ModelLocation) -> io::Result<u64> {
    let of_directory = |directory: &Path| -> io::Result<u64> {
        files_of(directory)?.iter().map(|(_, path)| Ok(fs_err::metadata(path)?.len())).sum()
    };
    let mut n_bytes = match location.format {
        WeightsFormat::Huggingface => of_directory(&location.weights)?,
        _ => fs_err::metadata(&location.weights)?.len(),
    };
    for adapter in &location.adapters {
        for name in ADAPTER_NAMES {
            n_bytes += fs_err::metadata(adapter.join(name))?.len();
        }
    }
    Ok(n_bytes)
}

fn files_of(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(directory)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        // A checkpoint's directory also holds the optimizer's moments: they are not the model.
        let is_weights = name.starts_with("model") && path.extension().is_some_and(|end| end == "safetensors");
        if is_weights || NAMES.contains(&name.as_str()) {
            files.push((name, path));
        }
    }
    files.sort();
    Ok(files)
}

fn add(hash: &mut Sha256, name: &str, path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let n_bytes = file.metadata()?.len();
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name);
    hash.update(n_bytes.to_le_bytes());
    let mut buffer = vec![0; 1 << 20];
    let mut n_read = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        n_read += n as u64;
    }
    if n_read == n_bytes {
        Ok(n_bytes)
    } else {
        Err(io::Error::other(format!("{} changed while it was read", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_decides_and_place_does_not() {
        let make = |weights: &str, adapter: Option<&str>| {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in [("config.json", "{}"), ("model.safetensors", weights), ("README.md", weights)] {
                fs_err::write(dir.path().join(name), text).unwrap();
            }
            let mut adapters = Vec::new();
            if let Some(text) = adapter {
                fs_err::write(dir.path().join("adapter_config.json"), "{}").unwrap();
                let sub = dir.path().join("adapter");
                fs_err::create_dir(&sub).unwrap();
                fs_err::write(sub.join("adapter_config.json"), "{}").unwrap();
                fs_err::write(sub.join("adapter_model.safetensors"), text).unwrap();
                adapters.push(sub);
            }
            let weights = dir.path().to_owned();
            let location = ModelLocation { format: WeightsFormat::Huggingface, weights, adapters };
            let digest = digest(&location).unwrap();
            assert_eq!(size_bytes(&location).unwrap(), digest.1);
            digest
        };
        let plain = make("abc", None);
        assert_eq!(plain, make("abc", None));
        assert_eq!(plain.1, 5);
        assert_eq!(plain.0.len(), "sha256:".len() + 64);
        assert_ne!(plain.0, make("abd", None).0);
        assert_ne!(plain.0, make("abc", Some("x")).0);
        assert_ne!(make("abc", Some("y")).0, make("abc", Some("x")).0);
    }
}
