//! Products by the `gemm` crate: every processor, and the check on our own kernels.

use gemm::{Parallelism, gemm};
use half::bf16;

use super::{Element, How, Matrix, Target, Threads};
use crate::domain::Dtype;

/// See [`super::product`], which has checked the sizes.
pub(super) fn product<B: Element>(target: Target<'_>, a: Matrix<'_>, b: Matrix<'_, B>, how: How) {
    if how.dtype == Dtype::Bfloat16 {
        return product_f32(target, with(a, &rounded(a)), with(b, &rounded(b)), how);
    }
    match B::as_f32(b.numbers) {
        Some(numbers) => product_f32(target, a, with(b, numbers), how),
        None => unreachable!("a factor stored in bfloat16 makes a product in bfloat16"),
    }
}

/// The numbers from the matrix's first to its last, rounded.
fn rounded<T: Element>(matrix: Matrix<'_, T>) -> Vec<f32> {
    let last = (matrix.rows - 1) * matrix.row_stride + (matrix.cols - 1) * matrix.col_stride;
    matrix.numbers[..=last].iter().map(|x| bf16::from_f32(x.widen()).to_f32()).collect()
}

fn with<'a, T>(matrix: Matrix<'_, T>, numbers: &'a [f32]) -> Matrix<'a> {
    let Matrix { rows, cols, row_stride, col_stride, .. } = matrix;
    Matrix { numbers, rows, cols, row_stride, col_stride }
}

fn product_f32(target: Target<'_>, a: Matrix<'_>, b: Matrix<'_>, how: How) {
    assert!(a.fits() && b.fits(), "a matrix lies inside its numbers");
    let parallelism = match how.threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(0),
    };
    // SAFETY: `product` has asserted that every address gemm computes from the target's size and stride lies inside it, the
    // line above the same of the factors; the target is borrowed exclusively, so it overlaps neither.
    unsafe {
        gemm(
            a.rows,
            b.cols,
            a.cols,
            target.numbers.as_mut_ptr(),
            1,
            target.row_stride as isize,
            target.add,
            a.numbers.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.numbers.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            how.scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}
