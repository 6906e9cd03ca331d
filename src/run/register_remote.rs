//! The registration of a reference on another server: asked whether it serves, and written down.

use sha2::{Digest, Sha256};

use super::{
    codecs::Codecs,
    journal::Journal,
    remote::{Rendering, client, failed},
    signal,
};
use crate::{
    dataset::Prompt,
    domain::{
        Failure, FailureCode, ModelInfo, ModelLocation, Phase, RegisterSpec, RemoteModel, RemoteRecord, WeightsFormat,
    },
    fetch::digest,
    run_dir::write_atomic,
    score::remote::probe,
};

/// What the server is asked: something it can go on with in one word.
const QUESTIONS: [&str; 4] = [
    "What is the capital of France?",
    "The quick brown fox jumps over the lazy",
    "Count: one, two, three, four,",
    "Is water wet? Answer with yes or no.",
];

/// Asks the server, and writes down how it is asked from now on.
pub(super) fn remote(remote: &RemoteModel, spec: &RegisterSpec, journal: &mut Journal) -> anyhow::Result<ModelInfo> {
    journal.progress(Phase::Fetching, 0, 1, None)?;
    if remote.tokenizer.is_some() != spec.tokenizer.is_some() {
        let message = "the model that renders its prompts is not ready: register that one first";
        return Err(Failure::new(FailureCode::InvalidModel, message).into());
    }
    let rendering = Rendering::new(spec.tokenizer.as_ref(), &spec.model, &mut Codecs::default())?;
    let prompts = QUESTIONS.iter().map(|question| rendering.sent(&Prompt::Text((*question).to_owned())));
    let prompts = prompts.collect::<Result<Vec<_>, _>>();
    let prompts = prompts.map_err(|e| Failure::new(FailureCode::InvalidModel, e.to_string()))?;
    let server = client(remote.url.as_str(), &remote.model, &spec.model);
    let dialect = probe(&server, &prompts, &signal::stop_requested).map_err(|e| failed(&spec.model, &e))?;
    let tokenizer = spec.tokenizer.clone();
    let record = RemoteRecord { url: remote.url.to_string(), model: remote.model.clone(), dialect, tokenizer };
    let text = serde_json::to_vec_pretty(&record)?;
    let directory = spec.store_dir.join("remote");
    fs_err::create_dir_all(&directory)?;
    let name: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
    let weights = fs_err::canonicalize(&directory)?.join(format!("{name}.json"));
    write_atomic(&weights, &text)?;
    let location = ModelLocation { format: WeightsFormat::Remote, weights, adapters: Vec::new() };
    let (digest, size_bytes) = digest(&location)?;
    Ok(ModelInfo {
        location,
        digest,
        architecture: "remote".to_owned(),
        n_parameters: 0,
        vocab_size: 0,
        max_position_embeddings: 0,
        has_chat_template: false,
        size_bytes,
        scores: None,
    })
}
