//! Models that already lie on this machine.

use std::path::Path;

use super::FetchError;
use crate::domain::{ModelLocation, WeightsFormat};

/// A directory with a `config.json`, or a `.gguf` file.
pub(super) fn locate(path: &Path) -> Result<ModelLocation, FetchError> {
    let weights = fs_err::canonicalize(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            FetchError::Unavailable(format!("{} does not exist on the server's machine", path.display()))
        }
        _ => FetchError::Io(e),
    })?;
    let format = if weights.is_dir() && weights.join("config.json").is_file() {
        WeightsFormat::Huggingface
    } else if weights.is_file() && is_gguf(path) {
        WeightsFormat::Gguf
    } else {
        return Err(FetchError::Invalid(format!(
            "{} is neither a directory with a config.json nor a .gguf file",
            path.display()
        )));
    };
    Ok(ModelLocation { format, weights, adapters: Vec::new() })
}

/// Whether a file's name says that it is a GGUF file.
pub(super) fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_and_gguf_files_are_used_in_place() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(locate(dir.path()), Err(FetchError::Invalid(_))));
        fs_err::write(dir.path().join("config.json"), "{}").unwrap();
        assert_eq!(locate(dir.path()).unwrap().format, WeightsFormat::Huggingface);
        let file = dir.path().join("m.gguf");
        assert!(matches!(locate(&file), Err(FetchError::Unavailable(_))));
        fs_err::write(&file, "GGUF").unwrap();
        let location = locate(&dir.path().join("./m.gguf")).unwrap();
        assert_eq!(location.format, WeightsFormat::Gguf);
        assert_eq!(location.weights, file.canonicalize().unwrap());
    }
}
