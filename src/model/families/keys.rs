//! The metadata by which a GGUF file says what a model is: the way back from `metadata.rs`.

use candle_core::quantized::gguf_file::Value;

use super::NormKind;
use crate::model::{ModelConfig, ModelError, rope::RopeScaling};

/// Keys and values of one file, in the order they are written.
pub(in crate::model) struct Keys {
    architecture: &'static str,
    pairs: Vec<(String, Value)>,
}

impl Keys {
    /// What llama.cpp's converter writes for a model of this shape, general keys and the tokenizer's left out.
    ///
    /// # Errors
    /// A feature that GGUF, or llama.cpp, has no way to say, by name.
    pub(in crate::model) fn of(config: &ModelConfig) -> Result<Vec<(String, Value)>, ModelError> {
        let architecture = config.family.in_gguf().gguf.expect("what others are written as has a name");
        let mut keys = Self { architecture, pairs: Vec::new() };
        keys.whole("vocab_size", config.vocab_size);
        keys.whole("block_count", config.layers.len());
        keys.whole("context_length", config.max_position_embeddings);
        keys.whole("embedding_length", config.hidden_size);
        keys.whole("feed_forward_length", config.intermediate_size);
        keys.whole("attention.head_count", config.heads.query);
        keys.whole("attention.head_count_kv", config.heads.key_value);
        keys.whole("attention.key_length", config.heads.size);
        keys.whole("attention.value_length", config.heads.size);
        keys.number(
            match config.family.norm {
                NormKind::Rms | NormKind::RmsPlusOne => "attention.layer_norm_rms_epsilon",
                NormKind::Layer => "attention.layer_norm_epsilon",
            },
            config.norm_eps,
        );
        keys.rope(config)?;
        (config.family.add_keys)(config, &mut keys)?;
        Ok(keys.pairs)
    }

    pub(super) fn whole(&mut self, key: &str, value: usize) {
        self.add(key, Value::U32(value as u32));
    }

    pub(super) fn number(&mut self, key: &str, value: f64) {
        self.add(key, Value::F32(value as f32));
    }

    pub(super) fn flag(&mut self, key: &str, value: bool) {
        self.add(key, Value::Bool(value));
    }

    fn add(&mut self, key: &str, value: Value) {
        self.pairs.push((format!("{}.{key}", self.architecture), value));
    }

    fn rope(&mut self, config: &ModelConfig) -> Result<(), ModelError> {
        let Some(rope) = config.ropes.first().filter(|rope| rope.size > 0) else { return Ok(()) };
        self.whole("rope.dimension_count", rope.size);
        self.number("rope.freq_base", rope.theta);
        match rope.scaling {
            RopeScaling::Default => {}
            RopeScaling::Linear { factor } => {
                self.add("rope.scaling.type", Value::String("linear".into()));
                self.number("rope.scaling.factor", factor);
            }
            // Said by a tensor of divisors, which llama.cpp reads of Llama's models alone.
            RopeScaling::Llama3(_) if self.architecture == "llama" => {}
            RopeScaling::Llama3(_) => return Err(not_in_gguf(config, "rope scaling 'llama3'")),
        }
        Ok(())
    }
}

/// The error for what llama.cpp would leave out or compute otherwise.
pub(in crate::model) fn not_in_gguf(config: &ModelConfig, what: &str) -> ModelError {
    ModelError::Unsupported(format!(
        "a GGUF file cannot say everything that {} computes here ({what}), so that llama.cpp would compute something else: \
         export the model as a Hugging Face directory",
        config.family.architecture
    ))
}
