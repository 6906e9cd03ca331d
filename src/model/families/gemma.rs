//! Gemma 2 and 3, text (arXiv 2408.00118, 2503.19786): scaled embeddings, norms before and after each half of a block, weights of norms
//! counted from 1, layers that see a window only among those that see all; with caps on scores and logits (2), or with queries and
//! keys normalised and a RoPE of their own for layers with a window (3).

use candle_core::Tensor;
use serde_json::{Map, Value};

use super::{
    Family, Name, NormKind, Part,
    keys::{Keys, not_in_gguf},
    metadata::Metadata,
    name, set_windows,
    settings::Settings,
};
use crate::model::{
    ModelConfig, ModelError,
    config::Biases,
    rope::{Rope, RopeScaling},
};

/// Gemma 2.
pub(super) static GEMMA2: Family = Family {
    architecture: "Gemma2ForCausalLM",
    model_type: "gemma2",
    gguf: Some("gemma2"),
    norm: NormKind::RmsPlusOne,
    stores_transposed: false,
    is_fused_by_head: false,
    is_tied_by_default: true,
    blocks: "model.layers",
    names: &GEMMA2_NAMES,
    read: |config, settings| {
        read_common(config, settings)?;
        config.attention_softcap = settings.optional_number("attn_logit_softcapping")?;
        config.logit_softcap = settings.optional_number("final_logit_softcapping")?;
        set_windows(config, settings, |layer| layer % 2 == 0)
    },
    add_json: |metadata, json| {
        add_common(metadata, json, 46)?;
        for (key, gguf) in [
            ("attn_logit_softcapping", "attn_logit_softcapping"),
            ("final_logit_softcapping", "final_logit_softcapping"),
        ] {
            json.insert(key.into(), metadata.optional_number(gguf).into());
        }
        Ok(())
    },
    from_gguf,
    to_gguf,
    add_keys: |config, keys| {
        for (key, cap) in
            [("attn_logit_softcapping", config.attention_softcap), ("final_logit_softcapping", config.logit_softcap)]
        {
            cap.into_iter().for_each(|cap| keys.number(key, cap));
        }
        add_common_keys(config, keys)
    },
};

/// Gemma 3, and the text part of its larger models on its own.
pub(super) static GEMMA3: Family = Family {
    architecture: "Gemma3ForCausalLM",
    model_type: "gemma3_text",
    gguf: Some("gemma3"),
    norm: NormKind::RmsPlusOne,
    stores_transposed: false,
    is_fused_by_head: false,
    is_tied_by_default: true,
    blocks: "model.layers",
    names: &GEMMA3_NAMES,
    read: read_gemma3,
    add_json: |metadata, json| {
        add_common(metadata, json, 62)?;
        let local = metadata.optional_number("rope.freq_base_swa").unwrap_or(10_000.0);
        json.insert("rope_local_base_freq".into(), local.into());
        Ok(())
    },
    from_gguf,
    to_gguf,
    add_keys: |config, keys| {
        keys.number("rope.freq_base_swa", config.ropes[1].theta);
        add_common_keys(config, keys)
    },
};

const GEMMA2_NAMES: [Name; 14] = [
    name(Part::Embedding, "model.embed_tokens", "token_embd"),
    name(Part::AttentionNorm, "input_layernorm", "attn_norm"),
    name(Part::Q, "self_attn.q_proj", "attn_q"),
    name(Part::K, "self_attn.k_proj", "attn_k"),
    name(Part::V, "self_attn.v_proj", "attn_v"),
    name(Part::O, "self_attn.o_proj", "attn_output"),
    name(Part::PostAttentionNorm, "post_attention_layernorm", "post_attention_norm"),
    name(Part::MlpNorm, "pre_feedforward_layernorm", "ffn_norm"),
    name(Part::Gate, "mlp.gate_proj", "ffn_gate"),
    name(Part::Up, "mlp.up_proj", "ffn_up"),
    name(Part::Down, "mlp.down_proj", "ffn_down"),
    name(Part::PostMlpNorm, "post_feedforward_layernorm", "post_ffw_norm"),
    name(Part::FinalNorm, "model.norm", "output_norm"),
    name(Part::Head, "lm_head", "output"),
];

