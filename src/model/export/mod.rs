//! A model, its adapters merged in, written for other programs: as a Hugging Face directory, or as a GGUF file.
//!
//! One weight is in memory at a time: where each one goes is known before the first is read.

mod agreement;
mod gguf;
mod header;
mod number;
mod placed;
mod safetensors;

use std::ops::ControlFlow;

use super::{ModelError, weights::read_config};
use crate::domain::{ExportDtype, ExportFormat, ModelLocation};

pub use gguf::{GgufText, export_gguf};
pub use safetensors::export_huggingface;

/// Is told after every weight how many are written and how many there are, and may say that no more are wanted.
pub type OnWeight<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// How much room the weights of an export take, in bytes.
///
/// # Errors
/// If the model's configuration cannot be read, or the format has no numbers of this type.
pub fn exported_bytes(location: &ModelLocation, format: ExportFormat, dtype: ExportDtype) -> Result<u64, ModelError> {
    let config = read_config(location)?;
    match format {
        ExportFormat::Huggingface => safetensors::n_bytes_of(&config, dtype),
        ExportFormat::Gguf => Ok(gguf::places(&config, dtype).1),
    }
}

/// Counts the weights that are written.
struct Count<'a> {
    n_done: usize,
    n_total: usize,
    on_weight: &'a mut OnWeight<'a>,
}

impl Count<'_> {
    /// One more.
    fn one_more(&mut self) -> Result<(), ModelError> {
        self.n_done += 1;
        match (self.on_weight)(self.n_done, self.n_total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ModelError::Interrupted),
        }
    }
}
