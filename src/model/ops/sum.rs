//! A matrix that products are added up in: y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ + residual is one buffer, written by the products themselves.

use candle_core::{Result, Tensor, bail};

use super::{
    host::{host, tensor},
    matrix::{Matrix, Target, Threads, product},
};

/// A factor of a product: a matrix as it lies in memory, or its transpose (nothing is moved).
#[derive(Clone, Copy)]
pub enum Factor<'a> {
    /// As it lies.
    Plain(&'a Tensor),
    /// Rows and columns exchanged.
    Transposed(&'a Tensor),
}

impl Factor<'_> {
    fn tensor(&self) -> &Tensor {
        match self {
            Self::Plain(tensor) | Self::Transposed(tensor) => tensor,
        }
    }

    fn view<'b>(&self, numbers: &'b [f32], (rows, cols): (usize, usize)) -> Matrix<'b> {
        let plain = Matrix::new(numbers, rows, cols, cols);
        match self {
            Self::Plain(_) => plain,
            Self::Transposed(_) => plain.t(),
        }
    }

    fn shape(&self) -> Result<(usize, usize)> {
        let (rows, cols) = self.tensor().dims2()?;
        Ok(match self {
            Self::Plain(_) => (rows, cols),
            Self::Transposed(_) => (cols, rows),
        })
    }
}

/// A sum of products in the making, (rows, cols).
#[derive(Debug)]
pub struct Sum {
    numbers: Vec<f32>,
    shape: (usize, usize),
    is_empty: bool,
}

impl Sum {
    /// Nothing yet.
    pub fn new(rows: usize, cols: usize) -> Self {
        Self { numbers: vec![0f32; rows * cols], shape: (rows, cols), is_empty: true }
    }

    /// Begins with a copy of `first`: a residual.
    pub fn starting_with(first: &Tensor) -> Result<Self> {
        Ok(Self { numbers: host(first)?.as_slice().to_vec(), shape: first.dims2()?, is_empty: false })
    }

    /// Adds `scale · a · b`.
    pub fn add(mut self, a: Factor<'_>, b: Factor<'_>, scale: f64) -> Result<Self> {
        let ((m, k), (k_b, n)) = (a.shape()?, b.shape()?);
        if (m, n) != self.shape || k != k_b {
            bail!("a product of ({m}, {k}) and ({k_b}, {n}) cannot be added to {:?}", self.shape)
        }
        let (a_numbers, b_numbers) = (host(a.tensor())?, host(b.tensor())?);
        let target = Target { numbers: &mut self.numbers, row_stride: n, add: !self.is_empty };
        let a = a.view(a_numbers.as_slice(), a.tensor().dims2()?);
        let b = b.view(b_numbers.as_slice(), b.tensor().dims2()?);
        product(target, a, b, scale as f32, Threads::All);
        self.is_empty = false;
        Ok(self)
    }

    /// The sum as a tensor.
    pub fn into_tensor(self) -> Result<Tensor> {
        tensor(self.numbers, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn products_add_up_on_a_residual() {
        let a = Tensor::from_vec(vec![1f32, 2., 3., 4., 5., 6.], (2, 3), &Device::Cpu).expect("made");
        let b = Tensor::from_vec(vec![1f32, 0., 2., 0., 1., 1.], (2, 3), &Device::Cpu).expect("made");
        let residual = Tensor::from_vec(vec![10f32, 20., 30., 40.], (2, 2), &Device::Cpu).expect("made");
        let sum = Sum::starting_with(&residual)
            .and_then(|s| s.add(Factor::Plain(&a), Factor::Transposed(&b), 2.0))
            .and_then(Sum::into_tensor)
            .and_then(|t| t.to_vec2::<f32>());
        assert_eq!(sum.expect("computed"), [[24., 30.], [62., 62.]]);
        assert!(Sum::new(2, 2).add(Factor::Plain(&a), Factor::Plain(&b), 1.0).is_err());
    }
}
