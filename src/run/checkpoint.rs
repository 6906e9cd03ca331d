//! Checkpoints: everything a run needs to go on exactly, written beside, synced, then renamed.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::{hashed_files::hashed_files, references::unusable};
use crate::{
    domain::{CheckpointSummary, Failure, FailureCode, ModelInfo, ModelLocation, TrainSpec, WeightsFormat},
    fetch,
    model::{ModelFacts, inspect, save_adapter, save_full},
    run_dir::{CheckpointManifest, RunDir, read_json, sync_dir},
    text::Codec,
    train::{Policy, Weigher},
};

/// `state.json`: where the loop stands, and what the run stands on.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LoopState {
    /// Steps done.
    pub(super) step: u64,
    /// Tokens trained on.
    pub(super) n_tokens: u64,
    /// Digests of the references, in order; a resumed run must have the same.
    pub(super) references: Vec<String>,
    /// Digest of the training file.
    pub(super) training_file: String,
    /// The references' weights and what changes them.
    pub(super) weigher: Weigher,
    /// The metrics of that step, for the checkpoint's event.
    pub(super) newest: BTreeMap<String, f64>,
}

/// Writes the checkpoint of `state`. What could not be written whole is taken away again: on a full disk its room is needed
/// to say so.
pub(super) fn write(
    run: &RunDir,
    spec: &TrainSpec,
    policy: &Policy,
    codec: &Codec,
    state: &LoopState,
) -> anyhow::Result<()> {
    let name = RunDir::checkpoint_name(state.step);
    let (beside, home) = (run.checkpoints().join(format!("{name}.writing")), run.checkpoints().join(&name));
    let _ = fs_err::remove_dir_all(&beside);
    let written = write_files(&beside, spec, policy, codec, state);
    if written.is_err() {
        let _ = fs_err::remove_dir_all(&beside);
    }
    written?;
    fs_err::rename(&beside, &home)?;
    Ok(sync_dir(&run.checkpoints())?)
}

fn write_files(
    beside: &Path,
    spec: &TrainSpec,
    policy: &Policy,
    codec: &Codec,
    state: &LoopState,
) -> anyhow::Result<()> {
    fs_err::create_dir_all(beside)?;
    let base = &spec.references[0];
    match &spec.hyperparameters.lora {
        Some(lora) => save_adapter(beside, &policy.parameters, policy.decoder.config(), (lora, base.model.as_str()))?,
        None => {
            save_full(beside, &policy.parameters, policy.decoder.config())?;
            codec.save(beside).map_err(|e| unusable(base, &e))?;
        }
    }
    let moments: HashMap<String, candle_core::Tensor> =
        policy.optimizer.state(&policy.parameters).into_iter().collect();
    let [loop_state, optimizer] = RunDir::RESUME_STATE;
    candle_core::safetensors::save(&moments, beside.join(optimizer))?;
    fs_err::write(beside.join(loop_state), serde_json::to_vec_pretty(state)?)?;
    let manifest = CheckpointManifest { step: state.step, files: hashed_files(beside)? };
    fs_err::write(beside.join(RunDir::MANIFEST), serde_json::to_vec_pretty(&manifest)?)?;
    for entry in fs_err::read_dir(beside)? {
        fs_err::File::open(entry?.path())?.sync_all()?;
    }
    Ok(sync_dir(beside)?)
}

/// The complete checkpoint of `state` as its event tells it.
pub(super) fn summary(
    run: &RunDir,
    spec: &TrainSpec,
    codec: &Codec,
    state: &LoopState,
) -> anyhow::Result<CheckpointSummary> {
    let directory = RunDir::checkpoint_name(state.step);
    let home = run.checkpoints().join(&directory);
    let manifest: CheckpointManifest = read_json(&home.join(RunDir::MANIFEST))?;
    Ok(CheckpointSummary {
        step: state.step,
        directory,
        size_bytes: manifest.files.iter().map(|f| f.size_bytes).sum(),
        model: model_info(spec, codec, &home)?,
        metrics: state.newest.clone(),
    })
}

/// Where the newest checkpoint stands that one can go on from; `None` where there is none.
///
/// # Errors
/// If it was made with another training file, or against other references.
pub(super) fn newest(run: &RunDir, spec: &TrainSpec, training_file: &str) -> anyhow::Result<Option<LoopState>> {
    let Some((step, home)) = run.newest_resumable()? else { return Ok(None) };
    let [state, _] = RunDir::RESUME_STATE;
    let state: LoopState = read_json(&home.join(state))?;
    if state.references.iter().ne(spec.references.iter().map(|r| &r.digest)) {
        return Err(invalid(step, "was made against other references: their files have changed").into());
    }
    if state.training_file != training_file {
        return Err(invalid(step, "was made with another training file: its content has changed").into());
    }
    Ok(Some(state))
}

/// Puts the weights and moments saved at `step` back into `policy`.
pub(super) fn restore(run: &RunDir, spec: &TrainSpec, step: u64, policy: &mut Policy) -> anyhow::Result<()> {
    let home = run.checkpoints().join(RunDir::checkpoint_name(step));
    let file = if spec.hyperparameters.lora.is_some() { "adapter_model.safetensors" } else { "model.safetensors" };
    let values = candle_core::safetensors::load(home.join(file), &Device::Cpu)?;
    let moments = candle_core::safetensors::load(home.join(RunDir::RESUME_STATE[1]), &Device::Cpu)?;
    let names: Vec<_> = policy.parameters.iter().map(|(id, name, _)| (id, name.to_owned())).collect();
    for (id, name) in names {
        let value = values.get(&name).ok_or_else(|| invalid(step, &format!("lacks the weight {name}")))?;
        let device = policy.parameters.get(id).device().clone();
        policy.parameters.set(id, value.to_device(&device)?);
    }
    let take = |name: &str| {
        moments.get(name).cloned().ok_or_else(|| candle_core::Error::Msg(format!("optimizer.safetensors lacks {name}")))
    };
    Ok(policy.optimizer.restore(step, &policy.parameters, take)?)
}

fn invalid(step: u64, what: &str) -> Failure {
    Failure::new(FailureCode::InvalidCheckpoint, format!("the checkpoint at step {step} {what}"))
}

/// The checkpoint as a model: an adapter more on the base, or a directory of its own.
fn model_info(spec: &TrainSpec, codec: &Codec, home: &Path) -> anyhow::Result<ModelInfo> {
    let base = &spec.references[0];
    let location = if spec.hyperparameters.lora.is_some() {
        let mut location = base.location.clone();
        location.adapters.push(home.to_owned());
        location
    } else {
        ModelLocation { format: WeightsFormat::Huggingface, weights: home.to_owned(), adapters: Vec::new() }
    };
    let (digest, size_bytes) = fetch::digest(&location)?;
    let ModelFacts { architecture, n_parameters, max_position_embeddings, .. } = inspect(&location)?;
    Ok(ModelInfo {
        location,
        digest,
        architecture,
        n_parameters,
        vocab_size: codec.vocab_size() as u64,
        max_position_embeddings,
        has_chat_template: codec.has_template(),
        size_bytes,
        scores: None,
    })
}
