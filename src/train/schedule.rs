//! How many steps a run has, and the learning rate of each (transformers' schedules, step for step).

use crate::domain::{Hyperparameters, LrSchedule};

/// A run's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Pairs per epoch.
    pub n_pairs: usize,
    /// Pairs per step; the last step of an epoch takes what is left.
    pub batch_size: usize,
    /// Steps per epoch.
    pub n_steps_per_epoch: u64,
    /// Steps in all.
    pub n_steps: u64,
    /// The validation set is evaluated every so many steps.
    pub eval_every: u64,
    /// A checkpoint is written every so many steps.
    pub checkpoint_every: u64,
}

impl Plan {
    /// The plan of these settings for so many pairs.
    pub fn new(settings: &Hyperparameters, n_pairs: usize) -> Self {
        let n_steps_per_epoch = n_pairs.div_ceil(settings.batch_size) as u64;
        let n_steps = settings.n_steps(n_pairs as u64);
        let quarter = n_steps.div_ceil(4).max(1);
        Self {
            n_pairs,
            batch_size: settings.batch_size,
            n_steps_per_epoch,
            n_steps,
            eval_every: settings.eval_every_n_steps.unwrap_or(quarter),
            checkpoint_every: settings.checkpoint_every(n_steps),
        }
    }

    /// Epoch and place in its order of the step after `n_done` steps.
    pub fn position(&self, n_done: u64) -> (u32, std::ops::Range<usize>) {
        let start = (n_done % self.n_steps_per_epoch) as usize * self.batch_size;
        ((n_done / self.n_steps_per_epoch) as u32, start..(start + self.batch_size).min(self.n_pairs))
    }
}

/// Learning rate of the step after `n_done` of `n_steps` steps.
pub fn learning_rate(settings: &Hyperparameters, n_done: u64, n_steps: u64) -> f64 {
    let n_warmup = (n_steps as f64 * settings.warmup_ratio).ceil();
    let done = n_done as f64;
    let factor = if done < n_warmup {
        done / n_warmup.max(1.0)
    } else {
        let share = (done - n_warmup) / (n_steps as f64 - n_warmup).max(1.0);
        match settings.lr_schedule {
            LrSchedule::Constant => 1.0,
            LrSchedule::Linear => 1.0 - share,
            LrSchedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * share).cos()),
        }
    };
    settings.learning_rate * factor
}
