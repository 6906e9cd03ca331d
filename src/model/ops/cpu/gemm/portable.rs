//! Products by the `gemm` crate: every processor, and the check on our own kernels.

use gemm::{Parallelism, gemm};
use half::bf16;

use super::{How, Matrix, Right, Start, Target, Threads};
use crate::domain::Dtype;

/// See [`super::products`], which has checked the sizes; none of them is 0 but perhaps the columns.
pub(super) fn product(target: &mut Target<'_>, a: Matrix<'_>, b: Right<'_>, how: How) {
    if let Start::Other(_) = target.start {
        target.settle(a.rows, b.shape().1);
        target.start = Start::Target;
    }
    match (how.dtype, b) {
        (_, Right::Half(b)) => product_f32(target, a.with(&rounded(a, f32_to_half)), b.with(&rounded(b, |x| x)), how),
        (Dtype::Bfloat16, Right::Single(b)) => {
            product_f32(target, a.with(&rounded(a, f32_to_half)), b.with(&rounded(b, f32_to_half)), how);
        }
        (Dtype::Float32, Right::Single(b)) => product_f32(target, a, b, how),
    }
}

fn f32_to_half(x: f32) -> bf16 {
    bf16::from_f32(x)
}

/// The numbers from the matrix's first to its last, rounded.
fn rounded<T: Copy>(matrix: Matrix<'_, T>, round: impl Fn(T) -> bf16) -> Vec<f32> {
    if matrix.cols == 0 {
        return Vec::new();
    }
    let last = (matrix.rows - 1) * matrix.row_stride + (matrix.cols - 1) * matrix.col_stride;
    matrix.numbers[..=last].iter().map(|x| round(*x).to_f32()).collect()
}

impl<T> Matrix<'_, T> {
    /// The same view of other numbers.
    fn with(self, numbers: &[f32]) -> Matrix<'_> {
        let Matrix { rows, cols, row_stride, col_stride, .. } = self;
        Matrix { numbers, rows, cols, row_stride, col_stride }
    }
}

fn product_f32(target: &mut Target<'_>, a: Matrix<'_>, b: Matrix<'_>, how: How) {
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
            matches!(target.start, Start::Target),
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
