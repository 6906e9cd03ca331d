//! Mistral (arXiv 2310.06825): Llama whose queries may see a window only.

use super::{Family, NormKind, as_it_is, llama, no_keys, nothing_to_add, set_windows};

/// See the module.
pub(super) static MISTRAL: Family = Family {
    architecture: "MistralForCausalLM",
    model_type: "mistral",
    gguf: None,
    norm: NormKind::Rms,
    stores_transposed: false,
    is_fused_by_head: false,
    is_tied_by_default: false,
    blocks: "model.layers",
    names: &llama::NAMES,
    read: |config, settings| set_windows(config, settings, |_| true),
    add_json: nothing_to_add,
    from_gguf: as_it_is,
    to_gguf: llama::to_gguf,
    add_keys: no_keys,
};
