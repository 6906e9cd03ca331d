//! A model so small that a test can write and train it: random weights, a byte-level BPE, made-up pairs.
#![expect(clippy::unwrap_used, reason = "files that cannot be set up fail the test")]

use std::{collections::HashMap, fmt::Write, path::Path};

use candle_core::{
    Device, Tensor,
    quantized::gguf_file::{self, Value},
};
use mrpo::{
    domain::{ModelLocation, WeightsFormat},
    text::Codec,
};

pub(crate) const END_OF_TEXT: u32 = 0;
pub(crate) const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] \
                      + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}\
                      {% endif %}";

/// A GGUF file with the tokenizer and no tensors; `changes` replace or add metadata.
pub(crate) fn gguf(directory: &Path, changes: &[(&str, Value)]) -> ModelLocation {
    let text = |s: &str| Value::String(s.to_owned());
    let mut tokens: Vec<String> = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|tool|>"].map(str::to_owned).into();
    let mut types = vec![3, 3, 3, 4];
    tokens.extend(byte_alphabet().into_iter().map(String::from));
    tokens.extend(["he", "ll", "hell", "hello", "Ġhello"].map(str::to_owned));
    types.resize(tokens.len(), 1);
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ hello"];
    let mut metadata = vec![
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("smollm")),
        ("tokenizer.ggml.tokens", Value::Array(tokens.into_iter().map(Value::String).collect())),
        ("tokenizer.ggml.token_type", Value::Array(types.into_iter().map(Value::I32).collect())),
        ("tokenizer.ggml.merges", Value::Array(merges.map(text).into())),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        // The token that ends documents, as base models have it: not the one that ends a turn.
        ("tokenizer.ggml.eos_token_id", Value::U32(END_OF_TEXT)),
        ("tokenizer.chat_template", text(CHATML)),
    ];
    for (key, value) in changes {
        metadata.retain(|(k, _)| k != key);
        metadata.push((key, value.clone()));
    }
    let weights = directory.join("tiny.gguf");
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    gguf_file::write(&mut std::fs::File::create(&weights).unwrap(), &metadata, &[]).unwrap();
    ModelLocation { format: WeightsFormat::Gguf, weights, adapters: Vec::new() }
}

/// GPT-2's names of the 256 bytes: printable ones are themselves, the others follow from U+0100 on.
fn byte_alphabet() -> Vec<char> {
    let mut next = 0x100..;
    let mut name = |byte: u8| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => char::from_u32(next.next().unwrap()).unwrap(),
    };
    (0..=255).map(&mut name).collect()
}

/// Numbers that look random, the same on every machine.
pub(crate) fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| (((i * 7919 + seed * 104_729) % 1009) as f32 / 1009.0 - 0.5) * 0.9).collect()
}

/// `config.json` and `model.safetensors` of a Llama with two layers of width 8.
pub(crate) fn write_weights(directory: &Path, n_vocab: usize, seed: usize) {
    write_weights_with(directory, n_vocab, seed, 2);
}

/// The same with another number of key and value heads.
pub(crate) fn write_weights_with(directory: &Path, n_vocab: usize, seed: usize, n_kv_heads: usize) {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": n_kv_heads, "vocab_size": n_vocab, "rms_norm_eps": 1e-5,
        "hidden_act": "silu",        "rope_theta": 100.0, "tie_word_embeddings": false, "max_position_embeddings": 2048,
    });
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let mut tensors = HashMap::new();
    let mut add = |name: String, shape: &[usize]| {
        let n = shape.iter().product();
        let offset = if name.contains("norm") { 1.0 } else { 0.0 };
        let values = numbers(n, tensors.len() + seed).into_iter().map(|x| x + offset).collect();
        tensors.insert(name, Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu).unwrap());
    };
    add("model.embed_tokens.weight".into(), &[n_vocab, 8]);
    add("lm_head.weight".into(), &[n_vocab, 8]);
    add("model.norm.weight".into(), &[8]);
    for layer in 0..2 {
        for (part, shape) in [
            ("input_layernorm", vec![8]),
            ("post_attention_layernorm", vec![8]),
            ("self_attn.q_proj", vec![8, 8]),
            ("self_attn.k_proj", vec![2 * n_kv_heads, 8]),
            ("self_attn.v_proj", vec![2 * n_kv_heads, 8]),
            ("self_attn.o_proj", vec![8, 8]),
            ("mlp.gate_proj", vec![12, 8]),
            ("mlp.up_proj", vec![12, 8]),
            ("mlp.down_proj", vec![8, 12]),
        ] {
            add(format!("model.layers.{layer}.{part}.weight"), &shape);
        }
    }
    candle_core::safetensors::save(&tensors, directory.join("model.safetensors")).unwrap();
}

/// A whole model as a Hugging Face directory, tokenizer and template included.
pub(crate) fn write_model(directory: &Path, seed: usize) -> ModelLocation {
    std::fs::create_dir_all(directory).unwrap();
    let beside = tempfile::tempdir().unwrap();
    let codec = Codec::load(&gguf(beside.path(), &[])).unwrap();
    codec.save(directory).unwrap();
    write_weights(directory, codec.vocab_size(), seed);
    ModelLocation { format: WeightsFormat::Huggingface, weights: directory.to_owned(), adapters: Vec::new() }
}

/// Pairs as lines of JSON, no two alike; nearly every character is a token.
pub(crate) fn pairs(n: usize, first: usize, n_chars: usize) -> String {
    let words = ["stone", "river", "lantern", "quiet", "seven", "window", "green", "walk", "under", "paper"];
    let text = |seed: usize, n_chars: usize| {
        let mut text = String::new();
        let mut i = seed;
        while text.len() < n_chars {
            i = (i * 31 + 7) % 1013;
            write!(text, "{} ", words[i % words.len()]).unwrap();
        }
        text.truncate(n_chars);
        text
    };
    (first..first + n).fold(String::new(), |mut lines, i| {
        let pair = serde_json::json!({
            "prompt": format!("{i}: {}", text(i, n_chars)),
            "chosen": format!("hello {}", text(i + 300, n_chars / 3)),
            "rejected": format!("{} no {i}", text(i + 600, n_chars / 2)),
        });
        writeln!(lines, "{pair}").unwrap();
        lines
    })
}
