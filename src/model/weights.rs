//! A model's weights in memory under their Hugging Face names, whatever file they came from.

mod adapter;

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

use self::adapter::adapter_updates;
use super::{ModelConfig, ModelError, device::dense_budget, gguf, quantised::Quantised};
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
    /// Matrices that stay as the file has them.
    quantised: BTreeMap<String, Quantised>,
}

/// What becomes of a GGUF file's quantised matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matrices {
    /// They are unpacked when they are loaded: fastest.
    Dense,
    /// They are unpacked each time they are used: the same numbers, in a quarter of the memory. On the processor only.
    AsStored,
}

impl Matrices {
    /// How a model whose weights are frozen is loaded for this device: dense where that takes a small share of the memory.
    pub fn for_frozen(location: &ModelLocation, dtype: Dtype, device: &Device) -> Result<Self, ModelError> {
        if !device.is_cpu() || location.format != WeightsFormat::Gguf {
            return Ok(Self::Dense);
        }
        let bytes = gguf::inspect(&location.weights)?.n_parameters() * stored(dtype, true).size_in_bytes() as u64;
        Ok(if bytes <= dense_budget() { Self::Dense } else { Self::AsStored })
    }
}

/// Finds out what a model is and that its files are whole, reading headers only.
pub fn inspect(location: &ModelLocation) -> Result<ModelFacts, ModelError> {
    let config = match location.format {
        WeightsFormat::Scores | WeightsFormat::Remote => return Err(ModelError::invalid(WeightsFormat::NOT_A_MODEL)),
        WeightsFormat::Gguf => gguf::inspect(&location.weights)?,
        WeightsFormat::Huggingface => {
            let config = read_config(location)?;
            let mut names = BTreeSet::new();
            for file in safetensors_files(&location.weights)? {
                names.extend(map(&file)?.tensors().into_iter().map(|(name, _)| config.family.full_name(&name)));
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

/// The shape of a model, without its weights.
pub(super) fn read_config(location: &ModelLocation) -> Result<ModelConfig, ModelError> {
    match location.format {
        WeightsFormat::Scores | WeightsFormat::Remote => Err(ModelError::invalid(WeightsFormat::NOT_A_MODEL)),
        WeightsFormat::Gguf => gguf::read_config(&location.weights),
        WeightsFormat::Huggingface => ModelConfig::from_json(&fs_err::read(location.weights.join("config.json"))?),
    }
}

/// A weight as it comes out of a model's files.
enum Found {
    /// As numbers, matrices as (out, in), the adapters merged in.
    Dense(Tensor),
    /// As a GGUF file has it.
    AsStored(gguf::Read),
}

/// Hands over every weight under its Hugging Face name, as numbers. Returns the shape.
pub(super) fn each_weight(
    location: &ModelLocation,
    keep: &mut impl FnMut(String, Tensor) -> Result<(), ModelError>,
) -> Result<ModelConfig, ModelError> {
    each_found(location, Matrices::Dense, &mut |name, found| match found {
        Found::Dense(tensor) => keep(name, tensor),
        Found::AsStored(read) => keep(name, read.dequantised()?),
    })
}

/// Hands over every weight. Returns the shape.
///
/// One at a time: the whole model twice would be the most memory a run or an export ever needs.
fn each_found(
    location: &ModelLocation,
    matrices: Matrices,
    keep: &mut impl FnMut(String, Found) -> Result<(), ModelError>,
) -> Result<ModelConfig, ModelError> {
    let updates = location.adapters.iter().map(|a| adapter_updates(a)).collect::<Result<Vec<_>, _>>()?;
    let updated: BTreeSet<&String> = updates.iter().flat_map(BTreeMap::keys).collect();
    let mut unused = updated.clone();
    let mut merge = |name: &String, mut tensor: Tensor| -> Result<Found, ModelError> {
        for update in updates.iter().filter_map(|updates| updates.get(name)) {
            tensor = update.merged_into(&tensor)?;
        }
        unused.remove(name);
        Ok(Found::Dense(tensor))
    };
    let config = match location.format {
        WeightsFormat::Scores | WeightsFormat::Remote => return Err(ModelError::invalid(WeightsFormat::NOT_A_MODEL)),
        WeightsFormat::Gguf => gguf::read_weights(&location.weights, |read| {
            let name = read.name.clone();
            let stays = matrices == Matrices::AsStored && read.is_quantised() && !updated.contains(&name);
            let found = if stays { Found::AsStored(read) } else { merge(&name, read.dequantised()?)? };
            keep(name, found)
        })?,
        WeightsFormat::Huggingface => read_safetensors(location, &mut |name, tensor| {
            let found = merge(&name, tensor)?;
            keep(name, found)
        })?,
    };
    if let Some(missing) = unused.first() {
        return Err(ModelError::invalid(format!("an adapter is made for {missing}, which the model does not have")));
    }
    Ok(config)
}

fn read_safetensors(
    location: &ModelLocation,
    keep: &mut impl FnMut(String, Tensor) -> Result<(), ModelError>,
) -> Result<ModelConfig, ModelError> {
    let config = read_config(location)?;
    for file in safetensors_files(&location.weights)? {
        let mapped = map(&file)?;
        for (stored_name, _) in mapped.tensors() {
            let name = config.family.full_name(&stored_name);
            // Masks, frequencies and tied heads that older files hold too.
            let Some(part) = config.family.part_of(&name).filter(|part| config.has(*part)) else { continue };
            let tensor = mapped.load(&stored_name, &Device::Cpu)?;
            let is_transposed = tensor.rank() > 1 && config.family.is_stored_transposed(part);
            keep(name, if is_transposed { tensor.t()?.contiguous()? } else { tensor })?;
        }
    }
    Ok(config)
}

fn map(file: &Path) -> Result<candle_core::safetensors::MmapedSafetensors, ModelError> {
    // SAFETY: the file is only read while mapped, and a registered model's files are not written to.
    unsafe { candle_core::safetensors::MmapedSafetensors::new(file) }
        .map_err(|e| ModelError::invalid(format!("{} is not a whole safetensors file: {e}", file.display())))
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
        Self::load_as(location, dtype, Matrices::Dense)
    }

    /// The same; what no adapter changes may stay quantised.
    pub fn load_as(location: &ModelLocation, dtype: Dtype, matrices: Matrices) -> Result<Self, ModelError> {
        let (mut tensors, mut quantised) = (BTreeMap::new(), BTreeMap::new());
        let config = each_found(location, matrices, &mut |name, found| {
            match found {
                Found::Dense(tensor) => {
                    let stored = stored(dtype, tensor.rank() > 1);
                    tensors.insert(name, tensor.to_dtype(stored)?);
                }
                Found::AsStored(read) => {
                    let matrix = Quantised::new(&read.tensor, read.part, read.config, stored(dtype, true))?;
                    quantised.insert(name, matrix);
                }
            }
            Ok(())
        })?;
        Ok(Self { config, tensors, quantised })
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
        Ok(Self { config, tensors, quantised: BTreeMap::new() })
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

    /// Takes a matrix out that has stayed quantised, checking its shape.
    pub(super) fn take_quantised(&mut self, name: &str, shape: &[usize]) -> Result<Option<Quantised>, ModelError> {
        let Some(matrix) = self.quantised.remove(name) else { return Ok(None) };
        check_shape(name, &matrix.shape(), shape)?;
        Ok(Some(matrix))
    }

    /// Takes one weight out, checking its shape.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let tensor =
            self.tensors.remove(name).ok_or_else(|| ModelError::invalid(format!("the weight {name} is missing")))?;
        check_shape(name, tensor.dims(), shape)?;
        Ok(tensor.contiguous()?)
    }
}

fn check_shape(name: &str, found: &[usize], expected: &[usize]) -> Result<(), ModelError> {
    if found == expected {
        return Ok(());
    }
    let message = format!("the weight {name} has shape {found:?}, the configuration says {expected:?}");
    Err(ModelError::Invalid(message))
}

/// The type a weight has in memory.
pub(super) fn stored(dtype: Dtype, is_matrix: bool) -> DType {
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
