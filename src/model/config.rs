//! The shape of a model: from a Hugging Face `config.json` or from GGUF metadata, checked once, here.

use candle_core::quantized::gguf_file::{self, Value};
use serde::Deserialize;

use super::{ModelError, ops::Heads};

/// Architectures that can be trained and scored, as `config.json` names them.
pub const SUPPORTED: &[&str] = &["LlamaForCausalLM"];

/// The shape of a Llama-family decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Width D of the hidden states.
    pub hidden_size: usize,
    /// Width I inside the gated feed-forward layer.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub n_layers: usize,
    /// Attention heads.
    pub heads: Heads,
    /// Rows V of the embedding.
    pub vocab_size: usize,
    /// ε of the normalisations.
    pub rms_norm_eps: f64,
    /// Rotary embedding.
    pub rope: Rope,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Longest context it was made for, in tokens.
    pub max_position_embeddings: usize,
}

/// Rotary embedding: its base and how the frequencies are stretched for long contexts.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base θ.
    pub theta: f64,
    /// Stretching.
    pub scaling: RopeScaling,
}

/// How RoPE's frequencies are stretched.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// All by one factor (position interpolation, arXiv 2306.15595).
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1's: low frequencies by a factor, high ones not, and a blend between.
    Llama3 {
        /// The factor of the low frequencies.
        factor: f64,
        /// Wavelengths above original length / this are low frequencies.
        low_freq_factor: f64,
        /// Wavelengths below original length / this are high frequencies.
        high_freq_factor: f64,
        /// Context length before stretching.
        original_length: f64,
    },
    /// Given divisors, one per frequency (GGUF's `rope_freqs.weight`).
    Divisors(Vec<f32>),
}

impl Rope {
    /// The S/2 frequencies, in f32 as transformers computes them.
    pub fn frequencies(&self, head_size: usize) -> Vec<f32> {
        let plain = (0..head_size / 2).map(|i| {
            let exponent = (2 * i) as f32 / head_size as f32;
            1.0 / (self.theta as f32).powf(exponent)
        });
        match &self.scaling {
            RopeScaling::Default => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|f| f / *factor as f32).collect(),
            RopeScaling::Divisors(divisors) => plain.zip(divisors).map(|(f, d)| f / d).collect(),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_length } => plain
                .map(|f| {
                    let f = f64::from(f);
                    let wavelength = 2.0 * std::f64::consts::PI / f;
                    let scaled = if wavelength > original_length / low_freq_factor {
                        f / factor
                    } else if wavelength < original_length / high_freq_factor {
                        f
                    } else {
                        let smooth =
                            (original_length / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        (1.0 - smooth) * f / factor + smooth * f
                    };
                    scaled as f32
                })
                .collect(),
        }
    }
}

