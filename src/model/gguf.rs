//! Weights out of a GGUF file: names and layout turned into Hugging Face's, numbers dequantised.

use std::{
    collections::BTreeSet,
    io::{BufReader, Seek, SeekFrom},
    path::Path,
    sync::Arc,
};

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QTensor, gguf_file},
};
use fs_err::File;

use super::{ModelConfig, ModelError, families::Part, weights::check_complete};

/// The tensor that says how frequencies are stretched: Llama 3's, and no weight.
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

/// A weight on its way out of a file.
pub(super) struct Read {
    /// Its Hugging Face name.
    pub(super) name: String,
    pub(super) part: Part,
    /// As the file has it.
    pub(super) tensor: QTensor,
    pub(super) config: Arc<ModelConfig>,
}

impl Read {
    /// Its numbers, as Hugging Face's files would have them.
    pub(super) fn dequantised(&self) -> candle_core::Result<Tensor> {
        (self.config.family.from_gguf)(&self.config, self.part, self.tensor.dequantize(&Device::Cpu)?)
    }

    /// Whether it is a matrix whose numbers take less room in the file than in memory.
    pub(super) fn is_quantised(&self) -> bool {
        self.tensor.rank() == 2 && !matches!(self.tensor.dtype(), GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16)
    }
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

/// Hands over every weight. Returns the shape.
pub(super) fn read_weights(
    path: &Path,
    mut keep: impl FnMut(Read) -> Result<(), ModelError>,
) -> Result<ModelConfig, ModelError> {
    let (content, mut reader) = read_content(path)?;
    let config = Arc::new(stretched(&content, &mut reader)?);
    for file_name in content.tensor_infos.keys().filter(|name| *name != ROPE_DIVISORS) {
        let Some((part, name)) = config.family.of_gguf_tensor(file_name) else {
            return Err(ModelError::Unsupported(format!("the GGUF file has a tensor we do not know: {file_name}")));
        };
        let tensor = content.tensor(&mut reader, file_name, &Device::Cpu)?;
        keep(Read { name, part, tensor, config: config.clone() })?;
    }
    Ok(Arc::unwrap_or_clone(config))
}
