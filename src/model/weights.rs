//! A model's weights in memory under their Hugging Face names, whatever file they came from.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::{LlamaConfig, ModelError, gguf};
use crate::domain::{Dtype, ModelLocation, WeightsFormat};

/// What can be said of a model without loading its weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// The architecture, as `config.json` names it.
    pub architecture: String,
    /// Number of weights; a tied head is counted once.
    pub n_parameters: u64,
    /// Rows of the embedding.
    pub vocab_size: u64,
    /// Longest context it was made for, in tokens.
    pub max_position_embeddings: u64,
}

/// A model's shape and weights.
#[derive(Debug)]
pub struct Weights {
    /// The shape.
    pub config: LlamaConfig,
    tensors: BTreeMap<String, Tensor>,
}

/// `adapter_config.json`, as far as merging needs it.
#[derive(Debug, Deserialize)]
struct AdapterConfig {
    r: usize,
    lora_alpha: f64,
}

/// Finds out what a model is and that its files are whole, reading headers only.
pub fn inspect(location: &ModelLocation) -> Result<ModelFacts, ModelError> {
    let (architecture, config) = match location.format {
        WeightsFormat::Gguf => LlamaConfig::from_gguf(&gguf::read_content(&location.weights)?.0)?,
        WeightsFormat::Huggingface => {
            let parsed = LlamaConfig::from_json(&fs_err::read(location.weights.join("config.json"))?)?;
            let mut names = BTreeSet::new();
            for file in safetensors_files(&location.weights)? {
                // SAFETY: the file is only read while mapped, and a registered model's files are not written to.
                let mapped = unsafe { candle_core::safetensors::MmapedSafetensors::new(&file) }.map_err(|e| {
                    ModelError::invalid(format!("{} is not a whole safetensors file: {e}", file.display()))
                })?;
                names.extend(mapped.tensors().into_iter().map(|(name, _)| name));
            }
            if let Some(missing) = expected_names(&parsed.1).into_iter().find(|n| !names.contains(n)) {
                return Err(ModelError::invalid(format!(
                    "{}: the weight {missing} is missing",
                    location.weights.display()
                )));
            }
            parsed
        }
    };
    Ok(ModelFacts {
        architecture,
        n_parameters: config.n_parameters(),
        vocab_size: config.vocab_size as u64,
        max_position_embeddings: config.max_position_embeddings as u64,
    })
}

impl Weights {
    /// Loads a model in the type it is to be computed in, its adapters merged in.
    pub fn load(location: &ModelLocation, dtype: Dtype) -> Result<Self, ModelError> {
        let dtype = match dtype {
            Dtype::Float32 => DType::F32,
        };
        let (config, tensors) = match location.format {
            WeightsFormat::Gguf => gguf::read_weights(&location.weights, dtype)?,
            WeightsFormat::Huggingface => {
                let (_, config) = LlamaConfig::from_json(&fs_err::read(location.weights.join("config.json"))?)?;
                let mut tensors = BTreeMap::new();
                for file in safetensors_files(&location.weights)? {
                    for (name, tensor) in candle_core::safetensors::load(&file, &Device::Cpu)? {
                        tensors.insert(name, tensor.to_dtype(dtype)?);
                    }
                }
                (config, tensors)
            }
        };
        let mut weights = Self { config, tensors };
        for adapter in &location.adapters {
            weights.merge_adapter(adapter)?;
        }
        Ok(weights)
    }

    /// Takes one weight out, checking its shape.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let tensor =
            self.tensors.remove(name).ok_or_else(|| ModelError::invalid(format!("the weight {name} is missing")))?;
        if tensor.dims() != shape {
            let message = format!("the weight {name} has shape {:?}, the configuration says {shape:?}", tensor.dims());
            return Err(ModelError::Invalid(message));
        }
        Ok(tensor.contiguous()?)
    }

    /// W += (alpha/r)·B·A for every pair of a PEFT adapter.
    fn merge_adapter(&mut self, directory: &Path) -> Result<(), ModelError> {
        let config: AdapterConfig = read_json(&directory.join("adapter_config.json"))?;
        let adapter = candle_core::safetensors::load(directory.join("adapter_model.safetensors"), &Device::Cpu)?;
        let scale = config.lora_alpha / config.r as f64;
        for (name, a) in &adapter {
            let Some(layer) = name.strip_suffix(".lora_A.weight") else { continue };
            let missing = |what: &str| ModelError::invalid(format!("{}: {what} is missing", directory.display()));
            let b =
                adapter.get(&format!("{layer}.lora_B.weight")).ok_or_else(|| missing(&format!("{layer}.lora_B")))?;
            let target = format!("{}.weight", layer.strip_prefix("base_model.model.").unwrap_or(layer));
            let weight = self.tensors.get_mut(&target).ok_or_else(|| missing(&target))?;
            *weight = (&*weight + b.matmul(a)?.affine(scale, 0.0)?)?;
        }
        Ok(())
    }
}

/// The weights' files of a Hugging Face directory: one, or the shards its index names.
fn safetensors_files(directory: &Path) -> Result<Vec<std::path::PathBuf>, ModelError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index = directory.join("model.safetensors.index.json");
    if index.is_file() {
        let index: Index = read_json(&index)?;
        let shards: BTreeSet<String> = index.weight_map.into_values().collect();
        if let Some(bad) = shards.iter().find(|s| s.contains('/') || s.contains('\\') || s.starts_with('.')) {
            return Err(ModelError::invalid(format!("the index names a shard outside the directory: {bad}")));
        }
        return Ok(shards.iter().map(|s| directory.join(s)).collect());
    }
    let single = directory.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    Err(ModelError::invalid(format!(
        "{} has no model.safetensors and no model.safetensors.index.json",
        directory.display()
    )))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    serde_json::from_slice(&fs_err::read(path)?).map_err(|e| ModelError::invalid(format!("{}: {e}", path.display())))
}

fn expected_names(config: &LlamaConfig) -> Vec<String> {
    let mut names = vec!["model.embed_tokens.weight".to_owned(), "model.norm.weight".to_owned()];
    if !config.tied {
        names.push("lm_head.weight".to_owned());
    }
    for layer in 0..config.n_layers {
        for part in super::llama::BLOCK_WEIGHTS {
            names.push(format!("model.layers.{layer}.{part}.weight"));
        }
    }
    names
}
