//! A GGUF file: the metadata and tensors that llama.cpp's converter would make.

use std::{io::Cursor, path::Path};

use candle_core::{
    Device, Tensor,
    quantized::gguf_file::{Content, Value},
};

use super::{
    Count, OnWeight,
    agreement::{lost_window, what_differs},
    header::{aligned, header},
    number::Number,
    placed::{Place, TensorFile},
};
use crate::{
    domain::{ExportDtype, ModelLocation, WeightsFormat},
    model::{
        ModelConfig, ModelError, Part,
        families::keys::{Keys, not_in_gguf},
        gguf::{ROPE_DIVISORS, read_content},
        weights::{each_weight, read_config},
    },
};

/// What a GGUF file says besides the model itself.
#[derive(Debug, Clone)]
pub struct GgufText {
    /// The model's name.
    pub name: String,
    /// The keys of its tokenizer (`tokenizer.*`).
    pub tokenizer: Vec<(String, Value)>,
}

/// Writes the model as the GGUF file `path`. Returns the window, in tokens, that llama.cpp will not keep, if the model has one.
///
/// # Errors
/// If the file could not say everything that the model computes.
pub fn export_gguf(
    location: &ModelLocation,
    dtype: ExportDtype,
    text: GgufText,
    path: &Path,
    on_weight: &mut OnWeight<'_>,
) -> Result<Option<usize>, ModelError> {
    let config = read_config(location)?;
    let mut metadata = general(&config, dtype, text.name);
    if location.format == WeightsFormat::Gguf {
        keep_general(&mut metadata, &location.weights)?;
    }
    metadata.extend(Keys::of(&config)?);
    metadata.extend(text.tokenizer);

    let (tensors, n_bytes) = places(&config, dtype);
    let header = header(&metadata, &tensors)?;
    let read = read_again(&header, &config)?;
    if let Some(what) = what_differs(&config, &read) {
        return Err(not_in_gguf(&config, what));
    }
    let start = header.len() as u64;
    let places = tensors.into_iter().map(|(name, place)| (name, Place { at: start + place.at, ..place })).collect();
    let mut file = TensorFile::create(path, &header, start + n_bytes, places)?;
    if let Some(divisors) = config.ropes[0].divisors() {
        file.put(ROPE_DIVISORS, &Tensor::new(divisors, &Device::Cpu)?)?;
    }
    let mut count = Count { n_done: 0, n_total: config.tensors().len(), on_weight };
    each_weight(location, &mut |name, tensor| {
        let known = config.family.part_of(&name).zip(config.family.gguf_tensor(&name));
        let (part, gguf_name) = known.filter(|(_, gguf_name)| file.expects(gguf_name)).ok_or_else(|| {
            ModelError::invalid(format!("the model has a weight its configuration does not know: {name}"))
        })?;
        file.put(&gguf_name, &(config.family.to_gguf)(&config, part, tensor)?)?;
        count.one_more()
    })?;
    file.finish()?;
    Ok(lost_window(&config, &read))
}

/// The keys that are the same for all architectures.
fn general(config: &ModelConfig, dtype: ExportDtype, name: String) -> Vec<(String, Value)> {
    let text = |text: &str| Value::String(text.to_owned());
    let architecture = config.family.in_gguf().gguf.unwrap_or_default();
    // llama.cpp's numbers for files whose matrices are mostly of a type.
    let file_type = match dtype {
        ExportDtype::Float32 => 0,
        ExportDtype::Float16 => 1,
        ExportDtype::Q8_0 => 7,
        ExportDtype::Bfloat16 => 32,
    };
    [
        ("general.architecture", text(architecture)),
        ("general.type", text("model")),
        ("general.name", Value::String(name)),
        ("general.size_label", Value::String(size_label(config.n_parameters()))),
        ("general.file_type", Value::U32(file_type)),
        ("general.quantization_version", Value::U32(2)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Keeps what a GGUF file says of the model besides its numbers: its name, its licence, where it comes from.
fn keep_general(metadata: &mut Vec<(String, Value)>, source: &Path) -> Result<(), ModelError> {
    let (content, _) = read_content(source)?;
    let is_kept = |key: &str| {
        key.starts_with("general.")
            && key != "general.alignment"
            && (key == "general.name" || metadata.iter().all(|(ours, _)| ours != key))
    };
    let mut kept: Vec<_> = content.metadata.into_iter().filter(|(key, _)| is_kept(key)).collect();
    kept.sort_by(|a, b| a.0.cmp(&b.0));
    metadata.retain(|(key, _)| kept.iter().all(|(other, _)| other != key));
    metadata.extend(kept);
    Ok(())
}

/// A number of weights in two digits or more, as llama.cpp's converter writes it.
fn size_label(n_weights: u64) -> String {
    let n = n_weights as f64;
    let (scale, unit) =
        [(1e12, "T"), (1e9, "B"), (1e6, "M")].into_iter().find(|(scale, _)| n > *scale).unwrap_or((1e3, "K"));
    let scaled = n / scale;
    let decimals = match scaled.round() as u64 {
        0 => 2,
        1..10 => 1,
        _ => 0,
    };
    format!("{scaled:.decimals$}{unit}")
}

/// Every tensor's place, counted from the first, and the size of all of them.
pub(super) fn places(config: &ModelConfig, dtype: ExportDtype) -> (Vec<(String, Place)>, u64) {
    let divisors =
        config.ropes[0].divisors().map(|divisors| (ROPE_DIVISORS.to_owned(), Number::F32, vec![divisors.len()]));
    let mut weights = config.tensors();
    // Layer by layer, as they are read.
    weights.sort_by_key(|(name, _)| config.family.layer_of(name).map_or(0, |layer| layer + 1));
    let weights = weights.into_iter().map(|(name, shape)| {
        // Norms, biases and positions keep all their bits: llama.cpp adds and multiplies them as they are.
        let is_small = shape.len() == 1 || config.family.part_of(&name) == Some(Part::Positions);
        let number = if is_small { Number::F32 } else { Number::of_rows(dtype, shape[shape.len() - 1]) };
        (config.family.gguf_tensor(&name).expect("a weight of the family"), number, shape)
    });
    let mut at = 0;
    let place = |(name, number, shape): (String, Number, Vec<usize>)| {
        let place = Place { at, number, shape };
        at = aligned(at + number.n_bytes(place.shape.iter().product()) as u64);
        (name, place)
    };
    let places = divisors.into_iter().chain(weights).map(place).collect();
    (places, at)
}

/// The model that a header describes.
fn read_again(header: &[u8], config: &ModelConfig) -> Result<ModelConfig, ModelError> {
    let content = Content::read(&mut Cursor::new(header))?;
    let mut read = ModelConfig::from_gguf(&content)?;
    if let Some(divisors) = config.ropes[0].divisors() {
        read.stretch(&divisors)?;
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_in_two_digits() {
        let labels = [(134_515_008, "135M"), (7_700, "7.7K"), (13_234, "13K"), (7_241_732_096, "7.2B"), (400, "0.40K")];
        for (n, label) in labels {
            assert_eq!(size_label(n), label);
        }
    }
}
