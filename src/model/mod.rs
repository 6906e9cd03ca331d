//! Trainable language models: their shape, weights, forward and backward, LoRA, and what is written back.

mod block;
mod config;
pub mod device;
mod error;
mod generate;
mod gguf;
pub mod layout;
mod linear;
mod llama;
pub mod ops;
mod parameters;
mod save;
mod weights;

pub use config::{LlamaConfig, Rope, RopeScaling, SUPPORTED};
pub use error::ModelError;
pub use generate::generate_greedy;
pub use linear::{DropoutKey, LoraShape};
pub use llama::{Decoder, Forward, Purpose, Tuning};
pub use parameters::{Gradients, ParameterId, Parameters};
pub use save::{save_adapter, save_full};
pub use weights::{ModelFacts, Weights, inspect, noise};
