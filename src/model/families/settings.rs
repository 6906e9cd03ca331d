//! `config.json`, read key by key: errors name the key.

use serde_json::{Map, Value};

use crate::model::{
    ModelError,
    ops::Activation,
    rope::{Llama3, Rope, RopeScaling},
};

/// A model's settings under the names `config.json` has.
pub(in crate::model) struct Settings(Map<String, Value>);

impl Settings {
    pub(in crate::model) fn new(json: Map<String, Value>) -> Self {
        Self(json)
    }

    pub(in crate::model) fn into_json(self) -> Map<String, Value> {
        self.0
    }

    /// The first of `architectures`.
    pub(in crate::model) fn architecture(&self) -> &str {
        self.0.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str).unwrap_or_default()
    }

    /// A value that is there and not null.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A whole number under one of these keys.
    pub(in crate::model) fn whole(&self, keys: &[&str]) -> Result<usize, ModelError> {
        for key in keys {
            if let Some(number) = self.optional_whole(key)? {
                return Ok(number);
            }
        }
        Err(missing(keys[0]))
    }

    pub(in crate::model) fn optional_whole(&self, key: &str) -> Result<Option<usize>, ModelError> {
        let whole = |value: &Value| {
            value.as_u64().and_then(|n| n.try_into().ok()).ok_or_else(|| wrong(key, value, "a whole number"))
        };
        self.get(key).map(whole).transpose()
    }

    /// A number under one of these keys.
    pub(in crate::model) fn number(&self, keys: &[&str]) -> Result<f64, ModelError> {
        for key in keys {
            if let Some(number) = self.optional_number(key)? {
                return Ok(number);
            }
        }
        Err(missing(keys[0]))
    }

    pub(super) fn optional_number(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.get(key).map(|value| value.as_f64().ok_or_else(|| wrong(key, value, "a number"))).transpose()
    }

    pub(in crate::model) fn flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.get(key).map(|value| value.as_bool().ok_or_else(|| wrong(key, value, "true or false"))).transpose()
    }

    /// Refuses a feature that is switched on.
    pub(super) fn refuse(&self, key: &str) -> Result<(), ModelError> {
        if self.flag(key)? == Some(true) {
            return Err(ModelError::Unsupported(format!("config.json: {key} is not supported")));
        }
        Ok(())
    }

    /// The function of the feed-forward layer.
    pub(in crate::model) fn activation(&self) -> Result<Activation, ModelError> {
        let key =
            ["hidden_activation", "hidden_act", "activation_function"].into_iter().find(|key| self.get(key).is_some());
        let key = key.ok_or_else(|| missing("hidden_act"))?;
        match self.0[key].as_str() {
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some("gelu") => Ok(Activation::Gelu),
            Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_fast") => Ok(Activation::GeluTanh),
            _ => Err(ModelError::Unsupported(format!(
                "config.json: {key} is {}: silu, gelu, gelu_new and gelu_pytorch_tanh are supported",
                self.0[key]
            ))),
        }
    }

    /// Which layers see a window only, as `layer_types` says, if it is there.
    pub(super) fn are_local(&self, n_layers: usize) -> Result<Option<Vec<bool>>, ModelError> {
        let Some(value) = self.get("layer_types") else { return Ok(None) };
        let is_local = |layer: &Value| match layer.as_str() {
            Some("sliding_attention") => Ok(true),
            Some("full_attention") => Ok(false),
            _ => Err(ModelError::Unsupported(format!("config.json: a layer of type {layer} is not supported"))),
        };
        let layers = value.as_array().ok_or_else(|| wrong("layer_types", value, "a list"))?;
        let layers = layers.iter().map(is_local).collect::<Result<Vec<_>, _>>()?;
        if layers.len() != n_layers {
            let message = format!("config.json: {} layer_types for {n_layers} layers", layers.len());
            return Err(ModelError::Invalid(message));
        }
        Ok(Some(layers))
    }

    /// The rotary embedding of heads of this size, under the newer key (`rope_parameters`) or the older ones.
    pub(in crate::model) fn rope(&self, head_size: usize) -> Result<Rope, ModelError> {
        let table = self.get("rope_parameters").or_else(|| self.get("rope_scaling"));
        self.rope_of(table.and_then(Value::as_object), head_size)
    }

    /// The one of some layers, where `rope_parameters` has one for each type of layer.
    pub(super) fn rope_of_layers(&self, layer_type: &str, head_size: usize) -> Result<Option<Rope>, ModelError> {
        let table =
            self.get("rope_parameters").and_then(|parameters| parameters.get(layer_type)).and_then(Value::as_object);
        table.map(|table| self.rope_of(Some(table), head_size)).transpose()
    }

    fn rope_of(&self, table: Option<&Map<String, Value>>, head_size: usize) -> Result<Rope, ModelError> {
        let empty = Map::new();
        let table = Self(table.unwrap_or(&empty).clone());
        let theta = match table.optional_number("rope_theta")? {
            Some(theta) => theta,
            None => match self.optional_number("rope_theta")? {
                Some(theta) => theta,
                None => self.optional_number("rotary_emb_base")?.unwrap_or(10_000.0),
            },
        };
        let mut share = table.optional_number("partial_rotary_factor")?;
        for key in ["partial_rotary_factor", "rotary_pct"] {
            share = share.or(self.optional_number(key)?);
        }
        let size = share.map_or(head_size, |share| (head_size as f64 * share) as usize);
        Ok(Rope { theta, size, scaling: table.rope_scaling()? })
    }

    fn rope_scaling(&self) -> Result<RopeScaling, ModelError> {
        let kind = self.get("rope_type").or_else(|| self.get("type"));
        match kind.map_or(Some("default"), Value::as_str) {
            Some("default") => Ok(RopeScaling::Default),
            Some("linear") => Ok(RopeScaling::Linear { factor: self.number(&["factor"])? }),
            Some("llama3") => Ok(RopeScaling::Llama3(Llama3 {
                factor: self.number(&["factor"])?,
                low_freq_factor: self.number(&["low_freq_factor"])?,
                high_freq_factor: self.number(&["high_freq_factor"])?,
                original_length: self.number(&["original_max_position_embeddings"])?,
            })),
            _ => Err(ModelError::Unsupported(format!(
                "rope scaling {} is not supported (default, linear and llama3 are)",
                kind.unwrap_or(&Value::Null)
            ))),
        }
    }
}

fn missing(key: &str) -> ModelError {
    ModelError::invalid(format!("config.json has no {key}"))
}

fn wrong(key: &str, value: &Value, wanted: &str) -> ModelError {
    let shown: String = value.to_string().chars().take(80).collect();
    ModelError::invalid(format!("config.json: {key} is {shown}, not {wanted}"))
}
