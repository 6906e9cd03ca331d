//! A file whose tensors have their places before their numbers are known: each is written as it comes, in any order.

use std::{collections::BTreeMap, path::Path};

use candle_core::Tensor;
use fs_err::{File, os::unix::fs::FileExt};
use nix::{errno::Errno, fcntl::posix_fallocate};

use super::number::Number;
use crate::model::ModelError;

/// Numbers turned into bytes at once.
const CHUNK: usize = 1 << 24;

/// Where a tensor goes, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: u64,
    pub(super) number: Number,
    /// Its shape in the file.
    pub(super) shape: Vec<usize>,
}

/// A file being written.
pub(super) struct TensorFile {
    file: File,
    /// Of the tensors that have not come yet.
    places: BTreeMap<String, Place>,
}

impl TensorFile {
    /// Begins a file of `n_bytes`. A disk that has no room for all of it says so now, and not after an hour.
    pub(super) fn create(
        path: &Path,
        header: &[u8],
        n_bytes: u64,
        places: BTreeMap<String, Place>,
    ) -> Result<Self, ModelError> {
        let file = File::create(path)?;
        match posix_fallocate(file.file(), 0, n_bytes as i64) {
            Err(errno @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG)) => {
                return Err(std::io::Error::from(errno).into());
            }
            // Some file systems cannot; they will say later.
            _ => file.set_len(n_bytes)?,
        }
        file.write_all_at(header, 0)?;
        Ok(Self { file, places })
    }

    /// Whether the tensor belongs here and has not come yet.
    pub(super) fn expects(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Writes a tensor that is expected.
    ///
    /// # Errors
    /// If it has another shape than was planned, or the disk is full.
    pub(super) fn put(&mut self, name: &str, tensor: &Tensor) -> Result<(), ModelError> {
        let Some(Place { at, number, shape }) = self.places.remove(name) else { return Ok(()) };
        if tensor.dims() != shape {
            let message = format!("the weight {name} has shape {:?}, the configuration says {shape:?}", tensor.dims());
            return Err(ModelError::Invalid(message));
        }
        let row: usize = shape[1..].iter().product();
        let n_rows = (CHUNK / row.max(1)).max(1);
        for first in (0..shape[0]).step_by(n_rows) {
            let rows = tensor.narrow(0, first, n_rows.min(shape[0] - first))?;
            self.file.write_all_at(&number.bytes_of(&rows, name)?, at + number.n_bytes(first * row) as u64)?;
        }
        Ok(())
    }

    /// Makes the whole file durable.
    ///
    /// # Errors
    /// If a tensor has not come.
    pub(super) fn finish(self) -> Result<(), ModelError> {
        if let Some(missing) = self.places.keys().next() {
            return Err(ModelError::invalid(format!("the weight {missing} is missing")));
        }
        Ok(self.file.sync_all()?)
    }
}
