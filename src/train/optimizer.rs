//! `AdamW` (arXiv 1711.05101) as PyTorch computes it, with moments that can be saved: candle's hides them.

use candle_core::{Device, Result, Tensor, bail};

use crate::model::{Gradients, Parameters};

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
    first: Vec<Vec<f32>>,
    second: Vec<Vec<f32>>,
}

impl AdamW {
    /// A fresh state for these parameters.
    pub fn new(settings: AdamWSettings, parameters: &Parameters) -> Self {
        let zeros: Vec<Vec<f32>> = parameters.iter().map(|(_, _, p)| vec![0.0; p.elem_count()]).collect();
        Self { settings, n_steps: 0, first: zeros.clone(), second: zeros }
    }

    /// One step. `gradient_scale` multiplies every gradient first (clipping).
    pub fn step(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        lr: f64,
        gradient_scale: f64,
    ) -> Result<()> {
        self.n_steps += 1;
        let AdamWSettings { beta1, beta2, epsilon, weight_decay } = self.settings;
        let correction1 = 1.0 - beta1.powf(self.n_steps as f64);
        let correction2 = (1.0 - beta2.powf(self.n_steps as f64)).sqrt();
        let ids: Vec<_> = parameters.iter().map(|(id, _, _)| id).collect();
        for id in ids {
            let Some(gradient) = gradients.get(id) else { bail!("a trained weight got no gradient") };
            let shape = parameters.get(id).shape().clone();
            let gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
            let mut values = parameters.get(id).flatten_all()?.to_vec1::<f32>()?;
            let decay = if shape.rank() > 1 { (1.0 - lr * weight_decay) as f32 } else { 1.0 };
            let (step_size, scale) = ((lr / correction1) as f32, gradient_scale as f32);
            let moments = self.first[id.index()].iter_mut().zip(&mut self.second[id.index()]);
            for ((value, gradient), (m, v)) in values.iter_mut().zip(gradient).zip(moments) {
                let g = gradient * scale;
                *m += (1.0 - beta1) as f32 * (g - *m);
                *v = beta2 as f32 * *v + (1.0 - beta2) as f32 * g * g;
                let denominator = v.sqrt() / correction2 as f32 + epsilon as f32;
                *value = *value * decay - step_size * *m / denominator;
            }
            parameters.set(id, Tensor::from_vec(values, shape, &Device::Cpu)?);
        }
        Ok(())
    }

    /// The state as named tensors, for a checkpoint.
    pub fn state(&self, parameters: &Parameters) -> Result<Vec<(String, Tensor)>> {
        let mut state = Vec::new();
        for (id, name, value) in parameters.iter() {
            for (kind, moments) in [("exp_avg", &self.first), ("exp_avg_sq", &self.second)] {
                let tensor = Tensor::from_vec(moments[id.index()].clone(), value.shape().clone(), &Device::Cpu)?;
                state.push((format!("{name}.{kind}"), tensor));
            }
        }
        Ok(state)
    }

    /// Puts a saved state back.
    pub fn restore(
        &mut self,
        n_steps: u64,
        parameters: &Parameters,
        mut take: impl FnMut(&str) -> Result<Tensor>,
    ) -> Result<()> {
        self.n_steps = n_steps;
        for (id, name, _) in parameters.iter() {
            self.first[id.index()] = take(&format!("{name}.exp_avg"))?.flatten_all()?.to_vec1()?;
            self.second[id.index()] = take(&format!("{name}.exp_avg_sq"))?.flatten_all()?.to_vec1()?;
        }
        Ok(())
    }
}
