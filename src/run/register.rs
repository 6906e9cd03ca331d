//! A registration: the model's files (or scores made elsewhere) fetched, checked as far as headers tell, and named by digest.

use std::io::BufReader;

use super::{journal::Journal, register_remote};
use crate::{
    dataset::read_scores,
    domain::{
        Failure, FailureCode, ModelInfo, ModelLocation, ModelSource, Phase, RegisterSpec, RunEvent, WeightsFormat,
    },
    fetch::{FetchError, digest, fetch},
    model::inspect,
    text::Codec,
};

/// Executes the run. Returns its last event.
pub(super) fn register(spec: &RegisterSpec, journal: &mut Journal) -> anyhow::Result<RunEvent> {
    if let ModelSource::Remote(remote) = &spec.source {
        let model = register_remote::remote(remote, spec, journal)?;
        journal.say(RunEvent::Registered { model })?;
        return Ok(RunEvent::Succeeded { model: None, n_trained_tokens: 0 });
    }
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
    let location = fetch(spec, &mut on_progress).map_err(|e| {
        let code = match &e {
            FetchError::Unavailable(_) => FailureCode::SourceUnavailable,
            FetchError::Invalid(_) => FailureCode::InvalidModel,
            FetchError::Io(_) => return anyhow::Error::from(e),
        };
        Failure::new(code, e.to_string()).into()
    })?;
    let model = if location.format == WeightsFormat::Scores { scores(location)? } else { model(location)? };
    journal.say(RunEvent::Registered { model })?;
    Ok(RunEvent::Succeeded { model: None, n_trained_tokens: 0 })
}

/// What the files of a model say.
fn model(location: ModelLocation) -> anyhow::Result<ModelInfo> {
    let facts = inspect(&location).map_err(|e| Failure::new(e.code(), e.to_string()))?;
    let codec = Codec::load(&location).map_err(|e| Failure::new(e.code(), e.to_string()))?;
    codec.check_template().map_err(|e| {
        let message = format!(
            "{e} (a question alone, one under a system prompt, and a second question: it refuses all of them): correct it, or \
             take it out of the model's files, and prompts are in the plain format"
        );
        Failure::new(FailureCode::InvalidModel, message)
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
    Ok(ModelInfo {
        location,
        digest,
        architecture: facts.architecture,
        n_parameters: facts.n_parameters,
        vocab_size: codec.vocab_size() as u64,
        max_position_embeddings: facts.max_position_embeddings,
        has_chat_template: codec.has_template(),
        size_bytes,
        scores: None,
    })
}

/// What a file of scores covers. It was checked when it was uploaded, and is again: that check may still be going on.
fn scores(location: ModelLocation) -> anyhow::Result<ModelInfo> {
    let file = fs_err::File::open(&location.weights)?;
    let report = read_scores(BufReader::new(file), |_| {})?;
    if let Some(problem) = report.problems.first.first() {
        let place = problem.line.map_or(String::new(), |line| format!("line {line}: "));
        let message = format!("the file of scores cannot be used: {place}{}", problem.message);
        return Err(Failure::new(FailureCode::InvalidModel, message).into());
    }
    let (digest, size_bytes) = digest(&location)?;
    Ok(ModelInfo {
        location,
        digest,
        architecture: "scores".to_owned(),
        n_parameters: 0,
        vocab_size: 0,
        max_position_embeddings: 0,
        has_chat_template: false,
        size_bytes,
        scores: report.scores,
    })
}
