//! What a trained model is written as: a PEFT adapter, or a Hugging Face directory.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use candle_core::Tensor;

use super::{ModelConfig, ModelError, Parameters};
use crate::domain::Lora;

/// Writes `adapter_model.safetensors` and `adapter_config.json` as PEFT reads them.
pub fn save_adapter(
    directory: &Path,
    parameters: &Parameters,
    config: &ModelConfig,
    (lora, base): (&Lora, &str),
) -> Result<(), ModelError> {
    save_tensors(
        &directory.join("adapter_model.safetensors"),
        parameters.iter().map(|(_, name, value)| (name, value.clone())),
    )?;
    let layers = parameters.iter().filter_map(|(_, name, _)| name.strip_suffix(".lora_A.weight")?.rsplit('.').next());
    let targets: BTreeSet<&str> = layers.collect();
    let config = serde_json::json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "inference_mode": true,
        "r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout, "target_modules": targets,
        "bias": "none", "fan_in_fan_out": config.family.stores_transposed, "modules_to_save": null, "use_rslora": false, "use_dora": false,
    });
    fs_err::write(
        directory.join("adapter_config.json"),
        serde_json::to_vec_pretty(&config).map_err(std::io::Error::from)?,
    )?;
    Ok(())
}

/// Writes `model.safetensors` and `config.json`; the tokenizer is the caller's to add.
pub fn save_full(directory: &Path, parameters: &Parameters, config: &ModelConfig) -> Result<(), ModelError> {
    let as_stored = parameters.iter().map(|(_, name, value)| {
        let is_transposed = config.family.part_of(name).is_some_and(|part| config.family.is_stored_transposed(part));
        let value = if is_transposed && value.rank() > 1 { value.t()?.contiguous()? } else { value.clone() };
        Ok((name, value))
    });
    save_tensors(&directory.join("model.safetensors"), as_stored.collect::<Result<Vec<_>, ModelError>>()?)?;
    let config = serde_json::to_vec_pretty(&config.to_json()).map_err(std::io::Error::from)?;
    fs_err::write(directory.join("config.json"), config)?;
    Ok(())
}

fn save_tensors<'a>(path: &Path, tensors: impl IntoIterator<Item = (&'a str, Tensor)>) -> Result<(), ModelError> {
    let tensors: HashMap<&str, Tensor> = tensors.into_iter().collect();
    Ok(candle_core::safetensors::save(&tensors, path)?)
}
