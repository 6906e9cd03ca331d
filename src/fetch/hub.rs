//! Models of the Hugging Face hub, through its own cache layout: what other tools have downloaded is found.
//!
//! The environment decides: `HF_HOME` (cache), `HF_ENDPOINT` (mirror), `HF_TOKEN` (gated and private repositories).

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use hf_hub::{
    Repo, RepoType,
    api::{
        Progress,
        sync::{Api, ApiBuilder, ApiError, ApiRepo},
    },
};

use super::FetchError;
use crate::domain::{ModelLocation, WeightsFormat};

const REQUIRED: [&str; 1] = ["tokenizer.json"];
const OPTIONAL: [&str; 4] =
    ["tokenizer_config.json", "generation_config.json", "special_tokens_map.json", "chat_template.jinja"];
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Downloads what is missing of a repository's snapshot.
pub(super) fn fetch(
    repository: &str,
    revision: Option<&str>,
    on_progress: &mut dyn FnMut(u64, u64),
) -> Result<ModelLocation, FetchError> {
    let mut builder = ApiBuilder::from_env().with_progress(false);
    if let Some(token) = std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()) {
        builder = builder.with_token(Some(token));
    }
    let api = builder.build().map_err(|e| unavailable(repository, "its files", &e))?;
    let weights = Snapshot::open(&api, repository, revision)?.complete(on_progress)?;
    Ok(ModelLocation { format: WeightsFormat::Huggingface, weights, adapters: Vec::new() })
}

/// One commit of a repository. Its first file tells the commit; the others are taken from the same one, so that a branch that
/// moves meanwhile cannot mix two.
struct Snapshot<'a> {
    repository: &'a str,
    api: ApiRepo,
    directory: PathBuf,
}

impl<'a> Snapshot<'a> {
    fn open(api: &Api, repository: &'a str, revision: Option<&str>) -> Result<Self, FetchError> {
        let at =
            |revision: &str| api.repo(Repo::with_revision(repository.to_owned(), RepoType::Model, revision.to_owned()));
        let config = at(revision.unwrap_or("main"))
            .get("config.json")
            .map_err(|e| unavailable(repository, "config.json", &e))?;
        let directory = config.parent().map(Path::to_owned).unwrap_or_default();
        let commit = directory.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            FetchError::Invalid(format!("the hub's cache has no commit directory around {}", config.display()))
        })?;
        Ok(Self { repository, api: at(commit), directory })
    }

    fn complete(self, on_progress: &mut dyn FnMut(u64, u64)) -> Result<PathBuf, FetchError> {
        for name in REQUIRED {
            self.file(name, on_progress)?;
        }
        for name in OPTIONAL {
            match self.try_file(name, on_progress) {
                Ok(_) => {}
                // Weights come last: where they stand, the hub has already been asked for the optional files.
                Err(_) if self.directory.join(WEIGHTS).exists() || self.directory.join(INDEX).exists() => {}
                Err(e) => return Err(unavailable(self.repository, name, &e)),
            }
        }
        if self.directory.join(WEIGHTS).exists() {
            return Ok(self.directory);
        }
        match self.try_file(INDEX, on_progress).map_err(|e| unavailable(self.repository, INDEX, &e))? {
            None => self.file(WEIGHTS, on_progress)?,
            Some(index) => {
                for shard in shards(&fs_err::read(index)?)? {
                    self.file(&shard, on_progress)?;
                }
            }
        }
        Ok(self.directory)
    }

    fn file(&self, name: &str, on_progress: &mut dyn FnMut(u64, u64)) -> Result<(), FetchError> {
        match self.try_file(name, on_progress) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(FetchError::Invalid(format!("the repository {} has no {name}", self.repository))),
            Err(e) => Err(unavailable(self.repository, name, &e)),
        }
    }

    /// The file, or nothing where the repository has none of this name.
    fn try_file(&self, name: &str, on_progress: &mut dyn FnMut(u64, u64)) -> Result<Option<PathBuf>, ApiError> {
        let path = self.directory.join(name);
        if path.exists() {
            return Ok(Some(path));
        }
        match self.api.download_with_progress(name, Report { on_progress, n_done: 0, n_total: 0 }) {
            Ok(path) => Ok(Some(path)),
            Err(e) if status(&e) == Some(404) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// The files an index names. They become paths: only plain safetensors names pass.
fn shards(index: &[u8]) -> Result<BTreeSet<String>, FetchError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let index: Index =
        serde_json::from_slice(index).map_err(|e| FetchError::Invalid(format!("{INDEX} is not an index: {e}")))?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    match names.iter().find(|name| name.contains(['/', '\\', '?', '#']) || !name.ends_with(".safetensors")) {
        Some(name) => Err(FetchError::Invalid(format!("{INDEX} names {name:?}, which is not a safetensors file"))),
        None if names.is_empty() => Err(FetchError::Invalid(format!("{INDEX} names no files"))),
        None => Ok(names),
    }
}

fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(e) => match **e {
            ureq::Error::StatusCode(code) => Some(code),
            _ => None,
        },
        ApiError::TooManyRetries(e) => status(e),
        _ => None,
    }
}

fn unavailable(repository: &str, name: &str, error: &ApiError) -> FetchError {
    FetchError::Unavailable(match status(error) {
        Some(401 | 403) => format!(
            "the hub does not let us read {repository}: it is gated, private or does not exist; check the name, accept its \
             terms and set HF_TOKEN for the server"
        ),
        Some(404) => format!("the hub has no {name} in {repository} at this revision"),
        Some(code) => format!("the hub answered {code} for {name} of {repository}; try again later"),
        None => format!(
            "{name} of {repository} could not be fetched ({error}); is the hub reachable from the server? HF_ENDPOINT names \
             a mirror, and a directory can be registered with path:"
        ),
    })
}

/// Passes the hub's progress on.
struct Report<'a> {
    on_progress: &'a mut dyn FnMut(u64, u64),
    n_done: u64,
    n_total: u64,
}

impl Progress for Report<'_> {
    fn init(&mut self, size: usize, _filename: &str) {
        self.n_total = size as u64;
        (self.on_progress)(0, self.n_total);
    }

    fn update(&mut self, size: usize) {
        self.n_done += size as u64;
        (self.on_progress)(self.n_done, self.n_total);
    }

    fn finish(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_each_shard_once() {
        let index = br#"{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-1.safetensors"}}"#;
        assert_eq!(shards(index).unwrap().into_iter().collect::<Vec<_>>(), ["m-1.safetensors", "m-2.safetensors"]);
    }

    #[test]
    fn an_index_that_reaches_elsewhere_is_refused() {
        for name in ["../x.safetensors", "/x.safetensors", "x.bin"] {
            let index = format!(r#"{{"weight_map": {{"a": "{name}"}}}}"#);
            assert!(matches!(shards(index.as_bytes()), Err(FetchError::Invalid(_))), "{name}");
        }
    }

    #[test]
    fn a_gated_repository_names_the_way_out() {
        let error = ApiError::RequestError(Box::new(ureq::Error::StatusCode(401)));
        assert!(unavailable("a/b", "config.json", &error).to_string().contains("HF_TOKEN"));
    }
}
