//! What is trained: named tensors, and gradients that add up.

use candle_core::{Result, Tensor};

use super::ops::{Compute, Factor, kernels};

/// A trained tensor's place in [`Parameters`] and [`Gradients`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParameterId(usize);

impl ParameterId {
    /// Its number, counted from 0.
    pub fn index(self) -> usize {
        self.0
    }
}

/// The trained tensors, in a fixed order.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    entries: Vec<(String, Tensor)>,
}

impl Parameters {
    /// Adds one.
    pub(super) fn add(&mut self, name: String, value: Tensor) -> ParameterId {
        self.entries.push((name, value));
        ParameterId(self.entries.len() - 1)
    }

    /// The value of one.
    pub fn get(&self, id: ParameterId) -> &Tensor {
        &self.entries[id.0].1
    }

    /// Replaces the value of one.
    pub fn set(&mut self, id: ParameterId, value: Tensor) {
        debug_assert_eq!(self.entries[id.0].1.dims(), value.dims());
        self.entries[id.0].1 = value;
    }

    /// All of them: id, checkpoint name, value.
    pub fn iter(&self) -> impl Iterator<Item = (ParameterId, &str, &Tensor)> {
        self.entries.iter().enumerate().map(|(i, (name, value))| (ParameterId(i), name.as_str(), value))
    }

    /// Number of trained tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is trained.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// One gradient per parameter, adding up over micro-batches.
#[derive(Debug, Default)]
pub struct Gradients {
    sums: Vec<Option<Tensor>>,
}

impl Gradients {
    /// Room for `n` gradients, all absent.
    pub fn new(n: usize) -> Self {
        Self { sums: vec![None; n] }
    }

    /// Adds to one; nobody else may hold `gradient`, which later ones are added to.
    pub fn add(&mut self, id: ParameterId, gradient: Tensor) -> Result<()> {
        match &self.sums[id.0] {
            None => self.sums[id.0] = Some(gradient),
            Some(sum) => kernels(sum.device())?.add_in_place(sum, &gradient)?,
        }
        Ok(())
    }

    /// Adds `scale · a · b` to one.
    pub(super) fn add_product(
        &mut self,
        id: ParameterId,
        compute: &Compute,
        (a, b): (Factor<'_>, Factor<'_>),
        scale: f64,
    ) -> Result<()> {
        let sum = match self.sums[id.0].take() {
            Some(begun) => compute.sum_onto(begun),
            None => compute.float32_sum(a.shape()?.0, b.shape()?.1)?,
        };
        self.sums[id.0] = Some(sum.add(a, b, scale)?.into_tensor()?);
        Ok(())
    }

    /// One of them, to add to in place: zeros of the parameter's shape if nothing was added yet.
    pub(super) fn begun(&mut self, id: ParameterId, parameter: &Tensor) -> Result<&Tensor> {
        let sum = &mut self.sums[id.0];
        if sum.is_none() {
            *sum = Some(parameter.zeros_like()?);
        }
        Ok(sum.as_ref().expect("just set"))
    }

    /// One of them, if anything was added.
    pub fn get(&self, id: ParameterId) -> Option<&Tensor> {
        self.sums[id.0].as_ref()
    }
}