/// `config.json`, as far as we read it.
#[derive(Debug, Deserialize)]
struct RawConfig {
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct RawLlama {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    #[serde(default)]
    tie_word_embeddings: bool,
    max_position_embeddings: usize,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    hidden_act: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RawRope {
    rope_type: Option<String>,
    /// The key's older name.
    #[serde(rename = "type")]
    kind: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

impl LlamaConfig {
    /// Reads `config.json`. Returns the architecture's name and its shape.
    pub fn from_json(bytes: &[u8]) -> Result<(String, Self), ModelError> {
        let raw: RawConfig =
            serde_json::from_slice(bytes).map_err(|e| ModelError::invalid(format!("config.json: {e}")))?;
        let architecture = raw.architectures.first().cloned().unwrap_or_default();
        if !SUPPORTED.contains(&architecture.as_str()) {
            return Err(ModelError::unsupported_architecture(&architecture));
        }
        let raw: RawLlama = serde_json::from_value(serde_json::Value::Object(raw.rest))
            .map_err(|e| ModelError::invalid(format!("config.json: {e}")))?;
        if raw.attention_bias || raw.mlp_bias {
            return Err(ModelError::Unsupported(
                "a Llama with biases (attention_bias, mlp_bias) is not supported".into(),
            ));
        }
        if raw.hidden_act.as_deref().is_some_and(|a| a != "silu") {
            return Err(ModelError::Unsupported(format!("hidden_act is {:?}: only silu is supported", raw.hidden_act)));
        }
        let rope = raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref());
        let rope = Rope {
            theta: rope.and_then(|r| r.rope_theta).or(raw.rope_theta).unwrap_or(10_000.0),
            scaling: rope.map_or(Ok(RopeScaling::Default), RawRope::scaling)?,
        };
        let config = Self {
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            n_layers: raw.num_hidden_layers,
            heads: Heads {
                query: raw.num_attention_heads,
                key_value: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
                size: raw.head_dim.unwrap_or(raw.hidden_size / raw.num_attention_heads.max(1)),
            },
            vocab_size: raw.vocab_size,
            rms_norm_eps: raw.rms_norm_eps,
            rope,
            tied: raw.tie_word_embeddings,
            max_position_embeddings: raw.max_position_embeddings,
        };
        config.check()?;
        Ok((architecture, config))
    }

    /// Reads GGUF metadata; `llama` is llama.cpp's name of the architecture.
    pub fn from_gguf(content: &gguf_file::Content) -> Result<(String, Self), ModelError> {
        let text = |key: &str| content.metadata.get(key).and_then(|v| v.to_string().ok().cloned());
        let architecture = text("general.architecture").unwrap_or_default();
        if architecture != "llama" {
            return Err(ModelError::unsupported_architecture(&architecture));
        }
        let number = |key: &str| {
            let value = content.metadata.get(&format!("llama.{key}")).and_then(as_f64);
            value.ok_or_else(|| ModelError::invalid(format!("the GGUF file has no number llama.{key}")))
        };
        let optional = |key: &str| content.metadata.get(&format!("llama.{key}")).and_then(as_f64);
        let hidden_size = number("embedding_length")? as usize;
        let query = number("attention.head_count")? as usize;
        let embedding = content.tensor_infos.get("token_embd.weight");
        let rows = embedding.and_then(|t| t.shape.dims().first().copied());
        let theta = optional("rope.freq_base").unwrap_or(10_000.0);
        let scaling = match text("llama.rope.scaling.type").as_deref() {
            None | Some("none") => RopeScaling::Default,
            Some("linear") => RopeScaling::Linear { factor: number("rope.scaling.factor")? },
            Some(other) => return Err(ModelError::Unsupported(format!("rope scaling '{other}' is not supported"))),
        };
        let config = Self {
            hidden_size,
            intermediate_size: number("feed_forward_length")? as usize,
            n_layers: number("block_count")? as usize,
            heads: Heads {
                query,
                key_value: optional("attention.head_count_kv").map_or(query, |n| n as usize),
                size: optional("attention.key_length").map_or(hidden_size / query.max(1), |n| n as usize),
            },
            vocab_size: rows.ok_or_else(|| ModelError::invalid("the GGUF file has no token_embd.weight"))?,
            rms_norm_eps: number("attention.layer_norm_rms_epsilon")?,
            rope: Rope { theta, scaling },
            tied: !content.tensor_infos.contains_key("output.weight"),
            max_position_embeddings: number("context_length")? as usize,
        };
        config.check()?;
        Ok(("LlamaForCausalLM".to_owned(), config))
    }

    /// Refuses shapes that no code of ours could compute.
    fn check(&self) -> Result<(), ModelError> {
        let Heads { query, key_value, size } = self.heads;
        let sizes = [self.hidden_size, self.intermediate_size, self.n_layers, query, key_value, size, self.vocab_size];
        if sizes.contains(&0) || sizes.iter().any(|s| *s > 1 << 24) || self.n_layers > 1024 {
            return Err(ModelError::invalid("the configuration has a size that is zero or beyond reason"));
        }
        if query % key_value != 0 || size % 2 != 0 {
            return Err(ModelError::invalid(format!(
                "{query} query heads over {key_value} key heads of size {size}: not a multiple, or an odd size"
            )));
        }
        Ok(())
    }

    /// Number of weights; a tied head is counted once.
    pub fn n_parameters(&self) -> u64 {
        let (d, i, v) = (self.hidden_size as u64, self.intermediate_size as u64, self.vocab_size as u64);
        let (q, kv) = (self.heads.q_width() as u64, self.heads.kv_width() as u64);
        let block = 2 * d * q + 2 * d * kv + 3 * d * i + 2 * d;
        v * d * (2 - u64::from(self.tied)) + self.n_layers as u64 * block + d
    }

    /// `config.json` of a checkpoint in Hugging Face form.
    pub fn to_json(&self) -> serde_json::Value {
        let rope = match &self.rope.scaling {
            RopeScaling::Default | RopeScaling::Divisors(_) => serde_json::Value::Null,
            RopeScaling::Linear { factor } => serde_json::json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_length } => serde_json::json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor, "original_max_position_embeddings": *original_length as u64,
            }),
        };
        serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": self.hidden_size, "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.n_layers, "num_attention_heads": self.heads.query,
            "num_key_value_heads": self.heads.key_value, "head_dim": self.heads.size, "vocab_size": self.vocab_size,
            "rms_norm_eps": self.rms_norm_eps, "rope_theta": self.rope.theta, "rope_scaling": rope,
            "tie_word_embeddings": self.tied, "max_position_embeddings": self.max_position_embeddings,
            "attention_bias": false, "mlp_bias": false, "torch_dtype": "float32",
        })
    }
}

