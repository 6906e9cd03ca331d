//! How much disk a job's checkpoints take: the one rule of dry runs, which know the shapes, and of the queue, which must decide before a
//! process is started.

use super::{Hyperparameters, JobSpec, ModelInfo, Retention, TargetModules};

/// What a tensor takes in the header of a file: its name, type, shape and place.
const HEADER_BYTES: u64 = 150;
/// What a checkpoint's small files take.
const SMALL_FILES_BYTES: u64 = 8 << 10;
/// What an entry of a vocabulary takes in a tokenizer's file.
const VOCABULARY_ENTRY_BYTES: u64 = 64;
/// Numbers that LoRA trains for each rank and each kind of layer, for the square root of the number of parameters: layers × width is
/// about 1.5 of it (`memory.rs`), and a layer has about 2.6 widths of inputs and outputs.
const NUMBERS_PER_RANK_AND_ROOT: f64 = 4.0;
/// Kinds of linear layers of a block, where it is not known which are trained.
const N_KINDS_OF_LAYERS: usize = 7;

/// What one checkpoint takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointBytes {
    /// The model: adapter or weights, and what belongs to them.
    pub model: u64,
    /// What the run goes on from: the optimizer's two moments.
    pub resume_state: u64,
}

impl CheckpointBytes {
    /// Of so many trained tensors with so many numbers; `vocab_size` where a tokenizer lies beside them.
    pub fn of(n_tensors: u64, n_trained: u64, vocab_size: Option<u64>) -> Self {
        let values = n_trained.saturating_mul(4).saturating_add(HEADER_BYTES.saturating_mul(n_tensors));
        let beside = VOCABULARY_ENTRY_BYTES.saturating_mul(vocab_size.unwrap_or(0)).saturating_add(SMALL_FILES_BYTES);
        Self { model: values.saturating_add(beside), resume_state: values.saturating_mul(2) }
    }

    /// All of it.
    pub fn whole(self) -> u64 {
        self.model.saturating_add(self.resume_state)
    }

    /// The most that a job's checkpoints take at once. Of all but the newest only the model stays, but the one before is whole until
    /// the newest is.
    pub fn most(self, retention: &Retention, n_checkpoints: u64) -> u64 {
        let models = self.model.saturating_mul(retention.most_at_once(n_checkpoints));
        models.saturating_add(self.resume_state.saturating_mul(n_checkpoints.min(2)))
    }
}

impl Hyperparameters {
    /// Optimizer steps for so many pairs: the last of an epoch takes what is left.
    pub fn n_steps(&self, n_pairs: u64) -> u64 {
        n_pairs.div_ceil(self.batch_size as u64).saturating_mul(u64::from(self.n_epochs))
    }

    /// A checkpoint is written every so many of these steps, and at the end.
    pub fn checkpoint_every(&self, n_steps: u64) -> u64 {
        self.checkpoint_every_n_steps.unwrap_or(n_steps.div_ceil(4).max(1))
    }

    /// Checkpoints of a run with so many steps.
    pub fn n_checkpoints(&self, n_steps: u64) -> u64 {
        n_steps.div_ceil(self.checkpoint_every(n_steps))
    }
}

/// What a job's checkpoints take at most, told from counts alone.
pub fn needed_disk_bytes(spec: &JobSpec, base: &ModelInfo, n_pairs: u64) -> u64 {
    disk_bytes_after(spec, base, n_pairs, 0)
}

/// The same of the checkpoints that are still to be written when so many steps are done.
pub fn disk_bytes_after(spec: &JobSpec, base: &ModelInfo, n_pairs: u64, n_steps_done: u64) -> u64 {
    let settings = &spec.hyperparameters;
    let n_steps = settings.n_steps(n_pairs);
    let n_written = n_steps_done / settings.checkpoint_every(n_steps);
    let n_left = settings.n_checkpoints(n_steps).saturating_sub(n_written);
    one_checkpoint(settings, base).most(&spec.retention, n_left)
}

fn one_checkpoint(settings: &Hyperparameters, base: &ModelInfo) -> CheckpointBytes {
    let Some(lora) = &settings.lora else {
        return CheckpointBytes::of(0, base.n_parameters, Some(base.vocab_size));
    };
    let n_kinds = match &lora.target_modules {
        TargetModules::Listed(targets) => targets.len(),
        TargetModules::ByArchitecture(_) => N_KINDS_OF_LAYERS,
    };
    let per_kind = NUMBERS_PER_RANK_AND_ROOT * (base.n_parameters as f64).sqrt() * lora.rank as f64;
    CheckpointBytes::of(0, (per_kind * n_kinds as f64) as u64, None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mistral() -> ModelInfo {
        ModelInfo { vocab_size: 32_000, ..ModelInfo::for_tests(7_241_732_096) }
    }

    #[test]
    fn what_is_kept_and_what_is_trained_decide() {
        // PEFT trains 20 971 520 numbers of Mistral-7B with rank 8 on all linear layers.
        let all = json!(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]);
        let mut lora = JobSpec::for_tests(
            json!({"batch_size": 10, "checkpoint_every_n_steps": 10, "lora": {"rank": 8, "target_modules": all}}),
        );
        let (model, whole) = (4 * 20_971_520, 3 * 4 * 20_971_520);
        let close = |found: u64, expected: u64| (0.8..1.3).contains(&(found as f64 / expected as f64));
        let needed = |spec: &JobSpec, n_pairs| needed_disk_bytes(spec, &mistral(), n_pairs);
        assert!(close(needed(&lora, 100), whole), "{}", needed(&lora, 100));
        assert!(close(needed(&lora, 1000), 2 * whole + 8 * model), "{}", needed(&lora, 1000));
        lora.retention.keep_last = Some(1);
        assert!(close(needed(&lora, 1000), 2 * whole), "{}", needed(&lora, 1000));
        assert!(close(disk_bytes_after(&lora, &mistral(), 1000, 95), whole));
        let full = JobSpec::for_tests(json!({"lora": null}));
        assert!(close(needed(&full, 8), 12 * mistral().n_parameters));
        assert_eq!(needed(&full, 0), 0);
        let endless = JobSpec::for_tests(json!({"lora": null, "checkpoint_every_n_steps": 1}));
        assert_eq!(needed_disk_bytes(&endless, &ModelInfo::for_tests(u64::MAX / 8), u64::MAX), u64::MAX);
    }
}
