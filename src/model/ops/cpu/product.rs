//! Products of tensors.

use candle_core::{DType, Result, WithDType};

use super::{
    gemm::{Element, How, Matrix, Target, Threads, product},
    host::{host, write},
};
use crate::model::ops::{Factor, Sum, Term};

/// Adds one product to a sum, or begins it.
pub(super) fn add(sum: &Sum, Term { a, b, scale }: Term<'_>) -> Result<()> {
    match b.tensor().dtype() {
        DType::BF16 => add_stored::<half::bf16>(sum, a, b, scale),
        _ => add_stored::<f32>(sum, a, b, scale),
    }
}

fn add_stored<B: Element + WithDType>(sum: &Sum, a: Factor<'_>, b: Factor<'_>, scale: f64) -> Result<()> {
    let (_, columns) = sum.tensor.dims2()?;
    let how = How { scale: scale as f32, dtype: sum.dtype(), threads: Threads::All };
    let (a_numbers, b_numbers) = (host::<f32>(a.tensor())?, host::<B>(b.tensor())?);
    let (a, b) = (view(a, a_numbers.as_slice())?, view(b, b_numbers.as_slice())?);
    write(&sum.tensor, |numbers| product(Target { numbers, row_stride: columns, add: !sum.is_empty }, a, b, how))
}

fn view<'a, T>(factor: Factor<'_>, numbers: &'a [T]) -> Result<Matrix<'a, T>> {
    let (rows, columns) = factor.tensor().dims2()?;
    let plain = Matrix::new(numbers, rows, columns, columns);
    Ok(match factor {
        Factor::Plain(_) => plain,
        Factor::Transposed(_) => plain.t(),
    })
}
