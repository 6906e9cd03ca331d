//! A model, its adapters merged in, written for other programs: as a Hugging Face directory, or as a GGUF file.
//!
//! One weight is in memory at a time: where each one goes is known before the first is read.

mod agreement;
mod gguf;
mod header;
mod number;
mod placed;
mod safetensors;

pub use gguf::{GgufText, export_gguf};
pub use safetensors::export_huggingface;
