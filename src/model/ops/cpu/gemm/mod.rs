//! Matrix products on borrowed numbers: the one door to every product on the CPU.
//!
//! On a processor with AVX-512 they run on kernels of our own, which read float32 and bfloat16 operands in any layout and
//! reach the speed of the units; elsewhere on the `gemm` crate. Every number of a product is a sum over k in one fixed order:
//! it depends neither on the number of threads nor on what other rows and columns there are.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod left;
#[cfg(target_arch = "x86_64")]
mod pack;
mod portable;
mod tiles;

use half::bf16;

use crate::domain::Dtype;

/// A matrix inside a slice: element (i, j) is at `i·row_stride + j·col_stride`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a, T = f32> {
    numbers: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// `rows` × `cols`, rows `row_stride` apart.
    pub(super) fn new(numbers: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
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

/// A right factor, stored in either type.
#[derive(Debug, Clone, Copy)]
pub(super) enum Right<'a> {
    /// As float32.
    Single(Matrix<'a>),
    /// As bfloat16: it makes a product in bfloat16.
    Half(Matrix<'a, bf16>),
}

impl<'a> From<Matrix<'a>> for Right<'a> {
    fn from(matrix: Matrix<'a>) -> Self {
        Self::Single(matrix)
    }
}

impl<'a> From<Matrix<'a, bf16>> for Right<'a> {
    fn from(matrix: Matrix<'a, bf16>) -> Self {
        Self::Half(matrix)
    }
}

impl Right<'_> {
    /// The transpose, without moving anything.
    pub(super) fn t(self) -> Self {
        match self {
            Self::Single(matrix) => Self::Single(matrix.t()),
            Self::Half(matrix) => Self::Half(matrix.t()),
        }
    }

    fn shape(&self) -> (usize, usize) {
        match self {
            Self::Single(matrix) => (matrix.rows, matrix.cols),
            Self::Half(matrix) => (matrix.rows, matrix.cols),
        }
    }

    fn fits(&self) -> bool {
        match self {
            Self::Single(matrix) => matrix.fits(),
            Self::Half(matrix) => matrix.fits(),
        }
    }
}

/// What a product is added to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start<'a> {
    /// Nothing: the target is written over.
    Nothing,
    /// What is in the target.
    Target,
    /// These numbers, laid out as the target's.
    Other(&'a [f32]),
}

/// Where a product goes: rows `row_stride` apart in `numbers`.
#[derive(Debug)]
pub(super) struct Target<'a> {
    /// The numbers written to.
    pub(super) numbers: &'a mut [f32],
    /// Distance of two rows.
    pub(super) row_stride: usize,
    /// What it is added to.
    pub(super) start: Start<'a>,
}

impl<'a> Target<'a> {
    /// Written over.
    pub(super) fn over(numbers: &'a mut [f32], row_stride: usize) -> Self {
        Self { numbers, row_stride, start: Start::Nothing }
    }

    /// Added to.
    pub(super) fn onto(numbers: &'a mut [f32], row_stride: usize) -> Self {
        Self { numbers, row_stride, start: Start::Target }
    }

    fn fits(&self, rows: usize, cols: usize) -> bool {
        let last = (rows - 1) * self.row_stride + cols;
        let start_fits = match self.start {
            Start::Nothing | Start::Target => true,
            Start::Other(numbers) => last <= numbers.len(),
        };
        cols <= self.row_stride && last <= self.numbers.len() && start_fits
    }

    /// The value of an empty sum.
    fn settle(&mut self, rows: usize, cols: usize) {
        for row in 0..rows {
            let range = row * self.row_stride..row * self.row_stride + cols;
            match self.start {
                Start::Nothing => self.numbers[range].fill(0.0),
                Start::Target => {}
                Start::Other(numbers) => self.numbers[range.clone()].copy_from_slice(&numbers[range]),
            }
        }
    }
}

/// One of several products with the same left factor.
#[derive(Debug)]
pub(super) struct Output<'a> {
    /// Where it goes.
    pub(super) target: Target<'a>,
    /// The right factor.
    pub(super) b: Right<'a>,
}

