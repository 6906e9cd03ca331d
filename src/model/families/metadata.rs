//! A GGUF file's metadata, and the `config.json` the model would have.

use candle_core::quantized::gguf_file::{Content, Value};
use serde_json::{Map, json};

use super::Family;
use crate::model::ModelError;

/// Keys and values of one file.
pub(in crate::model) struct Metadata<'a> {
    content: &'a Content,
    architecture: String,
}

impl<'a> Metadata<'a> {
    pub(in crate::model) fn new(content: &'a Content) -> Self {
        let architecture = content.metadata.get("general.architecture").and_then(|v| v.to_string().ok().cloned());
        Self { content, architecture: architecture.unwrap_or_default() }
    }

    /// llama.cpp's name of the architecture.
    pub(in crate::model) fn architecture(&self) -> &str {
        &self.architecture
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.content.metadata.get(&format!("{}.{key}", self.architecture))
    }

    pub(super) fn optional_number(&self, key: &str) -> Option<f64> {
        self.get(key).and_then(as_f64)
    }

    pub(super) fn optional_whole(&self, key: &str) -> Option<usize> {
        self.optional_number(key).map(|n| n as usize)
    }

    pub(super) fn whole(&self, key: &str) -> Result<usize, ModelError> {
        self.optional_whole(key).ok_or_else(|| self.missing(key))
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(|value| value.to_bool().ok())
    }

    /// Whether the file has a tensor of this name.
    pub(super) fn has_tensor(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    fn missing(&self, key: &str) -> ModelError {
        ModelError::invalid(format!("the GGUF file has no number {}.{key}", self.architecture))
    }

    /// `config.json` in the words of the family.
    pub(in crate::model) fn config_json(&self, family: &Family) -> Result<Map<String, serde_json::Value>, ModelError> {
        let rows = self.content.tensor_infos.get("token_embd.weight").and_then(|t| t.shape.dims().first().copied());
        let eps = ["attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"];
        let eps = eps.into_iter().find_map(|key| self.optional_number(key)).ok_or_else(|| self.missing(eps[0]))?;
        let token = |key: &str| self.content.metadata.get(&format!("tokenizer.ggml.{key}_token_id")).and_then(as_f64);
        let mut json = Map::new();
        let mut set = |key: &str, value: serde_json::Value| {
            if !value.is_null() {
                json.insert(key.to_owned(), value);
            }
        };
        set("architectures", json!([family.architecture]));
        set("model_type", family.model_type.into());
        set("hidden_act", "silu".into());
        set("hidden_size", self.whole("embedding_length")?.into());
        set("intermediate_size", self.whole("feed_forward_length")?.into());
        set("num_hidden_layers", self.whole("block_count")?.into());
        set("num_attention_heads", self.whole("attention.head_count")?.into());
        set("num_key_value_heads", self.optional_whole("attention.head_count_kv").into());
        set("head_dim", self.optional_whole("attention.key_length").into());
        set("vocab_size", rows.ok_or_else(|| ModelError::invalid("the GGUF file has no token_embd.weight"))?.into());
        for key in ["rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"] {
            set(key, single(eps).into());
        }
        set("max_position_embeddings", self.whole("context_length")?.into());
        set("tie_word_embeddings", (!self.content.tensor_infos.contains_key("output.weight")).into());
        set("rope_theta", self.optional_number("rope.freq_base").into());
        set("rope_scaling", self.rope_scaling()?);
        set("bos_token_id", token("bos").map(|id| id as u64).into());
        set("eos_token_id", token("eos").map(|id| id as u64).into());
        set("pad_token_id", token("padding").map(|id| id as u64).into());
        (family.add_json)(self, &mut json)?;
        Ok(json)
    }

    fn rope_scaling(&self) -> Result<serde_json::Value, ModelError> {
        let kind = self.get("rope.scaling.type").and_then(|value| value.to_string().ok()).map(String::as_str);
        let factor = self.optional_number("rope.scaling.factor");
        if self.content.tensor_infos.keys().any(|name| name.starts_with("rope_factors")) {
            return Err(ModelError::Unsupported("rope scaling 'longrope' is not supported".into()));
        }
        match (kind, factor) {
            (None | Some("none"), _) => Ok(serde_json::Value::Null),
            (Some("linear"), Some(factor)) => Ok(json!({"rope_type": "linear", "factor": factor})),
            (Some("linear"), None) => Err(self.missing("rope.scaling.factor")),
            (Some(other), _) => Err(ModelError::Unsupported(format!("rope scaling '{other}' is not supported"))),
        }
    }
}

/// A number that was 1e-5 before it became a float32 is 1e-5 again.
fn single(number: f64) -> f64 {
    (number as f32).to_string().parse().unwrap_or(number)
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
