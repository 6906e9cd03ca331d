//! Llama 1 to 3, SmolLM and all that copy them (arXiv 2302.13971, 2407.21783). Mistral's models come as Llama's in GGUF.

use candle_core::Tensor;

use super::{Family, Name, NormKind, Part, name, no_keys};
use crate::model::{ModelConfig, ModelError, config::Biases};

/// See the module.
pub(super) static LLAMA: Family = Family {
    architecture: "LlamaForCausalLM",
    model_type: "llama",
    gguf: Some("llama"),
    norm: NormKind::Rms,
    stores_transposed: false,
    is_fused_by_head: false,
    is_tied_by_default: false,
    blocks: "model.layers",
    names: &NAMES,
    read: |config, settings| {
        let attention = settings.flag("attention_bias")?.unwrap_or(false);
        config.biases = Biases { qkv: attention, output: attention, mlp: settings.flag("mlp_bias")?.unwrap_or(false) };
        Ok::<_, ModelError>(())
    },
    add_json: |metadata, json| {
        json.insert("attention_bias".into(), metadata.has_tensor("blk.0.attn_q.bias").into());
        json.insert("mlp_bias".into(), metadata.has_tensor("blk.0.ffn_down.bias").into());
        Ok(())
    },
    from_gguf,
    to_gguf,
    add_keys: no_keys,
};

/// Also those of families that only add to them.
pub(super) const NAMES: [Name; 12] = [
    name(Part::Embedding, "model.embed_tokens", "token_embd"),
    name(Part::AttentionNorm, "input_layernorm", "attn_norm"),
    name(Part::Q, "self_attn.q_proj", "attn_q"),
    name(Part::K, "self_attn.k_proj", "attn_k"),
    name(Part::V, "self_attn.v_proj", "attn_v"),
    name(Part::O, "self_attn.o_proj", "attn_output"),
    name(Part::MlpNorm, "post_attention_layernorm", "ffn_norm"),
    name(Part::Gate, "mlp.gate_proj", "ffn_gate"),
    name(Part::Up, "mlp.up_proj", "ffn_up"),
    name(Part::Down, "mlp.down_proj", "ffn_down"),
    name(Part::FinalNorm, "model.norm", "output_norm"),
    name(Part::Head, "lm_head", "output"),
];

/// llama.cpp stores q and k with each head's two halves interleaved (for its own RoPE); this puts the halves back.
fn from_gguf(config: &ModelConfig, part: Part, tensor: Tensor) -> candle_core::Result<Tensor> {
    let heads = match part {
        Part::Q => config.heads.query,
        Part::K => config.heads.key_value,
        _ => return Ok(tensor),
    };
    let half = tensor.dim(0)? / heads / 2;
    let shape = tensor.shape().clone();
    tensor.reshape((heads, half, 2, ()))?.transpose(1, 2)?.contiguous()?.reshape(shape)
}

/// Interleaves the halves.
pub(super) fn to_gguf(config: &ModelConfig, part: Part, tensor: Tensor) -> candle_core::Result<Tensor> {
    let heads = match part {
        Part::Q => config.heads.query,
        Part::K => config.heads.key_value,
        _ => return Ok(tensor),
    };
    let half = tensor.dim(0)? / heads / 2;
    let shape = tensor.shape().clone();
    tensor.reshape((heads, 2, half, ()))?.transpose(1, 2)?.contiguous()?.reshape(shape)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn halves_come_back_in_order_and_go_again() {
        let json = br#"{"architectures":["LlamaForCausalLM"],"hidden_size":4,"intermediate_size":4,"num_hidden_layers":1,
            "num_attention_heads":1,"vocab_size":4,"rms_norm_eps":1e-5,"max_position_embeddings":8,"hidden_act":"silu"}"#;
        let config = ModelConfig::from_json(json).expect("read");
        // One head of size 4: llama.cpp keeps rows 0, 2, 1, 3.
        for shape in [vec![4, 1], vec![4]] {
            let stored = Tensor::from_vec(vec![0f32, 2., 1., 3.], shape.clone(), &Device::Cpu).expect("made");
            let back = from_gguf(&config, Part::Q, stored.clone()).expect("computed");
            let again = to_gguf(&config, Part::Q, back.clone()).expect("computed");
            assert_eq!(numbers(&again), numbers(&stored));
            assert_eq!(back.dims(), shape);
            assert_eq!(numbers(&back), [0., 1., 2., 3.]);
        }
    }

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().and_then(|t| t.to_vec1()).expect("read")
    }
}
