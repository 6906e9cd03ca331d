//! GPT-NeoX and Pythia (arXiv 2204.06745, 2304.01373): both halves of a block on the same input, RoPE on a part of each head, layer
//! normalisation, biases; a head's query, key and value side by side in one layer.

use candle_core::Tensor;

use super::{Family, Name, NormKind, Part, keys::not_in_gguf, name};
use crate::model::{ModelConfig, config::Biases};

/// See the module.
pub(super) static GPT_NEOX: Family = Family {
    architecture: "GPTNeoXForCausalLM",
    model_type: "gpt_neox",
    gguf: Some("gptneox"),
    norm: NormKind::Layer,
    stores_transposed: false,
    is_fused_by_head: true,
    is_tied_by_default: false,
    blocks: "gpt_neox.layers",
    names: &NAMES,
    read: |config, settings| {
        let attention = settings.flag("attention_bias")?.unwrap_or(true);
        config.biases = Biases { qkv: attention, output: attention, mlp: true };
        config.is_parallel = settings.flag("use_parallel_residual")?.unwrap_or(true);
        // What older files leave out.
        if settings.get("rope_parameters").is_none() && settings.get("rotary_pct").is_none() {
            config.ropes[0].size = config.heads.size / 4;
        }
        Ok(())
    },
    add_json: |metadata, json| {
        let size = metadata.whole("rope.dimension_count")? as f64;
        let head = metadata.whole("embedding_length")? / metadata.whole("attention.head_count")?.max(1);
        json.insert("rotary_pct".into(), (size / head.max(1) as f64).into());
        json.insert("use_parallel_residual".into(), metadata.flag("use_parallel_residual").unwrap_or(true).into());
        json.insert("hidden_act".into(), "gelu".into());
        Ok(())
    },
    from_gguf,
    to_gguf,
    add_keys: |config, keys| {
        if config.tied {
            return Err(not_in_gguf(config, "a head that is the embedding"));
        }
        keys.flag("use_parallel_residual", config.is_parallel);
        Ok(())
    },
};

const NAMES: [Name; 9] = [
    name(Part::Embedding, "gpt_neox.embed_in", "token_embd"),
    name(Part::AttentionNorm, "input_layernorm", "attn_norm"),
    name(Part::Qkv, "attention.query_key_value", "attn_qkv"),
    name(Part::O, "attention.dense", "attn_output"),
    name(Part::MlpNorm, "post_attention_layernorm", "ffn_norm"),
    name(Part::Up, "mlp.dense_h_to_4h", "ffn_up"),
    name(Part::Down, "mlp.dense_4h_to_h", "ffn_down"),
    name(Part::FinalNorm, "gpt_neox.final_layer_norm", "output_norm"),
    name(Part::Head, "embed_out", "output"),
];

/// llama.cpp stores all queries, then all keys, then all values.
fn from_gguf(config: &ModelConfig, part: Part, tensor: Tensor) -> candle_core::Result<Tensor> {
    if part != Part::Qkv {
        return Ok(tensor);
    }
    let shape = tensor.shape().clone();
    let heads = config.heads;
    tensor.reshape((3, heads.query, heads.size, ()))?.transpose(0, 1)?.contiguous()?.reshape(shape)
}

/// Takes each head's query, key and value apart.
fn to_gguf(config: &ModelConfig, part: Part, tensor: Tensor) -> candle_core::Result<Tensor> {
    if part != Part::Qkv {
        return Ok(tensor);
    }
    let shape = tensor.shape().clone();
    let heads = config.heads;
    tensor.reshape((heads.query, 3, heads.size, ()))?.transpose(0, 1)?.contiguous()?.reshape(shape)
}
