//! The shape of a model: what its family's file reads of `config.json` or of GGUF metadata, checked once, here.

use candle_core::quantized::gguf_file;

use super::{
    ModelError,
    families::{Family, NormKind, Part, metadata::Metadata, settings::Settings},
    ops::{Activation, Heads},
    rope::{Rope, RopeScaling},
};

/// The shape of a decoder of any family.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Its family.
    pub family: &'static Family,
    /// Width D of the hidden states.
    pub hidden_size: usize,
    /// Width I inside the feed-forward layer.
    pub intermediate_size: usize,
    /// Attention heads.
    pub heads: Heads,
    /// Rows V of the embedding.
    pub vocab_size: usize,
    /// ε of the normalisations.
    pub norm_eps: f64,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Longest context it was made for, in tokens.
    pub max_position_embeddings: usize,
    /// The function of the feed-forward layer.
    pub activation: Activation,
    /// Which linear layers have a bias.
    pub biases: Biases,
    /// What q·k is multiplied by.
    pub attention_scale: f64,
    /// Cap of attention's scores.
    pub attention_softcap: Option<f64>,
    /// Cap of the logits.
    pub logit_softcap: Option<f64>,
    /// What embeddings are multiplied by.
    pub embedding_scale: f64,
    /// Whether a block's two halves read the same input, instead of one the other's output (GPT-J's and GPT-NeoX's blocks).
    pub is_parallel: bool,
    /// Kinds of rotary embedding; layers name theirs.
    pub ropes: Vec<Rope>,
    /// The layers.
    pub layers: Vec<LayerConfig>,
    /// `config.json` as it was, or as it would be for a GGUF file.
    json: serde_json::Map<String, serde_json::Value>,
}

/// Which linear layers have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Biases {
    /// Queries, keys and values.
    pub qkv: bool,
    /// The output of attention.
    pub output: bool,
    /// The feed-forward layer.
    pub mlp: bool,
}

/// What may differ from layer to layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerConfig {
    /// Keys a query sees at most.
    pub window: Option<usize>,
    /// Which of the model's ropes.
    pub rope: usize,
}

