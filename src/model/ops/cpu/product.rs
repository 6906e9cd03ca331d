//! Products of tensors.

use std::ops::Deref;

use candle_core::{DType, Result, Storage, Tensor};
use half::bf16;

use super::{
    gemm::{How, Matrix, Output, Right, Start, Target, Threads, products},
    host::{Host, host, write},
};
use crate::model::ops::{Factor, Sum};

/// The numbers of a tensor in either type, borrowed.
pub(super) enum Stored<S, H> {
    /// float32.
    Single(Host<S, f32>),
    /// bfloat16.
    Half(Host<H, bf16>),
}

impl Stored<(), ()> {
    /// Borrows them.
    pub(super) fn of(
        tensor: &Tensor,
    ) -> Result<Stored<impl Deref<Target = Storage> + Sync + '_, impl Deref<Target = Storage> + Sync + '_>> {
        Ok(match tensor.dtype() {
            DType::BF16 => Stored::Half(host::<bf16>(tensor)?),
            _ => Stored::Single(host::<f32>(tensor)?),
        })
    }
}

impl<S: Deref<Target = Storage>, H: Deref<Target = Storage>> Stored<S, H> {
    /// As a right factor of this shape.
    pub(super) fn right(&self, (rows, columns): (usize, usize)) -> Right<'_> {
        match self {
            Self::Single(numbers) => Matrix::new(numbers.as_slice(), rows, columns, columns).into(),
            Self::Half(numbers) => Matrix::new(numbers.as_slice(), rows, columns, columns).into(),
        }
    }
}

/// Adds a product with the same left factor to each of the sums, or begins them.
pub(super) fn add(sums: &mut [&mut Sum], a: Factor<'_>, bs: &[Factor<'_>], scale: f64) -> Result<()> {
    let Some(first) = sums.first() else { return Ok(()) };
    let how = How { scale: scale as f32, dtype: first.dtype(), threads: Threads::All };
    let left = host::<f32>(a.tensor())?;
    let (rows, columns) = a.tensor().dims2()?;
    let plain = Matrix::new(left.as_slice(), rows, columns, columns);
    let left = if matches!(a, Factor::Plain(_)) { plain } else { plain.t() };
    with_outputs(sums, bs, Vec::new(), &mut |outputs| products(left, outputs, how))
}

/// Opens one target after the other for writing, then calls `f` with all of them.
fn with_outputs(
    sums: &mut [&mut Sum],
    bs: &[Factor<'_>],
    outputs: Vec<Output<'_>>,
    f: &mut dyn FnMut(&mut [Output<'_>]),
) -> Result<()> {
    let Some((sum, sums)) = sums.split_first_mut() else {
        let mut outputs = outputs;
        f(&mut outputs);
        return Ok(());
    };
    let (_, columns) = sum.tensor.dims2()?;
    let stored = Stored::of(bs[0].tensor())?;
    let right = stored.right(bs[0].tensor().dims2()?);
    let b = if matches!(bs[0], Factor::Plain(_)) { right } else { right.t() };
    let residual = sum.residual.take();
    let start_numbers = residual.as_ref().map(host::<f32>).transpose()?;
    let start = match &start_numbers {
        Some(numbers) => Start::Other(numbers.as_slice()),
        None if sum.is_empty => Start::Nothing,
        None => Start::Target,
    };
    write(&sum.tensor, move |numbers| {
        let mut outputs = outputs;
        outputs.push(Output { target: Target { numbers, row_stride: columns, start }, b });
        with_outputs(sums, &bs[1..], outputs, f)
    })?
}
