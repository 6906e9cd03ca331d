//! Weights out of a GGUF file: names and layout turned into Hugging Face's, numbers dequantised.

use std::{
    collections::BTreeSet,
    io::{BufReader, Seek, SeekFrom},
    path::Path,
};

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, gguf_file},
};
use fs_err::File;

use super::{ModelConfig, ModelError, weights::check_complete};

/// The tensor that says how frequencies are stretched.
pub(super) const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// Reads the metadata and checks that the file holds every tensor it announces, in a type we read.
pub(super) fn read_content(path: &Path) -> Result<(gguf_file::Content, BufReader<File>), ModelError> {
    let mut reader = BufReader::new(File::open(path)?);
    let content = gguf_file::Content::read(&mut reader)
        .map_err(|e| ModelError::invalid(format!("{} is not a whole GGUF file: {e}", path.display())))?;
    let length = reader.seek(SeekFrom::End(0))?;
    for (name, info) in &content.tensor_infos {
        use GgmlDType::{BF16, F16, F32, Q4_0, Q4_1, Q4K, Q5_0, Q6K, Q8_0};
        if !matches!(info.ggml_dtype, F32 | F16 | BF16 | Q8_0 | Q4_0 | Q4_1 | Q5_0 | Q4K | Q6K) {
            return Err(ModelError::Unsupported(format!(
                "the tensor {name} is of type {:?}; supported: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q4_K, Q6_K",
                info.ggml_dtype
            )));
        }
        let size = info.shape.elem_count() / info.ggml_dtype.block_size() * info.ggml_dtype.type_size();
        let end = content.tensor_data_offset + info.offset + size as u64;
        if end > length {
            return Err(ModelError::invalid(format!(
                "{} is cut off: the tensor {name} ends at byte {end}, the file at {length}; fetch it again",
                path.display()
            )));
        }
    }
    Ok((content, reader))
}

/// What the metadata say, once all weights are known to be there.
pub(super) fn inspect(path: &Path) -> Result<ModelConfig, ModelError> {
    let (content, _) = read_content(path)?;
    let config = ModelConfig::from_gguf(&content)?;
    let names: BTreeSet<String> =
        content.tensor_infos.keys().filter_map(|name| Some(config.family.of_gguf_tensor(name)?.1)).collect();
    check_complete(&config, path, |name| names.contains(name))?;
    Ok(config)
}

/// What the metadata and the divisors of its rotary embedding say.
pub(super) fn read_config(path: &Path) -> Result<ModelConfig, ModelError> {
    let (content, mut reader) = read_content(path)?;
    stretched(&content, &mut reader)
}

fn stretched(content: &gguf_file::Content, reader: &mut BufReader<File>) -> Result<ModelConfig, ModelError> {
    let mut config = ModelConfig::from_gguf(content)?;
    if content.tensor_infos.contains_key(ROPE_DIVISORS) {
        let divisors = content.tensor(reader, ROPE_DIVISORS, &Device::Cpu)?.dequantize(&Device::Cpu)?;
        config.stretch(&divisors.flatten_all()?.to_vec1::<f32>()?)?;
    }
    Ok(config)
}

/// Hands over every weight, dequantised, under its Hugging Face name. Returns the shape.
pub(super) fn read_weights(
    path: &Path,
    keep: &mut impl FnMut(String, Tensor) -> Result<(), ModelError>,
) -> Result<ModelConfig, ModelError> {
    let (content, mut reader) = read_content(path)?;
    let config = stretched(&content, &mut reader)?;
    let family = config.family;
    for name in content.tensor_infos.keys().filter(|name| *name != ROPE_DIVISORS) {
        let tensor = content.tensor(&mut reader, name, &Device::Cpu)?.dequantize(&Device::Cpu)?;
        let Some((part, hf_name)) = family.of_gguf_tensor(name) else {
            return Err(ModelError::Unsupported(format!("the GGUF file has a tensor we do not know: {name}")));
        };
        keep(hf_name, (family.from_gguf)(&config, part, tensor)?)?;
    }
    Ok(config)
}
