//! Whether a GGUF file says of a model what its `config.json` says.

use crate::model::{ModelConfig, rope::RopeScaling};

/// What of a model makes a difference and was lost, if anything: `read` is what the file's own metadata say.
///
/// Windows are another matter: GGUF has no key for Mistral's and Qwen's, and llama.cpp lets every token see all before it.
pub(super) fn what_differs(config: &ModelConfig, read: &ModelConfig) -> Option<&'static str> {
    let same_windows = config.layers.len() == read.layers.len()
        && config
            .layers
            .iter()
            .zip(&read.layers)
            .all(|(ours, file)| file.window.is_none_or(|w| Some(w) == ours.window));
    let checks = [
        ("its family", config.family.in_gguf() == read.family),
        ("the width of its hidden states", config.hidden_size == read.hidden_size),
        ("the width of its feed-forward layer", config.intermediate_size == read.intermediate_size),
        ("its heads", config.heads == read.heads),
        ("the size of its vocabulary", config.vocab_size == read.vocab_size),
        ("the epsilon of its norms", is_near(config.norm_eps, read.norm_eps)),
        ("whether its head is the embedding", config.tied == read.tied),
        ("its activation", config.activation == read.activation),
        ("its biases", config.biases == read.biases),
        ("the scale of its attention", is_near(config.attention_scale, read.attention_scale)),
        ("the cap of its attention", same_cap(config.attention_softcap, read.attention_softcap)),
        ("the cap of its logits", same_cap(config.logit_softcap, read.logit_softcap)),
        ("the scale of its embedding", is_near(config.embedding_scale, read.embedding_scale)),
        ("the order of its blocks' halves", config.is_parallel == read.is_parallel),
        ("its rotary embeddings", same_ropes(config, read)),
        ("its layers' windows", same_windows),
    ];
    checks.into_iter().find(|(_, is_same)| !is_same).map(|(what, _)| what)
}

/// The window that is lost, in tokens.
pub(super) fn lost_window(config: &ModelConfig, read: &ModelConfig) -> Option<usize> {
    config.layers.iter().zip(&read.layers).find(|(ours, file)| ours.window != file.window)?.0.window
}

/// Files hold float32.
fn is_near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * a.abs().max(b.abs())
}

fn same_cap(a: Option<f64>, b: Option<f64>) -> bool {
    a.is_some() == b.is_some() && a.zip(b).is_none_or(|(a, b)| is_near(a, b))
}

/// The same rotary embedding in every layer.
fn same_ropes(config: &ModelConfig, read: &ModelConfig) -> bool {
    config.layers.iter().zip(&read.layers).all(|(ours, file)| {
        let (ours, file) = (&config.ropes[ours.rope], &read.ropes[file.rope]);
        let same_scaling = match (&ours.scaling, &file.scaling) {
            (RopeScaling::Linear { factor: a }, RopeScaling::Linear { factor: b }) => is_near(*a, *b),
            (a, b) => a == b,
        };
        ours.size == file.size && (ours.size == 0 || is_near(ours.theta, file.theta) && same_scaling)
    })
}
