//! `AdamW` (arXiv 1711.05101) as PyTorch computes it, with moments that can be saved: candle's hides them.

use candle_core::{Result, Tensor, bail};

use crate::model::{
    Gradients, ParameterId, Parameters,
    ops::{AdamWStep, kernels},
};

/// Settings of the optimizer, all of them constant over a run but the learning rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWSettings {
    /// β1.
    pub beta1: f64,
    /// β2.
    pub beta2: f64,
    /// ε.
    pub epsilon: f64,
    /// Decoupled weight decay, on matrices only.
    pub weight_decay: f64,
}

/// The optimizer's state: steps taken and both moments of every parameter.
#[derive(Debug)]
pub struct AdamW {
    settings: AdamWSettings,
    n_steps: u64,
    moments: Vec<(Tensor, Tensor)>,
}

impl AdamW {
    /// A fresh state for these parameters.
    pub fn new(settings: AdamWSettings, parameters: &Parameters) -> Result<Self> {
        let moments = parameters.iter().map(|(_, _, p)| Ok((p.zeros_like()?, p.zeros_like()?)));
        Ok(Self { settings, n_steps: 0, moments: moments.collect::<Result<_>>()? })
    }

    /// One step, in place. `gradient_scale` multiplies every gradient first (clipping).
    pub fn step(&mut self, parameters: &Parameters, gradients: &Gradients, lr: f64, gradient_scale: f64) -> Result<()> {
        self.n_steps += 1;
        let AdamWSettings { beta1, beta2, epsilon, weight_decay } = self.settings;
        let mut step = AdamWStep {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            epsilon: epsilon as f32,
            step_size: (lr / (1.0 - beta1.powf(self.n_steps as f64))) as f32,
            root_correction: (1.0 - beta2.powf(self.n_steps as f64)).sqrt() as f32,
            decay: 1.0,
            gradient_scale: gradient_scale as f32,
        };
        for (id, _, parameter) in parameters.iter() {
            let Some(gradient) = gradients.get(id) else { bail!("a trained weight got no gradient") };
            step.decay = if parameter.rank() > 1 { (1.0 - lr * weight_decay) as f32 } else { 1.0 };
            let (first, second) = &self.moments[id.index()];
            kernels(parameter.device())?.adamw(parameter, gradient, (first, second), step)?;
        }
        Ok(())
    }

    /// The state as named tensors, for a checkpoint.
    pub fn state(&self, parameters: &Parameters) -> Vec<(String, Tensor)> {
        let of_one = |(id, name, _): (ParameterId, &str, &Tensor)| {
            let (first, second) = &self.moments[id.index()];
            [(format!("{name}.exp_avg"), first.clone()), (format!("{name}.exp_avg_sq"), second.clone())]
        };
        parameters.iter().flat_map(of_one).collect()
    }

    /// Puts a saved state back.
    pub fn restore(
        &mut self,
        n_steps: u64,
        parameters: &Parameters,
        mut take: impl FnMut(&str) -> Result<Tensor>,
    ) -> Result<()> {
        self.n_steps = n_steps;
        for (id, name, parameter) in parameters.iter() {
            let mut take = |kind: &str| -> Result<Tensor> {
                let tensor = take(&format!("{name}.{kind}"))?.to_device(parameter.device())?;
                // The step writes in place: nobody else may hold it.
                tensor.reshape(parameter.shape())?.copy()
            };
            self.moments[id.index()] = (take("exp_avg")?, take("exp_avg_sq")?);
        }
        Ok(())
    }
}
