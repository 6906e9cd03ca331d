//! A model's weights in memory under their Hugging Face names, whatever file they came from.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::OnceLock,
};

use candle_core::{DType, Device, Tensor};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use serde::Deserialize;

use super::{ModelConfig, ModelError, gguf};
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
    pub config: ModelConfig,
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
    let config = match location.format {
        WeightsFormat::Scores | WeightsFormat::Remote => return Err(ModelError::invalid(WeightsFormat::NOT_A_MODEL)),
        WeightsFormat::Gguf => gguf::inspect(&location.weights)?,
        WeightsFormat::Huggingface => {
            let config = ModelConfig::from_json(&fs_err::read(location.weights.join("config.json"))?)?;
            let mut names = BTreeSet::new();
            for file in safetensors_files(&location.weights)? {
                // SAFETY: the file is only read while mapped, and a registered model's files are not written to.
                let mapped = unsafe { candle_core::safetensors::MmapedSafetensors::new(&file) }.map_err(|e| {
                    ModelError::invalid(format!("{} is not a whole safetensors file: {e}", file.display()))
                })?;
                names.extend(mapped.tensors().into_iter().map(|(name, _)| config.family.full_name(&name)));
            }
            check_complete(&config, &location.weights, |name| names.contains(name))?;
            config
        }
    };
    Ok(ModelFacts {
        architecture: config.family.architecture.to_owned(),
        n_parameters: config.n_parameters(),
        vocab_size: config.vocab_size as u64,
        max_position_embeddings: config.max_position_embeddings as u64,
    })
}

/// An error if one of the model's weights is not there.
pub(super) fn check_complete(
    config: &ModelConfig,
    path: &Path,
    is_there: impl Fn(&str) -> bool,
) -> Result<(), ModelError> {
    match config.tensors().into_iter().find(|(name, _)| !is_there(name)) {
        Some((missing, _)) => Err(ModelError::invalid(format!("{}: the weight {missing} is missing", path.display()))),
        None => Ok(()),
    }
}

impl Weights {
    /// Loads a model, its adapters merged in, its matrices stored as `dtype`.
    pub fn load(location: &ModelLocation, dtype: Dtype) -> Result<Self, ModelError> {
        let updates = location.adapters.iter().map(|a| adapter_updates(a)).collect::<Result<Vec<_>, _>>()?;
        let mut tensors = BTreeMap::new();
        // One at a time: the whole model in two types would be the most memory a run ever needs.
        let mut keep = |name: String, tensor: Tensor| -> Result<(), ModelError> {
            let mut tensor = tensor;
            for update in updates.iter().filter_map(|updates| updates.get(&name)) {
                tensor = update.merged_into(&tensor)?;
            }
            let stored = stored(dtype, tensor.rank() > 1);
            tensors.insert(name, tensor.to_dtype(stored)?);
            Ok(())
        };
        let config = match location.format {
            WeightsFormat::Scores | WeightsFormat::Remote => {
                return Err(ModelError::invalid(WeightsFormat::NOT_A_MODEL));
            }
            WeightsFormat::Gguf => gguf::read_weights(&location.weights, &mut keep)?,
            WeightsFormat::Huggingface => {
                let config = ModelConfig::from_json(&fs_err::read(location.weights.join("config.json"))?)?;
                for file in safetensors_files(&location.weights)? {
                    for (name, tensor) in candle_core::safetensors::load(&file, &Device::Cpu)? {
                        let name = config.family.full_name(&name);
                        // Masks, frequencies and tied heads that older files hold too.
                        let Some(part) = config.family.part_of(&name).filter(|part| config.has(*part)) else {
                            continue;
                        };
                        let is_transposed = tensor.rank() > 1 && config.family.is_stored_transposed(part);
                        keep(name, if is_transposed { tensor.t()?.contiguous()? } else { tensor })?;
                    }
                }
                config
            }
        };
        if let Some(missing) = updates.iter().flat_map(BTreeMap::keys).find(|name| !tensors.contains_key(*name)) {
            return Err(ModelError::invalid(format!(
                "an adapter is made for {missing}, which the model does not have"
            )));
        }
        Ok(Self { config, tensors })
    }

    /// Weights of this shape that look random, the same everywhere, for measurements: stored as `dtype`, on `device`.
    pub fn random(config: ModelConfig, dtype: Dtype, device: &Device) -> Result<Self, ModelError> {
        let mut tensors = BTreeMap::new();
        for (n, (name, shape)) in config.tensors().into_iter().enumerate() {
            let is_matrix = shape.len() > 1;
            let values = noise(&shape, n as u64)?.to_device(device)?;
            let tensor = if is_matrix {
                let scale = 1.0 / (shape[1] as f64).sqrt();
                (values * scale)?.to_dtype(stored(dtype, is_matrix))?
            } else {
                ((values * 0.1)? + 1.0)?
            };
            tensors.insert(name, tensor);
        }
        Ok(Self { config, tensors })
    }

    /// Moves all of them to a device.
    pub fn to_device(mut self, device: &Device) -> Result<Self, ModelError> {
        for tensor in self.tensors.values_mut() {
            *tensor = tensor.to_device(device)?;
        }
        Ok(self)
    }

    /// Where they are.
    pub(super) fn device(&self) -> &Device {
        self.tensors.values().next().map_or(&Device::Cpu, Tensor::device)
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
}

/// The type a weight has in memory.
fn stored(dtype: Dtype, is_matrix: bool) -> DType {
    if dtype == Dtype::Bfloat16 && is_matrix { DType::BF16 } else { DType::F32 }
}

/// Numbers around 0 with variance 1 that look random, the same on every machine for a `seed`; float32, on the processor.
pub fn noise(shape: &[usize], seed: u64) -> candle_core::Result<Tensor> {
    // Drawing billions of numbers would take a minute: these come round again, at a place that fits no row.
    const PERIOD: usize = 1_000_003;
    static DRAWN: OnceLock<Vec<f32>> = OnceLock::new();
    let drawn = DRAWN.get_or_init(|| {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        (0..PERIOD)
            .map(|_| (f64::from(rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0) as f32 * 3f32.sqrt())
            .collect()
    });
    let n = shape.iter().product();
    let start = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % PERIOD as u64) as usize;
    let mut values = Vec::with_capacity(n);
    values.extend_from_slice(&drawn[start..(start + n).min(PERIOD)]);
    while values.len() < n {
        values.extend_from_slice(&drawn[..PERIOD.min(n - values.len())]);
    }
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// What a PEFT adapter adds to one weight: (alpha/r)·B·A.
struct AdapterUpdate {
    a: Tensor,
    b: Tensor,
    scale: f64,
}

impl AdapterUpdate {
    fn merged_into(&self, weight: &Tensor) -> Result<Tensor, ModelError> {
        Ok((weight.to_dtype(DType::F32)? + self.b.matmul(&self.a)?.affine(self.scale, 0.0)?)?)
    }
}

/// The updates of a PEFT adapter by the name of the weight.
fn adapter_updates(directory: &Path) -> Result<BTreeMap<String, AdapterUpdate>, ModelError> {
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
