//! GPT-2: learned positions, layer normalisation, biases everywhere; matrices stored (in, out).

use super::{Family, Name, NormKind, Part, as_it_is, name, no_keys};
use crate::model::{
    ModelError,
    config::Biases,
    rope::{Rope, RopeScaling},
};

/// See the module.
pub(super) static GPT2: Family = Family {
    architecture: "GPT2LMHeadModel",
    model_type: "gpt2",
    gguf: Some("gpt2"),
    norm: NormKind::Layer,
    stores_transposed: true,
    is_fused_by_head: false,
    is_tied_by_default: true,
    blocks: "transformer.h",
    names: &NAMES,
    read: |config, settings| {
        for key in ["scale_attn_by_inverse_layer_idx", "add_cross_attention"] {
            settings.refuse(key)?;
        }
        if settings.flag("scale_attn_weights")? == Some(false) {
            return Err(ModelError::Unsupported("config.json: scores that are not scaled are not supported".into()));
        }
        config.biases = Biases { qkv: true, output: true, mlp: true };
        config.ropes = vec![Rope { theta: 1.0, size: 0, scaling: RopeScaling::Default }];
        Ok(())
    },
    add_json: |_, json| {
        json.remove("hidden_act");
        json.insert("n_inner".into(), json["intermediate_size"].clone());
        json.insert("activation_function".into(), "gelu_new".into());
        Ok(())
    },
    from_gguf: as_it_is,
    to_gguf: as_it_is,
    add_keys: no_keys,
};

const NAMES: [Name; 10] = [
    name(Part::Embedding, "transformer.wte", "token_embd"),
    name(Part::Positions, "transformer.wpe", "position_embd"),
    name(Part::AttentionNorm, "ln_1", "attn_norm"),
    name(Part::Qkv, "attn.c_attn", "attn_qkv"),
    name(Part::O, "attn.c_proj", "attn_output"),
    name(Part::MlpNorm, "ln_2", "ffn_norm"),
    name(Part::Up, "mlp.c_fc", "ffn_up"),
    name(Part::Down, "mlp.c_proj", "ffn_down"),
    name(Part::FinalNorm, "transformer.ln_f", "output_norm"),
    name(Part::Head, "lm_head", "output"),
];
