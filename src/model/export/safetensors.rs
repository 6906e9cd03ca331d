//! A Hugging Face directory: `config.json` and safetensors files.

use std::{collections::BTreeMap, path::Path};

use candle_core::Tensor;
use serde_json::{Map, Value, json};

use super::{
    Count, OnWeight,
    number::Number,
    placed::{Place, TensorFile},
};
use crate::{
    domain::{ExportDtype, ExportFormat, ModelLocation},
    model::{
        ModelConfig, ModelError,
        weights::{each_weight, read_config},
    },
};

/// Larger models are cut into files of at most this size, in bytes.
const MAX_SHARD_BYTES: u64 = 5_000_000_000;

/// Writes `config.json` and the weights into `directory`; the tokenizer is the caller's to add.
///
/// # Errors
/// A type that safetensors files do not have, among others.
pub fn export_huggingface(
    location: &ModelLocation,
    dtype: ExportDtype,
    directory: &Path,
    on_weight: &mut OnWeight<'_>,
) -> Result<(), ModelError> {
    export_in_shards(location, dtype, directory, MAX_SHARD_BYTES, on_weight)
}

fn export_in_shards(
    location: &ModelLocation,
    dtype: ExportDtype,
    directory: &Path,
    max_shard_bytes: u64,
    on_weight: &mut OnWeight<'_>,
) -> Result<(), ModelError> {
    let config = read_config(location)?;
    let (number, torch_name) = number_of(dtype)?;
    let shards = shards(&config, number, max_shard_bytes);
    let mut files = Vec::new();
    let mut weight_map = BTreeMap::new();
    for (i, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_owned(),
            n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
        };
        weight_map.extend(shard.iter().map(|(tensor, _)| (tensor.clone(), name.clone())));
        files.push(begin(&directory.join(name), shard, number)?);
    }
    let mut count = Count { n_done: 0, n_total: config.tensors().len(), on_weight };
    each_weight(location, &mut |name, tensor| {
        let file = files.iter_mut().find(|file| file.expects(&name)).ok_or_else(|| {
            ModelError::invalid(format!("the model has a weight its configuration does not know: {name}"))
        })?;
        file.put(&name, &as_stored(&config, &name, tensor)?)?;
        count.one_more()
    })?;
    files.into_iter().try_for_each(TensorFile::finish)?;
    if shards.len() > 1 {
        let total: u64 = shards.iter().flatten().map(|(_, shape)| n_bytes(number, shape)).sum();
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        write_json(&directory.join("model.safetensors.index.json"), &index)?;
    }
    write_json(&directory.join("config.json"), &config.to_json_of(torch_name))
}

/// The room the weights take.
pub(super) fn n_bytes_of(config: &ModelConfig, dtype: ExportDtype) -> Result<u64, ModelError> {
    let (number, _) = number_of(dtype)?;
    Ok(config.tensors().iter().map(|(_, shape)| n_bytes(number, shape)).sum())
}

/// A type as safetensors files store it, and its name in `config.json`.
fn number_of(dtype: ExportDtype) -> Result<(Number, &'static str), ModelError> {
    if let Some(refusal) = ExportFormat::Huggingface.refusal(dtype) {
        return Err(ModelError::Unsupported(refusal.into()));
    }
    let number = match dtype {
        ExportDtype::Float16 => Number::F16,
        ExportDtype::Bfloat16 => Number::Bf16,
        ExportDtype::Float32 | ExportDtype::Q8_0 => Number::F32,
    };
    Ok((number, dtype.as_str()))
}

/// The tensors of each file, with their shapes as stored.
fn shards(config: &ModelConfig, number: Number, max_shard_bytes: u64) -> Vec<Vec<(String, Vec<usize>)>> {
    let mut shards = vec![Vec::new()];
    let mut size = 0;
    for (name, mut shape) in config.tensors() {
        if is_stored_transposed(config, &name) {
            shape.reverse();
        }
        let n_bytes = n_bytes(number, &shape);
        if size > 0 && size + n_bytes > max_shard_bytes {
            shards.push(Vec::new());
            size = 0;
        }
        size += n_bytes;
        shards.last_mut().expect("never empty").push((name, shape));
    }
    shards
}

