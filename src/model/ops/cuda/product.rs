//! Products by cuBLAS: factors in one type, sums in float32 or in the factors' type, added up in float32.

use std::ffi::{c_int, c_void};

use candle_core::{
    DType, Result, Tensor, bail,
    cuda_backend::{
        WrapErr,
        cudarc::cublas::{
            result::gemm_ex,
            sys::{
                cublasComputeType_t::CUBLAS_COMPUTE_32F,
                cublasGemmAlgo_t::CUBLAS_GEMM_DFALT,
                cublasOperation_t::{self, CUBLAS_OP_N, CUBLAS_OP_T},
                cudaDataType,
            },
        },
    },
};

use super::launch::{address, copy};
use crate::{
    domain::Dtype,
    model::ops::{Factor, Sum},
};

/// What a target holds before a product is written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing that counts.
    Nothing,
    /// What the product is added to.
    Sum,
}

/// Adds a product with the same left factor to each of the sums, or begins them.
pub(super) fn add(sums: &mut [&mut Sum], a: Factor<'_>, bs: &[Factor<'_>], scale: f64) -> Result<()> {
    let Some(first) = sums.first() else { return Ok(()) };
    let dtype = factor_type(first.dtype());
    let a_numbers = a.tensor().to_dtype(dtype)?;
    for (sum, b) in sums.iter_mut().zip(bs) {
        let b_numbers = b.tensor().to_dtype(dtype)?;
        let before = match sum.residual.take() {
            Some(residual) => {
                copy(&residual, &sum.tensor)?;
                Before::Sum
            }
            None if sum.is_empty => Before::Nothing,
            None => Before::Sum,
        };
        multiply(&sum.tensor, before, like(a, &a_numbers), like(*b, &b_numbers), scale)?;
    }
    Ok(())
}

/// The type factors have in this precision.
pub(super) fn factor_type(dtype: Dtype) -> DType {
    match dtype {
        Dtype::Float32 => DType::F32,
        Dtype::Bfloat16 => DType::BF16,
    }
}

/// `numbers` turned as `factor` is.
fn like<'a>(factor: Factor<'_>, numbers: &'a Tensor) -> Factor<'a> {
    match factor {
        Factor::Plain(_) => Factor::Plain(numbers),
        Factor::Transposed(_) => Factor::Transposed(numbers),
    }
}

/// Writes `scale · a · b` to `target`, or adds it to what it holds. Both factors have the same type.
pub(super) fn multiply(target: &Tensor, before: Before, a: Factor<'_>, b: Factor<'_>, scale: f64) -> Result<()> {
    let ((m, k), (_, n)) = (a.shape()?, b.shape()?);
    if target.dims2()? != (m, n) || b.shape()?.0 != k {
        bail!("a product of ({m}, {k}) and {:?} cannot be written to {:?}", b.shape()?, target.shape())
    }
    if m == 0 || n == 0 {
        return Ok(());
    }
    let dtype = a.tensor().dtype();
    let (alpha, beta) = (scale as f32, if before == Before::Sum { 1f32 } else { 0f32 });
    let (a_numbers, b_numbers) = (address(a.tensor(), dtype)?, address(b.tensor(), dtype)?);
    let target_numbers = address(target, target.dtype())?;
    let device = target.device().as_cuda_device()?;
    device.cuda_stream().context().bind_to_thread().w()?;
    let blas = device.cublas_handle();
    // cuBLAS reads columns where we have rows: it computes the transposed product, factors exchanged.
    // SAFETY: the addresses are of live tensors of these sizes and types; alpha and beta are on the host, where the handle expects
    // them by default.
    unsafe {
        gemm_ex(
            *blas.handle(),
            operation(b),
            operation(a),
            c_int::try_from(n)?,
            c_int::try_from(m)?,
            c_int::try_from(k)?,
            (&raw const alpha).cast::<c_void>(),
            b_numbers as *const c_void,
            data_type(dtype)?,
            c_int::try_from(b.tensor().dim(1)?)?,
            a_numbers as *const c_void,
            data_type(dtype)?,
            c_int::try_from(a.tensor().dim(1)?)?,
            (&raw const beta).cast::<c_void>(),
            target_numbers as *mut c_void,
            data_type(target.dtype())?,
            c_int::try_from(n)?,
            CUBLAS_COMPUTE_32F,
            CUBLAS_GEMM_DFALT,
        )
    }
    .w()
}

fn operation(factor: Factor<'_>) -> cublasOperation_t {
    match factor {
        Factor::Plain(_) => CUBLAS_OP_N,
        Factor::Transposed(_) => CUBLAS_OP_T,
    }
}

fn data_type(dtype: DType) -> Result<cudaDataType> {
    match dtype {
        DType::F32 => Ok(cudaDataType::CUDA_R_32F),
        DType::BF16 => Ok(cudaDataType::CUDA_R_16BF),
        other => bail!("products are made of float32 or bfloat16, not {other:?}"),
    }
}
