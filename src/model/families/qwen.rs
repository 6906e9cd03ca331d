//! Qwen 2, 2.5 and 3 (arXiv 2407.10671, 2505.09388): Llama with biases on queries, keys and values; or, from 3 on, with these
//! queries and keys normalised instead.

use super::{
    Family, Name, NormKind, Part, as_it_is, llama, name, no_keys, nothing_to_add, set_windows, settings::Settings,
};
use crate::model::{ModelConfig, ModelError, config::Biases};

/// Qwen 2 and 2.5.
pub(super) static QWEN2: Family = Family {
    architecture: "Qwen2ForCausalLM",
    model_type: "qwen2",
    gguf: Some("qwen2"),
    norm: NormKind::Rms,
    stores_transposed: false,
    is_fused_by_head: false,
    is_tied_by_default: false,
    blocks: "model.layers",
    names: &llama::NAMES,
    read: |config, settings| {
        config.biases = Biases { qkv: true, ..Biases::default() };
        read_windows(config, settings)
    },
    add_json: nothing_to_add,
    from_gguf: as_it_is,
    to_gguf: as_it_is,
    add_keys: no_keys,
};

/// Qwen 3.
pub(super) static QWEN3: Family = Family {
    architecture: "Qwen3ForCausalLM",
    model_type: "qwen3",
    gguf: Some("qwen3"),
    norm: NormKind::Rms,
    stores_transposed: false,
    is_fused_by_head: false,
    is_tied_by_default: false,
    blocks: "model.layers",
    names: &QWEN3_NAMES,
    read: |config, settings| {
        let attention = settings.flag("attention_bias")?.unwrap_or(false);
        config.biases = Biases { qkv: attention, output: attention, mlp: false };
        read_windows(config, settings)
    },
    add_json: nothing_to_add,
    from_gguf: as_it_is,
    to_gguf: as_it_is,
    add_keys: no_keys,
};

const QWEN3_NAMES: [Name; 14] = [
    name(Part::Embedding, "model.embed_tokens", "token_embd"),
    name(Part::AttentionNorm, "input_layernorm", "attn_norm"),
    name(Part::Q, "self_attn.q_proj", "attn_q"),
    name(Part::K, "self_attn.k_proj", "attn_k"),
    name(Part::V, "self_attn.v_proj", "attn_v"),
    name(Part::QNorm, "self_attn.q_norm", "attn_q_norm"),
    name(Part::KNorm, "self_attn.k_norm", "attn_k_norm"),
    name(Part::O, "self_attn.o_proj", "attn_output"),
    name(Part::MlpNorm, "post_attention_layernorm", "ffn_norm"),
    name(Part::Gate, "mlp.gate_proj", "ffn_gate"),
    name(Part::Up, "mlp.up_proj", "ffn_up"),
    name(Part::Down, "mlp.down_proj", "ffn_down"),
    name(Part::FinalNorm, "model.norm", "output_norm"),
    name(Part::Head, "lm_head", "output"),
];

/// Windows are switched on by a flag, for the layers from one on.
fn read_windows(config: &mut ModelConfig, settings: &Settings) -> Result<(), ModelError> {
    if settings.flag("use_sliding_window")? != Some(true) {
        return Ok(());
    }
    let first = settings.optional_whole("max_window_layers")?.unwrap_or(0);
    set_windows(config, settings, |layer| layer >= first)
}
