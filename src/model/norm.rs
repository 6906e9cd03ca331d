//! Normalisation of rows: by their root mean square, or by mean and variance; and the vectors layers have beside matrices.

use candle_core::{Result, Tensor};

use super::{
    block::Pass,
    families::NormKind,
    parameters::{Gradients, ParameterId, Parameters},
};

/// A vector of weights: a norm's, or a bias.
#[derive(Debug, Clone)]
pub(super) enum Vector {
    Frozen(Tensor),
    Trained(ParameterId),
}

impl Vector {
    pub(super) fn get<'a>(&'a self, parameters: &'a Parameters) -> &'a Tensor {
        match self {
            Self::Frozen(vector) => vector,
            Self::Trained(id) => parameters.get(*id),
        }
    }

    /// Adds its gradient, if it is trained.
    pub(super) fn add_gradient(
        &self,
        gradients: &mut Gradients,
        gradient: impl FnOnce() -> Result<Tensor>,
    ) -> Result<()> {
        match self {
            Self::Frozen(_) => Ok(()),
            Self::Trained(id) => gradients.add(*id, gradient()?),
        }
    }
}

/// A normalisation.
#[derive(Debug, Clone)]
pub(super) struct Norm {
    pub(super) weight: Vector,
    /// Layer normalisation's.
    pub(super) bias: Option<Vector>,
    pub(super) kind: NormKind,
    pub(super) eps: f64,
}

impl Norm {
    /// y (N, D), and 1/√(mean square + ε) per row (N), which the others need. Layer normalisation is that of rows less their means.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<(Tensor, Tensor)> {
        let (y, inverse) = pass.compute.rms_norm(&self.centred(x, pass)?, &self.factor(pass)?, self.eps)?;
        self.add_bias(&y, pass)?;
        Ok((y, inverse))
    }

    /// y once more.
    pub(super) fn again(&self, x: &Tensor, inverse: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let y = pass.compute.rms_norm_again(&self.centred(x, pass)?, &self.factor(pass)?, inverse)?;
        self.add_bias(&y, pass)?;
        Ok(y)
    }

    /// Adds the gradients of what is trained; returns dL/dx, `residual` included.
    pub(super) fn backward(
        &self,
        dy: &Tensor,
        (x, inverse): (&Tensor, &Tensor),
        residual: Option<&Tensor>,
        pass: &Pass<'_>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let compute = pass.compute;
        let x = self.centred(x, pass)?;
        self.weight.add_gradient(gradients, || compute.rms_norm_weight_gradient(dy, &x, inverse))?;
        if let Some(bias) = &self.bias {
            bias.add_gradient(gradients, || compute.column_sums(dy))?;
        }
        let factor = self.factor(pass)?;
        match self.kind {
            NormKind::Rms | NormKind::RmsPlusOne => compute.rms_norm_backward(dy, &x, &factor, inverse, residual),
            NormKind::Layer => compute.centred(&compute.rms_norm_backward(dy, &x, &factor, inverse, None)?, residual),
        }
    }

    /// What rows are multiplied by. Counted from 1 the weight stays what it is in files: decay pulls it to 0.
    fn factor(&self, pass: &Pass<'_>) -> Result<Tensor> {
        let weight = self.weight.get(pass.parameters);
        match self.kind {
            NormKind::Rms | NormKind::Layer => Ok(weight.clone()),
            NormKind::RmsPlusOne => weight.affine(1.0, 1.0),
        }
    }

    fn centred(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        match self.kind {
            NormKind::Rms | NormKind::RmsPlusOne => Ok(x.clone()),
            NormKind::Layer => pass.compute.centred(x, None),
        }
    }

    fn add_bias(&self, y: &Tensor, pass: &Pass<'_>) -> Result<()> {
        self.bias.as_ref().map_or(Ok(()), |bias| pass.compute.add_bias(y, bias.get(pass.parameters)))
    }
}