fn n_bytes(number: Number, shape: &[usize]) -> u64 {
    number.n_bytes(shape.iter().product()) as u64
}

/// Begins a safetensors file: eight bytes that say how long the header is, the header, the tensors.
fn begin(path: &Path, tensors: &[(String, Vec<usize>)], number: Number) -> Result<TensorFile, ModelError> {
    let dtype = match number {
        Number::F16 => "F16",
        Number::Bf16 => "BF16",
        Number::F32 | Number::Q8_0 => "F32",
    };
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut at = 0;
    let mut offsets = Vec::new();
    for (name, shape) in tensors {
        let end = at + n_bytes(number, shape);
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [at, end]}));
        offsets.push(at);
        at = end;
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    let start = bytes.len() as u64;
    let place = |((name, shape), at): (&(String, Vec<usize>), u64)| {
        (name.clone(), Place { at: start + at, number, shape: shape.clone() })
    };
    TensorFile::create(path, &bytes, start + at, tensors.iter().zip(offsets).map(place).collect())
}

fn is_stored_transposed(config: &ModelConfig, name: &str) -> bool {
    name.ends_with(".weight")
        && config.family.part_of(name).is_some_and(|part| config.family.is_stored_transposed(part))
}

fn as_stored(config: &ModelConfig, name: &str, tensor: Tensor) -> candle_core::Result<Tensor> {
    if is_stored_transposed(config, name) { tensor.t()?.contiguous() } else { Ok(tensor) }
}

fn write_json(path: &Path, value: &Value) -> Result<(), ModelError> {
    let bytes = serde_json::to_vec_pretty(value).map_err(std::io::Error::from)?;
    let mut file = fs_err::File::create(path)?;
    std::io::Write::write_all(&mut file, &bytes)?;
    Ok(file.sync_all()?)
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::{
        domain::{Dtype, WeightsFormat},
        model::Weights,
    };

    #[test]
    fn a_large_model_is_cut_into_files_that_are_read_again() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
        let out = tempfile::tempdir().expect("set up");
        let location = |weights: &Path| ModelLocation {
            format: WeightsFormat::Huggingface,
            weights: weights.to_owned(),
            adapters: Vec::new(),
        };
        let source = location(&fixtures.join("gpt2"));
        export_in_shards(&source, ExportDtype::Float32, out.path(), 8000, &mut |_, _| ControlFlow::Continue(()))
            .expect("written");
        let files = std::fs::read_dir(out.path()).expect("read").count();
        assert!(files > 4, "{files} files");
        let (mut ours, mut theirs) = (
            Weights::load(&location(out.path()), Dtype::Float32).expect("read"),
            Weights::load(&source, Dtype::Float32).expect("read"),
        );
        for (name, shape) in theirs.config.clone().tensors() {
            let numbers = |weights: &mut Weights| {
                let tensor =
                    weights.take(&name, &shape).and_then(|tensor| Ok(tensor.flatten_all()?.to_vec1::<f32>()?));
                tensor.expect("read")
            };
            assert_eq!(numbers(&mut ours), numbers(&mut theirs), "{name}");
        }
    }

    #[test]
    fn a_type_of_gguf_is_refused() {
        let nowhere = Path::new("/nowhere");
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/gpt2");
        let location = ModelLocation { format: WeightsFormat::Huggingface, weights: fixture, adapters: Vec::new() };
        let error = export_huggingface(&location, ExportDtype::Q8_0, nowhere, &mut |_, _| ControlFlow::Continue(()))
            .expect_err("refused")
            .to_string();
        assert!(error.contains("q8_0"), "{error}");
    }
}
