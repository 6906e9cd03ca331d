//! A model of another family, as small as `tiny`.
#![expect(clippy::unwrap_used, reason = "files that cannot be set up fail the test")]

use std::{collections::HashMap, path::Path};

use candle_core::{Device, Tensor, quantized::gguf_file::Value};
use mrpo::text::Codec;

use crate::tiny;

/// A GPT-2 of one layer of width 8, which reads text by other merges than those of `tiny` and has no template. It has as many weights
/// as returned.
pub(crate) fn write(directory: &Path, seed: usize) -> u64 {
    std::fs::create_dir_all(directory).unwrap();
    let beside = tempfile::tempdir().unwrap();
    let merges = Value::Array(vec![Value::String("h e".to_owned())]);
    let codec = Codec::load(&tiny::gguf(beside.path(), &[("tokenizer.ggml.merges", merges)])).unwrap();
    codec.save(directory).unwrap();
    let path = directory.join("tokenizer_config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["chat_template"] = serde_json::Value::Null;
    std::fs::write(&path, config.to_string()).unwrap();
    let config = serde_json::json!({
        "architectures": ["GPT2LMHeadModel"], "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": codec.vocab_size(),
        "n_positions": 512, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
    });
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let mut tensors = HashMap::new();
    let mut n_weights = 0;
    for (name, shape) in [
        ("wte.weight", vec![codec.vocab_size(), 8]),
        ("wpe.weight", vec![512, 8]),
        ("h.0.ln_1.weight", vec![8]),
        ("h.0.ln_1.bias", vec![8]),
        ("h.0.attn.c_attn.weight", vec![8, 24]),
        ("h.0.attn.c_attn.bias", vec![24]),
        ("h.0.attn.c_proj.weight", vec![8, 8]),
        ("h.0.attn.c_proj.bias", vec![8]),
        ("h.0.ln_2.weight", vec![8]),
        ("h.0.ln_2.bias", vec![8]),
        ("h.0.mlp.c_fc.weight", vec![8, 32]),
        ("h.0.mlp.c_fc.bias", vec![32]),
        ("h.0.mlp.c_proj.weight", vec![32, 8]),
        ("h.0.mlp.c_proj.bias", vec![8]),
        ("ln_f.weight", vec![8]),
        ("ln_f.bias", vec![8]),
    ] {
        let n: usize = shape.iter().product();
        n_weights += n as u64;
        let values = tiny::numbers(n, tensors.len() + seed);
        tensors.insert(name, Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu).unwrap());
    }
    candle_core::safetensors::save(&tensors, directory.join("model.safetensors")).unwrap();
    n_weights
}