/// How many threads a product uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    /// This one: the caller already runs on all of them.
    One,
    /// All of the pool.
    All,
}

/// How a product is computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// Multiplies the product.
    pub(super) scale: f32,
    /// What the factors are rounded to.
    pub(super) dtype: Dtype,
    /// Threads.
    pub(super) threads: Threads,
}

/// `target (+)= scale · a · b`.
pub(super) fn product<'a>(target: Target<'a>, a: Matrix<'_>, b: impl Into<Right<'a>>, how: How) {
    products(a, &mut [Output { target, b: b.into() }], how);
}

/// The same for several right factors: the left one is read and packed once.
pub(super) fn products(a: Matrix<'_>, outputs: &mut [Output<'_>], how: How) {
    assert!(a.fits(), "a matrix lies inside its numbers");
    for output in outputs.iter() {
        let (k, n) = output.b.shape();
        assert_eq!(k, a.cols, "inner sizes of a matrix product");
        assert!(output.b.fits(), "a matrix lies inside its numbers");
        assert!(a.rows == 0 || n == 0 || output.target.fits(a.rows, n), "a product fits its target");
        let is_half = matches!(output.b, Right::Half(_));
        assert!(how.dtype == Dtype::Bfloat16 || !is_half, "a factor in bfloat16 makes a product in bfloat16");
    }
    if a.rows == 0 || a.cols == 0 {
        outputs.iter_mut().for_each(|output| output.target.settle(a.rows, output.b.shape().1));
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if avx512::serves(how.dtype) {
        return avx512::products(a, outputs, how);
    }
    for output in outputs {
        portable::product(&mut output.target, a, output.b, how);
    }
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
        let how = How { scale: 2.0, dtype: Dtype::Float32, threads: Threads::One };
        product(Target::over(&mut out, 3), Matrix::new(&a[1..], 2, 2, 4), Matrix::new(&b, 2, 2, 2).t(), how);
        assert_eq!(out, [34., 46., 100., 78., 106., 100.]);
    }

    /// Numbers in −½ … ½ that no rounding mode likes.
    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32).map(|i| ((i + seed).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 - 0.5).collect()
    }

    fn transposed<T: Copy>(numbers: &[T], rows: usize, cols: usize) -> Vec<T> {
        (0..rows * cols).map(|i| numbers[i % rows * cols + i / rows]).collect()
    }

    /// Every layout of both factors, both precisions, odd sizes: against f64, and the kernels against the `gemm` crate.
    #[test]
    fn layouts_precisions_and_sizes_agree_with_f64() {
        let rounded = |x: f32| f64::from(bf16::from_f32(x).to_f32());
        for (m, k, n) in [(1, 1, 1), (37, 51, 45), (14, 64, 32), (1, 7, 3), (100, 1_700, 70), (29, 600, 17), (3, 0, 2)]
        {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 7));
            let (a_t, b_t) = (transposed(&a, m, k), transposed(&b, k, n));
            let half: Vec<bf16> = b.iter().map(|x| bf16::from_f32(*x)).collect();
            let half_t = transposed(&half, k, n);
            for dtype in [Dtype::Float32, Dtype::Bfloat16] {
                let value = |x: f32| if dtype == Dtype::Float32 { f64::from(x) } else { rounded(x) };
                let exact = |i: usize, j: usize| (0..k).map(|l| value(a[i * k + l]) * value(b[l * n + j])).sum::<f64>();
                for threads in [Threads::One, Threads::All] {
                    let how = How { scale: 2.0, dtype, threads };
                    let a_views = [Matrix::new(&a, m, k, k), Matrix::new(&a_t, k, m, m).t()];
                    let b_views = [Matrix::new(&b, k, n, n), Matrix::new(&b_t, n, k, k).t()];
                    let half_views = [Matrix::new(&half, k, n, n), Matrix::new(&half_t, n, k, k).t()];
                    for (a, layout) in a_views.iter().flat_map(|a| (0..2).map(move |l| (*a, l))) {
                        let (mut own, mut other, mut stored) =
                            (vec![1f32; m * n], vec![1f32; m * n], vec![1f32; m * n]);
                        product(Target::onto(&mut own, n), a, b_views[layout], how);
                        if k == 0 {
                            assert_eq!(own, other);
                            continue;
                        }
                        portable::product(&mut Target::onto(&mut other, n), a, b_views[layout].into(), how);
                        if dtype == Dtype::Bfloat16 {
                            product(Target::onto(&mut stored, n), a, half_views[layout], how);
                            assert_eq!(own, stored, "stored in bfloat16 or rounded on the way: {m}×{k}×{n}");
                        }
                        for i in 0..m * n {
                            let exact = 1.0 + 2.0 * exact(i / n, i % n);
                            for out in [&own, &other] {
                                let error = (f64::from(out[i]) - exact).abs();
                                assert!(error < 2e-5, "{m}×{k}×{n} {dtype:?}: {} against {exact}", out[i]);
                            }
                        }
                    }
                }
            }
        }
    }

    /// What makes a batch's row equal to the same row alone, and a result independent of the machine's threads.
    #[test]
    fn a_row_is_the_same_bits_in_any_company() {
        let (m, k, n) = (61, 1_801, 83);
        let (a, b) = (numbers(m * k, 3), numbers(k * n, 5));
        let all = How { scale: 1.0, dtype: Dtype::Float32, threads: Threads::All };
        let mut whole = vec![0f32; m * n];
        product(Target::over(&mut whole, n), Matrix::new(&a, m, k, k), Matrix::new(&b, k, n, n), all);
        for row in [0, 13, 14, 60] {
            let mut alone = vec![0f32; n];
            let how = How { threads: Threads::One, ..all };
            product(Target::over(&mut alone, n), Matrix::new(&a[row * k..], 1, k, k), Matrix::new(&b, k, n, n), how);
            if cfg!(target_arch = "x86_64") && avx512::serves(Dtype::Float32) {
                assert_eq!(alone, whole[row * n..(row + 1) * n]);
            }
        }
    }

    /// Several right factors of different widths and types, each with a start of its own.
    #[test]
    fn products_of_one_left_factor_are_those_of_each() {
        let (m, k) = (31, 90);
        let a = numbers(m * k, 1);
        let widths = [45, 8, 32];
        let factors: Vec<Vec<f32>> = widths.iter().map(|n| numbers(k * n, 7)).collect();
        let half: Vec<bf16> = factors[1].iter().map(|x| bf16::from_f32(*x)).collect();
        let residual = numbers(m * 32, 9);
        let how = How { scale: 0.5, dtype: Dtype::Bfloat16, threads: Threads::One };
        let right = |i: usize| match i {
            1 => Right::from(Matrix::new(&half, k, 8, 8)),
            i => Right::from(Matrix::new(&factors[i], k, widths[i], widths[i])),
        };
        let mut together: Vec<Vec<f32>> = widths.iter().map(|n| vec![2.0; m * n]).collect();
        let mut apart = together.clone();
        let start = |i: usize| [Start::Nothing, Start::Target, Start::Other(&residual)][i];
        let mut outputs: Vec<Output<'_>> = Vec::new();
        for (i, numbers) in together.iter_mut().enumerate() {
            outputs.push(Output { target: Target { numbers, row_stride: widths[i], start: start(i) }, b: right(i) });
        }
        products(Matrix::new(&a, m, k, k), &mut outputs, how);
        for (i, numbers) in apart.iter_mut().enumerate() {
            let mut target = Target { numbers, row_stride: widths[i], start: start(i) };
            portable::product(&mut target, Matrix::new(&a, m, k, k), right(i), how);
        }
        for (together, apart) in together.iter().flatten().zip(apart.iter().flatten()) {
            assert!((together - apart).abs() < 1e-5, "{together} against {apart}");
        }
    }
}
