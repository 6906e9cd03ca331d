//! Weights out of a GGUF file: names and layout turned into Hugging Face's, numbers dequantised.

use std::{
    io::{BufReader, Seek, SeekFrom},
    path::Path,
};

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, gguf_file},
};
use fs_err::File;

use super::{LlamaConfig, ModelError, config::RopeScaling};

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

/// Hands over every weight, dequantised, under its Hugging Face name. Returns the shape.
pub(super) fn read_weights(
    path: &Path,
    keep: &mut impl FnMut(String, Tensor) -> Result<(), ModelError>,
) -> Result<LlamaConfig, ModelError> {
    let (content, mut reader) = read_content(path)?;
    let (_, mut config) = LlamaConfig::from_gguf(&content)?;
    for name in content.tensor_infos.keys() {
        let tensor = content.tensor(&mut reader, name, &Device::Cpu)?.dequantize(&Device::Cpu)?;
        if name == "rope_freqs.weight" {
            config.rope.scaling = RopeScaling::Divisors(tensor.flatten_all()?.to_vec1()?);
            continue;
        }
        let Some(hf_name) = hf_name(name) else {
            return Err(ModelError::Unsupported(format!("the GGUF file has a tensor we do not know: {name}")));
        };
        let tensor = match name.rsplit('.').nth(1) {
            Some("attn_q") => unpermute(&tensor, config.heads.query)?,
            Some("attn_k") => unpermute(&tensor, config.heads.key_value)?,
            _ => tensor,
        };
        keep(hf_name, tensor)?;
    }
    Ok(config)
}

fn hf_name(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".into()),
        "output_norm.weight" => return Some("model.norm.weight".into()),
        "output.weight" => return Some("lm_head.weight".into()),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let part = match part {
        "attn_norm.weight" => "input_layernorm",
        "ffn_norm.weight" => "post_attention_layernorm",
        "attn_q.weight" => "self_attn.q_proj",
        "attn_k.weight" => "self_attn.k_proj",
        "attn_v.weight" => "self_attn.v_proj",
        "attn_output.weight" => "self_attn.o_proj",
        "ffn_gate.weight" => "mlp.gate_proj",
        "ffn_up.weight" => "mlp.up_proj",
        "ffn_down.weight" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}.weight"))
}

/// llama.cpp stores q and k with each head's two halves interleaved (for its own RoPE); this puts the halves back.
fn unpermute(weight: &Tensor, heads: usize) -> Result<Tensor, ModelError> {
    let (rows, cols) = weight.dims2()?;
    let half = rows / heads / 2;
    Ok(weight.reshape((heads, half, 2, cols))?.transpose(1, 2)?.contiguous()?.reshape((rows, cols))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_come_back_in_order() {
        // One head of size 4: llama.cpp keeps rows 0, 2, 1, 3.
        let stored = Tensor::from_vec(vec![0f32, 2., 1., 3.], (4, 1), &Device::Cpu).expect("made");
        let back = unpermute(&stored, 1).and_then(|t| Ok(t.flatten_all()?.to_vec1::<f32>()?)).expect("computed");
        assert_eq!(back, [0., 1., 2., 3.]);
    }
}
