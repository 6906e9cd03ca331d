//! Matrix products on borrowed numbers: the one place that calls `gemm`, and the one unsafe block of the operations.

use gemm::{Parallelism, gemm};

/// A matrix inside a slice: element (i, j) is at `i·row_stride + j·col_stride`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    numbers: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `rows` × `cols`, rows `row_stride` apart.
    pub(super) fn new(numbers: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { numbers, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose, without moving anything.
    pub(super) fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    fn fits(&self) -> bool {
        self.rows == 0
            || self.cols == 0
            || (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride < self.numbers.len()
    }
}

/// Where a product goes: rows `row_stride` apart in `numbers`.
pub(super) struct Target<'a> {
    /// The numbers written to.
    pub(super) numbers: &'a mut [f32],
    /// Distance of two rows.
    pub(super) row_stride: usize,
    /// Add to what is there, or write over it.
    pub(super) add: bool,
}

/// `target (+)= scale · a · b` on one thread, or on all of them.
pub(super) fn product(target: Target<'_>, a: Matrix<'_>, b: Matrix<'_>, scale: f32, threads: Threads) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(k, b.rows, "inner sizes of a matrix product");
    if m == 0 || n == 0 {
        return;
    }
    assert!(a.fits() && b.fits(), "a matrix lies inside its numbers");
    assert!(
        n <= target.row_stride && (m - 1) * target.row_stride + n <= target.numbers.len(),
        "a product fits its target"
    );
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(0),
    };
    // SAFETY: the three assertions above say that every address gemm computes from these sizes and strides lies inside the
    // slices; the target is borrowed exclusively, so it overlaps neither operand.
    unsafe {
        gemm(
            m,
            n,
            k,
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
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// How many threads a product uses.
#[derive(Clone, Copy)]
pub(super) enum Threads {
    /// This one: the caller already runs on all of them.
    One,
    /// All of the pool.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_of_views_is_the_product() {
        // a = rows 0..2, columns 1..3 of a 2×4; b = a 2×2 read transposed.
        let a = [0., 1., 2., 9., 0., 3., 4., 9.];
        let b = [5., 6., 7., 8.];
        let mut out = [100.0; 6];
        product(
            Target { numbers: &mut out, row_stride: 3, add: false },
            Matrix::new(&a[1..], 2, 2, 4),
            Matrix::new(&b, 2, 2, 2).t(),
            2.0,
            Threads::One,
        );
        assert_eq!(out, [34., 46., 100., 78., 106., 100.]);
    }
}
