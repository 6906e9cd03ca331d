//! Phi-3 and 3.5 mini, Phi-4 (arXiv 2404.14219): Llama with its layers fused, queries that may see a window only, and RoPE on a part of
//! each head.

use super::{Family, Name, NormKind, Part, as_it_is, name, set_windows};

/// See the module.
pub(super) static PHI3: Family = Family {
    architecture: "Phi3ForCausalLM",
    model_type: "phi3",
    gguf: Some("phi3"),
    norm: NormKind::Rms,
    stores_transposed: false,
    is_fused_by_head: false,
    is_tied_by_default: false,
    blocks: "model.layers",
    names: &NAMES,
    read: |config, settings| set_windows(config, settings, |_| true),
    add_json: |metadata, json| {
        let window = metadata.optional_whole("attention.sliding_window").filter(|window| *window > 0);
        json.insert("sliding_window".into(), window.into());
        let size = metadata.optional_whole("rope.dimension_count");
        let head = metadata.whole("embedding_length")? / metadata.whole("attention.head_count")?.max(1);
        json.insert("partial_rotary_factor".into(), size.map_or(1.0, |size| size as f64 / head.max(1) as f64).into());
        Ok(())
    },
    from_gguf: as_it_is,
    to_gguf: as_it_is,
    add_keys: |config, keys| {
        let length = config.told("original_max_position_embeddings").unwrap_or(config.max_position_embeddings);
        keys.whole("rope.scaling.original_context_length", length);
        // 0 tells Phi-4 from those with a window.
        keys.whole("attention.sliding_window", config.layers[0].window.unwrap_or(0));
        Ok(())
    },
};

const NAMES: [Name; 9] = [
    name(Part::Embedding, "model.embed_tokens", "token_embd"),
    name(Part::AttentionNorm, "input_layernorm", "attn_norm"),
    name(Part::Qkv, "self_attn.qkv_proj", "attn_qkv"),
    name(Part::O, "self_attn.o_proj", "attn_output"),
    name(Part::MlpNorm, "post_attention_layernorm", "ffn_norm"),
    name(Part::GateUp, "mlp.gate_up_proj", "ffn_up"),
    name(Part::Down, "mlp.down_proj", "ffn_down"),
    name(Part::FinalNorm, "model.norm", "output_norm"),
    name(Part::Head, "lm_head", "output"),
];
