//! A registration: the model's files fetched, checked as far as headers tell, and named by digest.

use super::journal::Journal;
use crate::{
    domain::{Failure, FailureCode, ModelInfo, Phase, RegisterSpec, RunEvent},
    fetch::{FetchError, digest, fetch},
    model::{ModelError, inspect},
    text::{Codec, TextError},
};

/// Executes the run. Returns its last event.
pub(super) fn register(spec: &RegisterSpec, journal: &mut Journal) -> anyhow::Result<RunEvent> {
    journal.progress(Phase::Fetching, 0, 0, None)?;
    let mut last_percent = 0;
    let mut on_progress = |done: u64, total: u64| {
        let percent = done * 100 / total.max(1);
        if percent != last_percent {
            last_percent = percent;
            // A progress line that cannot be written is not worth failing for; the events that matter come later.
            let _ = journal.progress(Phase::Fetching, done as usize, total as usize, None);
        }
    };
    let location = fetch(&spec.source, &spec.store_dir, &mut on_progress).map_err(|e| {
        let code = match &e {
            FetchError::Unavailable(_) => FailureCode::SourceUnavailable,
            FetchError::Invalid(_) => FailureCode::InvalidModel,
            FetchError::Io(_) => return anyhow::Error::from(e),
        };
        Failure::new(code, e.to_string()).into()
    })?;
    let facts = inspect(&location).map_err(|e| match e {
        ModelError::Unsupported(message) => Failure::new(FailureCode::UnsupportedModel, message),
        other => Failure::new(FailureCode::InvalidModel, other.to_string()),
    })?;
    let codec = Codec::load(&location).map_err(|e| {
        let code = match &e {
            TextError::Unsupported(_) => FailureCode::UnsupportedModel,
            _ => FailureCode::InvalidModel,
        };
        Failure::new(code, e.to_string())
    })?;
    if codec.vocab_size() as u64 > facts.vocab_size {
        let message = format!(
            "the tokenizer knows {} tokens, the embedding has {} rows: they belong to different models",
            codec.vocab_size(),
            facts.vocab_size
        );
        return Err(Failure::new(FailureCode::InvalidModel, message).into());
    }
    let (digest, size_bytes) = digest(&location)?;
    let model = ModelInfo {
        location,
        digest,
        architecture: facts.architecture,
        n_parameters: facts.n_parameters,
        vocab_size: codec.vocab_size() as u64,
        max_position_embeddings: facts.max_position_embeddings,
        has_chat_template: codec.has_template(),
        size_bytes,
    };
    journal.say(RunEvent::Registered { model })?;
    Ok(RunEvent::Succeeded { model: None, n_trained_tokens: 0 })
}