impl RawRope {
    fn scaling(&self) -> Result<RopeScaling, ModelError> {
        let missing = |name| ModelError::invalid(format!("config.json: the rope scaling has no {name}"));
        match self.rope_type.as_deref().or(self.kind.as_deref()).unwrap_or("default") {
            "default" => Ok(RopeScaling::Default),
            "linear" => Ok(RopeScaling::Linear { factor: self.factor.ok_or_else(|| missing("factor"))? }),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: self.factor.ok_or_else(|| missing("factor"))?,
                low_freq_factor: self.low_freq_factor.ok_or_else(|| missing("low_freq_factor"))?,
                high_freq_factor: self.high_freq_factor.ok_or_else(|| missing("high_freq_factor"))?,
                original_length: self
                    .original_max_position_embeddings
                    .ok_or_else(|| missing("original_max_position_embeddings"))?,
            }),
            other => Err(ModelError::Unsupported(format!(
                "rope scaling '{other}' is not supported (default, linear and llama3 are)"
            ))),
        }
    }
}

fn as_f64(value: &Value) -> Option<f64> {
    match value {
        Value::U8(x) => Some(f64::from(*x)),
        Value::I8(x) => Some(f64::from(*x)),
        Value::U16(x) => Some(f64::from(*x)),
        Value::I16(x) => Some(f64::from(*x)),
        Value::U32(x) => Some(f64::from(*x)),
        Value::I32(x) => Some(f64::from(*x)),
        Value::U64(x) => Some(*x as f64),
        Value::I64(x) => Some(*x as f64),
        Value::F32(x) => Some(f64::from(*x)),
        Value::F64(x) => Some(*x),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_architecture_is_refused_by_name_with_those_supported() {
        let error =
            LlamaConfig::from_json(br#"{"architectures":["BloomForCausalLM"]}"#).expect_err("refused").to_string();
        assert!(error.contains("BloomForCausalLM") && error.contains("LlamaForCausalLM"), "{error}");
    }

    #[test]
    fn llama3_scaling_keeps_high_frequencies_and_divides_low_ones() {
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_length: 8192.0 };
        let plain = Rope { theta: 500_000.0, scaling: RopeScaling::Default }.frequencies(128);
        let scaled = Rope { theta: 500_000.0, scaling }.frequencies(128);
        assert_eq!(plain[0], scaled[0]);
        assert!((plain[63] / scaled[63] - 8.0).abs() < 1e-5);
        assert!(scaled.iter().zip(&plain).all(|(s, p)| *s <= *p && *s >= p / 8.001));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = r#"{"architectures":["LlamaForCausalLM"],"hidden_size":64,"intermediate_size":172,"num_hidden_layers":5,
            "num_attention_heads":8,"num_key_value_heads":4,"vocab_size":512,"rms_norm_eps":1e-5,"rope_theta":10000.0,
            "tie_word_embeddings":true,"max_position_embeddings":512,
            "rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
            "original_max_position_embeddings":8192}}"#;
        let (_, config) = LlamaConfig::from_json(text.as_bytes()).expect("read");
        let written = serde_json::to_vec(&config.to_json()).expect("written");
        assert_eq!(LlamaConfig::from_json(&written).expect("read again").1, config);
        assert_eq!(config.heads.size, 8);
    }
}
