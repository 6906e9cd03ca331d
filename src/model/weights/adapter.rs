//! A PEFT adapter, merged into the weights it was trained on.

use std::{collections::BTreeMap, path::Path};

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::read_json;
use crate::model::ModelError;

/// `adapter_config.json`, as far as merging needs it.
#[derive(Debug, Deserialize)]
struct AdapterConfig {
    r: usize,
    lora_alpha: f64,
}

/// What a PEFT adapter adds to one weight: (alpha/r)·B·A.
pub(super) struct AdapterUpdate {
    a: Tensor,
    b: Tensor,
    scale: f64,
}

impl AdapterUpdate {
    /// The weight with it.
    pub(super) fn merged_into(&self, weight: &Tensor) -> Result<Tensor, ModelError> {
        Ok((weight.to_dtype(DType::F32)? + self.b.matmul(&self.a)?.affine(self.scale, 0.0)?)?)
    }
}

/// The updates of a PEFT adapter by the name of the weight.
pub(super) fn adapter_updates(directory: &Path) -> Result<BTreeMap<String, AdapterUpdate>, ModelError> {
    let config: AdapterConfig = read_json(&directory.join("adapter_config.json"))?;
    let adapter = candle_core::safetensors::load(directory.join("adapter_model.safetensors"), &Device::Cpu)?;
    let scale = config.lora_alpha / config.r as f64;
    let mut updates = BTreeMap::new();
    for (name, a) in &adapter {
        let Some(layer) = name.strip_suffix(".lora_A.weight") else { continue };
        let b = adapter.get(&format!("{layer}.lora_B.weight"));
        let missing = || ModelError::invalid(format!("{}: {layer}.lora_B is missing", directory.display()));
        let b = b.ok_or_else(missing)?.to_dtype(DType::F32)?;
        let weight = format!("{}.weight", layer.strip_prefix("base_model.model.").unwrap_or(layer));
        updates.insert(weight, AdapterUpdate { a: a.to_dtype(DType::F32)?, b, scale });
    }
    Ok(updates)
}
