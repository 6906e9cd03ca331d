//! Trainable language models: their shape, weights, forward and backward, LoRA, and what is written back.

mod attention;
mod block;
mod config;
mod decoder;
pub mod device;
mod error;
mod export;
mod families;
mod footprint;
mod generate;
mod gguf;
pub mod layout;
mod licence;
mod linear;
mod mlp;
mod norm;
pub mod ops;
mod parameters;
mod quantised;
mod rope;
mod save;
mod weights;

pub use config::{Biases, LayerConfig, ModelConfig};
pub use decoder::{Decoder, Forward, Purpose, Tuning};
pub use error::ModelError;
pub use export::{GgufText, OnWeight, export_gguf, export_huggingface, exported_bytes};
pub use families::{FAMILIES, Family, NormKind, Part};
pub use footprint::Footprint;
pub use generate::generate_greedy;
pub use licence::licence;
pub use linear::{DropoutKey, LoraShape};
pub use parameters::{Gradients, ParameterId, Parameters};
pub use rope::{Llama3, Rope, RopeScaling};
pub use save::{save_adapter, save_full};
pub use weights::{Matrices, ModelFacts, Weights, inspect, noise};