const GEMMA3_NAMES: [Name; 16] = [
    name(Part::Embedding, "model.embed_tokens", "token_embd"),
    name(Part::AttentionNorm, "input_layernorm", "attn_norm"),
    name(Part::Q, "self_attn.q_proj", "attn_q"),
    name(Part::K, "self_attn.k_proj", "attn_k"),
    name(Part::V, "self_attn.v_proj", "attn_v"),
    name(Part::QNorm, "self_attn.q_norm", "attn_q_norm"),
    name(Part::KNorm, "self_attn.k_norm", "attn_k_norm"),
    name(Part::O, "self_attn.o_proj", "attn_output"),
    name(Part::PostAttentionNorm, "post_attention_layernorm", "post_attention_norm"),
    name(Part::MlpNorm, "pre_feedforward_layernorm", "ffn_norm"),
    name(Part::Gate, "mlp.gate_proj", "ffn_gate"),
    name(Part::Up, "mlp.up_proj", "ffn_up"),
    name(Part::Down, "mlp.down_proj", "ffn_down"),
    name(Part::PostMlpNorm, "post_feedforward_layernorm", "post_ffw_norm"),
    name(Part::FinalNorm, "model.norm", "output_norm"),
    name(Part::Head, "lm_head", "output"),
];

fn read_common(config: &mut ModelConfig, settings: &Settings) -> Result<(), ModelError> {
    settings.refuse("use_bidirectional_attention")?;
    let attention = settings.flag("attention_bias")?.unwrap_or(false);
    config.biases = Biases { qkv: attention, output: attention, mlp: false };
    config.attention_scale = settings.number(&["query_pre_attn_scalar"])?.sqrt().recip();
    config.embedding_scale = (config.hidden_size as f64).sqrt();
    Ok(())
}

fn read_gemma3(config: &mut ModelConfig, settings: &Settings) -> Result<(), ModelError> {
    read_common(config, settings)?;
    config.attention_softcap = settings.optional_number("attn_logit_softcapping")?;
    config.logit_softcap = settings.optional_number("final_logit_softcapping")?;
    let pattern =
        settings.optional_whole("sliding_window_pattern")?.or(settings.optional_whole("_sliding_window_pattern")?);
    let pattern = pattern.unwrap_or(6).max(1);
    set_windows(config, settings, |layer| (layer + 1) % pattern != 0)?;
    let size = config.heads.size;
    let global = match settings.rope_of_layers("full_attention", size)? {
        Some(rope) => rope,
        None => settings.rope(size)?,
    };
    let local = match settings.rope_of_layers("sliding_attention", size)? {
        Some(rope) => rope,
        None => {
            let theta = settings.optional_number("rope_local_base_freq")?.unwrap_or(10_000.0);
            Rope { theta, size, scaling: RopeScaling::Default }
        }
    };
    config.ropes = vec![global, local];
    for layer in &mut config.layers {
        layer.rope = usize::from(layer.window.is_some());
    }
    Ok(())
}

/// llama.cpp knows two things by the size of the model: that the 27-billion models, which have `layers_27b`, divide scores by the root
/// of a head's share of the hidden states, and all others by that of a head's size.
fn add_common(metadata: &Metadata<'_>, json: &mut Map<String, Value>, layers_27b: usize) -> Result<(), ModelError> {
    let whole = |key| metadata.whole(key);
    let per_head = whole("embedding_length")? / whole("attention.head_count")?.max(1);
    let is_27b = whole("block_count")? == layers_27b;
    let scalar = if is_27b { per_head } else { metadata.optional_whole("attention.key_length").unwrap_or(per_head) };
    json.insert("query_pre_attn_scalar".into(), scalar.into());
    json.insert("sliding_window".into(), whole("attention.sliding_window")?.into());
    json.insert("hidden_activation".into(), "gelu_pytorch_tanh".into());
    Ok(())
}

fn add_common_keys(config: &ModelConfig, keys: &mut Keys) -> Result<(), ModelError> {
    if !config.tied {
        return Err(not_in_gguf(config, "a head that is not the embedding"));
    }
    let window = config.layers.iter().find_map(|layer| layer.window);
    keys.whole("attention.sliding_window", window.ok_or_else(|| not_in_gguf(config, "layers without a window"))?);
    Ok(())
}

/// GGUF holds 1 + the weight of a norm.
fn from_gguf(_: &ModelConfig, part: Part, tensor: Tensor) -> candle_core::Result<Tensor> {
    if is_norm(part) { tensor.affine(1.0, -1.0) } else { Ok(tensor) }
}

fn to_gguf(_: &ModelConfig, part: Part, tensor: Tensor) -> candle_core::Result<Tensor> {
    if is_norm(part) { tensor.affine(1.0, 1.0) } else { Ok(tensor) }
}

fn is_norm(part: Part) -> bool {
    use Part::{AttentionNorm, FinalNorm, KNorm, MlpNorm, PostAttentionNorm, PostMlpNorm, QNorm};
    matches!(part, FinalNorm | AttentionNorm | QNorm | KNorm | PostAttentionNorm | MlpNorm | PostMlpNorm)
}