impl ModelConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// An unsupported architecture or feature by name, a missing or impossible number.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ModelError> {
        let json = serde_json::from_slice(bytes).map_err(|e| ModelError::invalid(format!("config.json: {e}")))?;
        let settings = Settings::new(json);
        let family = Family::of_architecture(settings.architecture())?;
        Self::read(family, settings)
    }

    /// Reads GGUF metadata, by way of the `config.json` the model would have.
    ///
    /// # Errors
    /// As [`Self::from_json`].
    pub(super) fn from_gguf(content: &gguf_file::Content) -> Result<Self, ModelError> {
        let metadata = Metadata::new(content);
        let family = Family::of_gguf(metadata.architecture())?;
        Self::read(family, Settings::new(metadata.config_json(family)?))
    }

    fn read(family: &'static Family, settings: Settings) -> Result<Self, ModelError> {
        let mut config = Self::common(family, &settings)?;
        (family.read)(&mut config, &settings)?;
        config.json = settings.into_json();
        config.check()?;
        Ok(config)
    }

    /// What most families call the same; each says afterwards where it differs.
    fn common(family: &'static Family, settings: &Settings) -> Result<Self, ModelError> {
        let hidden_size = settings.whole(&["hidden_size", "n_embd"])?;
        let query = settings.whole(&["num_attention_heads", "n_head"])?;
        let heads = Heads {
            query,
            key_value: settings.optional_whole("num_key_value_heads")?.unwrap_or(query),
            size: settings.optional_whole("head_dim")?.unwrap_or(hidden_size / query.max(1)),
        };
        let n_layers = settings.whole(&["num_hidden_layers", "n_layer"])?;
        if n_layers > 1024 {
            return Err(ModelError::invalid("the configuration has a number of layers beyond reason"));
        }
        Ok(Self {
            family,
            hidden_size,
            intermediate_size: match settings.optional_whole("intermediate_size")? {
                Some(size) => size,
                None => settings.optional_whole("n_inner")?.unwrap_or(4 * hidden_size),
            },
            heads,
            vocab_size: settings.whole(&["vocab_size"])?,
            norm_eps: settings.number(&["rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps"])?,
            tied: settings.flag("tie_word_embeddings")?.unwrap_or(family.is_tied_by_default),
            max_position_embeddings: settings.whole(&["max_position_embeddings", "n_positions"])?,
            activation: settings.activation()?,
            biases: Biases::default(),
            attention_scale: (heads.size as f64).sqrt().recip(),
            attention_softcap: None,
            logit_softcap: None,
            embedding_scale: 1.0,
            is_parallel: false,
            ropes: vec![settings.rope(heads.size)?],
            layers: vec![LayerConfig::default(); n_layers],
            json: serde_json::Map::new(),
        })
    }

    /// Refuses shapes that no code of ours could compute.
    fn check(&self) -> Result<(), ModelError> {
        let Heads { query, key_value, size } = self.heads;
        let sizes =
            [self.hidden_size, self.intermediate_size, self.layers.len(), query, key_value, size, self.vocab_size];
        let windows = self.layers.iter().filter_map(|layer| layer.window);
        if sizes.into_iter().chain(windows).any(|s| s == 0 || s > 1 << 24) {
            return Err(ModelError::invalid("the configuration has a size that is zero or beyond reason"));
        }
        if query % key_value != 0 || size % 2 != 0 {
            return Err(ModelError::invalid(format!(
                "{query} query heads over {key_value} key heads of size {size}: not a multiple, or an odd size"
            )));
        }
        if let Some(rope) = self.ropes.iter().find(|rope| rope.size % 2 != 0 || rope.size > size) {
            return Err(ModelError::invalid(format!("{} of {size} numbers of a head cannot be turned", rope.size)));
        }
        if self.family.is_fused_by_head && self.heads.query != self.heads.key_value {
            return Err(ModelError::invalid("heads that share keys cannot be fused head by head"));
        }
        Ok(())
    }

    /// The stretching a GGUF file holds as a tensor of divisors.
    pub(super) fn stretch(&mut self, divisors: &[f32]) -> Result<(), ModelError> {
        let Some(rope) = self.ropes.first_mut() else { return Ok(()) };
        let numbers = rope.of_divisors(divisors)?;
        rope.scaling = RopeScaling::Llama3(numbers);
        self.json.insert(
            "rope_scaling".into(),
            serde_json::json!({
                "rope_type": "llama3", "factor": numbers.factor, "low_freq_factor": numbers.low_freq_factor,
                "high_freq_factor": numbers.high_freq_factor,
                "original_max_position_embeddings": numbers.original_length as u64,
            }),
        );
        Ok(())
    }

    /// Whether the model has this part.
    pub(super) fn has(&self, part: Part) -> bool {
        match part {
            Part::Head => !self.tied,
            _ => self.family.names.iter().any(|name| name.part == part),
        }
    }

    /// The shape of a part's weight: (out, in), or (D).
    pub(super) fn shape_of(&self, part: Part) -> Vec<usize> {
        let (d, i, v) = (self.hidden_size, self.intermediate_size, self.vocab_size);
        let (q, kv) = (self.heads.q_width(), self.heads.kv_width());
        match part {
            Part::Embedding | Part::Head => vec![v, d],
            Part::Positions => vec![self.max_position_embeddings, d],
            Part::FinalNorm | Part::AttentionNorm | Part::PostAttentionNorm | Part::MlpNorm | Part::PostMlpNorm => {
                vec![d]
            }
            Part::QNorm | Part::KNorm => vec![self.heads.size],
            Part::Q => vec![q, d],
            Part::K | Part::V => vec![kv, d],
            Part::Qkv => vec![q + 2 * kv, d],
            Part::O => vec![d, q],
            Part::Gate | Part::Up => vec![i, d],
            Part::GateUp => vec![2 * i, d],
            Part::Down => vec![d, i],
        }
    }

    /// Whether a part has a bias beside its weight.
    pub(super) fn has_bias(&self, part: Part) -> bool {
        match part {
            Part::Q | Part::K | Part::V | Part::Qkv => self.biases.qkv,
            Part::O => self.biases.output,
            Part::Gate | Part::Up | Part::GateUp | Part::Down => self.biases.mlp,
            Part::Embedding | Part::Positions | Part::Head | Part::QNorm | Part::KNorm => false,
            Part::FinalNorm | Part::AttentionNorm | Part::PostAttentionNorm | Part::MlpNorm | Part::PostMlpNorm => {
                self.family.norm == NormKind::Layer
            }
        }
    }

    /// The Hugging Face name of each of its weights with its shape, (out, in) for all matrices.
    pub(super) fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut tensors = Vec::new();
        let mut add = |part: Part, layer: usize| {
            let (name, shape) = (self.family.hf_name(part, layer), self.shape_of(part));
            if self.has_bias(part) {
                tensors.push((format!("{name}.bias"), vec![shape[0]]));
            }
            tensors.push((format!("{name}.weight"), shape));
        };
        for part in self.family.names.iter().map(|name| name.part).filter(|part| self.has(*part)) {
            if part.is_of_block() {
                (0..self.layers.len()).for_each(|layer| add(part, layer));
            } else {
                add(part, 0);
            }
        }
        tensors
    }

    /// Number of weights; a tied head is counted once.
    pub fn n_parameters(&self) -> u64 {
        self.tensors().iter().map(|(_, shape)| shape.iter().map(|n| *n as u64).product::<u64>()).sum()
    }

    /// Numbers that all blocks keep of one token for their backward, their inputs left out.
    pub(super) fn tape_numbers(&self) -> usize {
        let norms = [Part::QNorm, Part::KNorm].into_iter().any(|part| self.has(part));
        let added = if self.has(Part::PostMlpNorm) { 2 * self.hidden_size } else { 0 };
        let inner = if self.has(Part::Gate) || self.has(Part::GateUp) { 2 } else { 1 } * self.intermediate_size;
        let raw = if norms { self.heads.q_width() + self.heads.kv_width() } else { 0 };
        let of_block = 2 * self.hidden_size + self.heads.joined_width() + self.heads.q_width() + inner + added + raw;
        self.layers.len() * of_block
    }

    /// A whole number of `config.json` that no code here computes with.
    pub(super) fn told(&self, key: &str) -> Option<usize> {
        self.json.get(key)?.as_u64()?.try_into().ok()
    }

    /// `config.json` of a checkpoint whose weights are stored in float32.
    pub fn to_json(&self) -> serde_json::Value {
        self.to_json_of("float32")
    }

    /// `config.json` of weights stored in a type, by torch's name for it.
    pub(super) fn to_json_of(&self, dtype: &str) -> serde_json::Value {
        let mut json = self.json.clone();
        // The older name means the newer one to every version of transformers.
        json.remove("dtype");
        json.insert("torch_dtype".into(), dtype.into());
        json.insert("architectures".into(), serde_json::json!([self.family.architecture]));
        serde_json::Value::Object(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_architecture_is_refused_by_name_with_those_supported() {
        let error =
            ModelConfig::from_json(br#"{"architectures":["BloomForCausalLM"]}"#).expect_err("refused").to_string();
        assert!(error.contains("BloomForCausalLM") && error.contains("LlamaForCausalLM"), "{error}");
        assert!(error.contains("GPTNeoXForCausalLM"), "{error}");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = r#"{"architectures":["LlamaForCausalLM"],"hidden_size":64,"intermediate_size":172,"num_hidden_layers":5,
            "num_attention_heads":8,"num_key_value_heads":4,"vocab_size":512,"rms_norm_eps":1e-5,"rope_theta":10000.0,
            "tie_word_embeddings":true,"max_position_embeddings":512,"hidden_act":"silu","bos_token_id":1,
            "rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
            "original_max_position_embeddings":8192}}"#;
        let config = ModelConfig::from_json(text.as_bytes()).expect("read");
        let written = serde_json::to_vec(&config.to_json()).expect("written");
        let again = ModelConfig::from_json(&written).expect("read again");
        assert_eq!(ModelConfig { json: config.json.clone(), ..again.clone() }, config);
        assert_eq!((config.heads.size, again.to_json()["bos_token_id"].as_u64()), (8, Some(1)));
        // 512·64 + 5·(2·64·64 + 2·64·32 + 3·64·172 + 2·64) + 64.
        assert_eq!(config.n_parameters(), 260_032);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let valid = serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "vocab_size": 8, "rms_norm_eps": 1e-5, "max_position_embeddings": 8,
            "hidden_act": "silu",
        });
        let refusal = |key: &str, value: serde_json::Value| {
            let mut json = valid.clone();
            json[key] = value;
            ModelConfig::from_json(json.to_string().as_bytes()).expect_err("refused").to_string()
        };
        assert!(ModelConfig::from_json(valid.to_string().as_bytes()).is_ok());
        assert!(refusal("hidden_size", "x".into()).contains("hidden_size"));
        assert!(refusal("vocab_size", serde_json::Value::Null).contains("vocab_size"));
        assert!(refusal("hidden_act", "relu6".into()).contains("relu6"));
        assert!(refusal("num_key_value_heads", 3.into()).contains("not a multiple"));
        assert!(refusal("rope_scaling", serde_json::json!({"rope_type": "yarn", "factor": 2.0})).contains("yarn"));
        assert!(refusal("num_hidden_layers", 0.into()).contains("zero"));
    }
}
