//! Frozen matrices left as a GGUF file stores them, unpacked while they are used: one at a time, instead of a whole model.

use std::{borrow::Cow, sync::Arc};

use candle_core::{
    DType, Device, Result, Tensor,
    quantized::{QStorage, QTensor},
};
use rayon::prelude::*;

use super::{ModelConfig, families::Part};

/// Pieces of a matrix, so that all threads unpack it.
const N_PIECES: usize = 16;

/// A matrix (out, in) whose numbers are those of the dense one to the last bit.
#[derive(Debug, Clone)]
pub(super) struct Quantised {
    /// Neighbouring rows each, all but the last `n_rows` of them.
    pieces: Arc<Vec<QTensor>>,
    n_rows: usize,
    shape: [usize; 2],
    /// What it is unpacked to.
    dtype: DType,
    /// How its rows become Hugging Face's.
    part: Part,
    config: Arc<ModelConfig>,
}

impl Quantised {
    /// Takes a file's tensor apart.
    pub(super) fn new(tensor: &QTensor, part: Part, config: Arc<ModelConfig>, dtype: DType) -> Result<Self> {
        let (out, input) = tensor.shape().dims2()?;
        let n_rows = out.div_ceil(N_PIECES).max(1);
        let kind = tensor.dtype();
        let row_bytes = input / kind.block_size() * kind.type_size();
        let data = tensor.data()?;
        let piece = |bytes: &[u8]| {
            let storage = QStorage::from_data(Cow::Owned(bytes.to_vec()), &Device::Cpu, kind)?;
            QTensor::new(storage, (bytes.len() / row_bytes, input))
        };
        let pieces = data.chunks(n_rows * row_bytes).map(piece).collect::<Result<Vec<_>>>()?;
        Ok(Self { pieces: Arc::new(pieces), n_rows, shape: [out, input], dtype, part, config })
    }

    /// (out, in).
    pub(super) fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// All of it.
    pub(super) fn unpack(&self) -> Result<Tensor> {
        let unpack = |piece: &QTensor| piece.dequantize(&Device::Cpu)?.to_dtype(self.dtype);
        let pieces = self.pieces.par_iter().map(unpack).collect::<Result<Vec<_>>>()?;
        (self.config.family.from_gguf)(&self.config, self.part, Tensor::cat(&pieces, 0)?)
    }

    /// Some rows of an embedding, (rows, in). No family has its rows in another order.
    pub(super) fn rows(&self, rows: &[u32]) -> Result<Tensor> {
        let row = |row: &u32| {
            let (piece, at) = (*row as usize / self.n_rows, *row as usize % self.n_rows);
            let Some(piece) = self.pieces.get(piece) else { candle_core::bail!("there is no row {row}") };
            piece.embedding(&Tensor::new(&[at as u32], &Device::Cpu)?)?.to_dtype(self.dtype)
        };
        Tensor::cat(&rows.par_iter().map(row).collect::<Result<Vec<_>>>()?, 0)
    }
}
