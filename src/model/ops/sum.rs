//! A matrix that products are added up in: y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ + residual is one buffer, written by the products themselves.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::{Kernels, kernels};
use crate::domain::Dtype;

/// Where and how a model is computed.
#[derive(Debug, Clone)]
pub struct Compute {
    kernels: &'static dyn Kernels,
    device: Device,
    dtype: Dtype,
}

impl Compute {
    /// On this device, in this type.
    pub fn new(device: &Device, dtype: Dtype) -> Result<Self> {
        Ok(Self { kernels: kernels(device)?, device: device.clone(), dtype })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What the factors of products are rounded to.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The type of activations.
    pub fn activations(&self) -> DType {
        self.kernels.activations(self.dtype)
    }

    /// A sum of activations, (rows, cols), of nothing yet.
    pub fn sum(&self, rows: usize, cols: usize) -> Result<Sum> {
        self.sum_of(rows, cols, self.activations())
    }

    /// A sum in float32, (rows, cols), of nothing yet: a parameter's gradient.
    pub fn float32_sum(&self, rows: usize, cols: usize) -> Result<Sum> {
        self.sum_of(rows, cols, DType::F32)
    }

    fn sum_of(&self, rows: usize, cols: usize, dtype: DType) -> Result<Sum> {
        // SAFETY: the numbers are plain floats, and a sum is not read before a product has been written over all of it.
        let tensor = unsafe { Tensor::empty((rows, cols), dtype, &self.device) }?;
        Ok(Sum { compute: self.clone(), tensor, residual: None, is_empty: true })
    }

    /// A sum that goes on in place with what `begun` holds; nobody else may hold it.
    pub fn sum_onto(&self, begun: Tensor) -> Sum {
        Sum { compute: self.clone(), tensor: begun, residual: None, is_empty: false }
    }

    /// A sum that begins with `first`, a residual, which stays as it is.
    pub fn sum_from(&self, first: &Tensor) -> Result<Sum> {
        let (rows, cols) = first.dims2()?;
        Ok(Sum { residual: Some(first.clone()), ..self.sum(rows, cols)? })
    }

    /// Adds `a · b` to each of several sums: the left factor is read once.
    pub fn add_each(&self, sums: &mut [&mut Sum], a: Factor<'_>, bs: &[Factor<'_>]) -> Result<()> {
        self.add_scaled(sums, a, bs, 1.0)
    }

    fn add_scaled(&self, sums: &mut [&mut Sum], a: Factor<'_>, bs: &[Factor<'_>], scale: f64) -> Result<()> {
        if sums.len() != bs.len() {
            bail!("{} products cannot be added to {} sums", bs.len(), sums.len())
        }
        let (m, k) = a.shape()?;
        for (sum, b) in sums.iter().zip(bs) {
            let (k_b, n) = b.shape()?;
            if (m, n) != sum.tensor.dims2()? || k != k_b {
                bail!("a product of ({m}, {k}) and ({k_b}, {n}) cannot be added to {:?}", sum.tensor.shape())
            }
        }
        self.kernels.add_products(sums, a, bs, scale)?;
        for sum in sums {
            sum.is_empty = false;
            sum.residual = None;
        }
        Ok(())
    }
}

impl std::ops::Deref for Compute {
    type Target = dyn Kernels;

    fn deref(&self) -> &Self::Target {
        self.kernels
    }
}

/// A factor of a product: a matrix as it lies in memory, or its transpose (nothing is moved).
#[derive(Debug, Clone, Copy)]
pub enum Factor<'a> {
    /// As it lies.
    Plain(&'a Tensor),
    /// Rows and columns exchanged.
    Transposed(&'a Tensor),
}

impl Factor<'_> {
    /// The matrix as it lies.
    pub fn tensor(&self) -> &Tensor {
        match self {
            Self::Plain(tensor) | Self::Transposed(tensor) => tensor,
        }
    }

    /// Rows and columns of the factor.
    pub(in crate::model) fn shape(&self) -> Result<(usize, usize)> {
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
    compute: Compute,
    /// Written in place; nobody else holds it.
    pub(super) tensor: Tensor,
    /// What it begins with, where that is not in `tensor`: the first product is added to it and written to `tensor`.
    pub(super) residual: Option<Tensor>,
    /// Whether `tensor` holds nothing yet.
    pub(super) is_empty: bool,
}

impl Sum {
    /// Adds `scale · a · b`.
    pub fn add(mut self, a: Factor<'_>, b: Factor<'_>, scale: f64) -> Result<Self> {
        let compute = self.compute.clone();
        compute.add_scaled(&mut [&mut self], a, &[b], scale)?;
        Ok(self)
    }

    /// What the factors are rounded to.
    pub(super) fn dtype(&self) -> Dtype {
        self.compute.dtype
    }

    /// The sum as a tensor.
    pub fn into_tensor(self) -> Result<Tensor> {
        if self.is_empty {
            bail!("a sum that no product was added to has no value")
        }
        Ok(self.tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_add_up_on_a_residual() {
        let compute = Compute::new(&Device::Cpu, Dtype::Float32).expect("made");
        let a = Tensor::from_vec(vec![1f32, 2., 3., 4., 5., 6.], (2, 3), &Device::Cpu).expect("made");
        let b = Tensor::from_vec(vec![1f32, 0., 2., 0., 1., 1.], (2, 3), &Device::Cpu).expect("made");
        let residual = Tensor::from_vec(vec![10f32, 20., 30., 40.], (2, 2), &Device::Cpu).expect("made");
        let sum = compute
            .sum_from(&residual)
            .and_then(|s| s.add(Factor::Plain(&a), Factor::Transposed(&b), 2.0))
            .and_then(Sum::into_tensor)
            .and_then(|t| t.to_vec2::<f32>());
        assert_eq!(sum.expect("computed"), [[24., 30.], [62., 62.]]);
        assert_eq!(residual.to_vec2::<f32>().expect("read")[0], [10., 20.], "what it began with is untouched");
        let sum = || compute.sum(2, 2).expect("made");
        assert!(sum().add(Factor::Plain(&a), Factor::Plain(&b), 1.0).is_err());
        assert!(sum().into_tensor().is_err());
    }
}
