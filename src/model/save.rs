//! What a trained model is written as: a PEFT adapter, or a Hugging Face directory.

use std::{collections::HashMap, path::Path};

use candle_core::Tensor;

use super::{LlamaConfig, ModelError, Parameters};
use crate::domain::Lora;

/// Writes `adapter_model.safetensors` and `adapter_config.json` as PEFT reads them.
pub fn save_adapter(directory: &Path, parameters: &Parameters, lora: &Lora, base: &str) -> Result<(), ModelError> {
    save_tensors(&directory.join("adapter_model.safetensors"), parameters)?;
    let targets: Vec<&str> = lora.target_modules.iter().map(|m| m.as_str()).collect();
    let config = serde_json::json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "inference_mode": true,
        "r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout, "target_modules": targets,
        "bias": "none", "fan_in_fan_out": false, "modules_to_save": null, "use_rslora": false, "use_dora": false,
    });
    fs_err::write(
        directory.join("adapter_config.json"),
        serde_json::to_vec_pretty(&config).map_err(std::io::Error::from)?,
    )?;
    Ok(())
}

/// Writes `model.safetensors` and `config.json`; the tokenizer is the caller's to add.
pub fn save_full(directory: &Path, parameters: &Parameters, config: &LlamaConfig) -> Result<(), ModelError> {
    save_tensors(&directory.join("model.safetensors"), parameters)?;
    let config = serde_json::to_vec_pretty(&config.to_json()).map_err(std::io::Error::from)?;
    fs_err::write(directory.join("config.json"), config)?;
    Ok(())
}

fn save_tensors(path: &Path, parameters: &Parameters) -> Result<(), ModelError> {
    let tensors: HashMap<&str, Tensor> = parameters.iter().map(|(_, name, value)| (name, value.clone())).collect();
    Ok(candle_core::safetensors::save(&tensors, path)?)
}
