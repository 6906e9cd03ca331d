//! What a job would take: memory from shapes, disk from counts, time from how fast the sample was scored.

use super::{
    super::{
        prepare::Prepared,
        references::{N_AT_ONCE, unusable},
        training::tuning,
    },
    data::Data,
    models::{Local, Model},
    sample::Sample,
};
use crate::{
    domain::{
        CheckpointBytes, DiskEstimate, DryRunPhase, DryRunSpec, KeptCount, MemoryEstimate, MemoryPhase, ScoringTime,
        TimeEstimate,
    },
    model::{Footprint, device::activation_budget},
    run_dir::{RunDir, free_disk_bytes},
    train::Plan,
};

/// A peak fits where this part of it is free besides: estimates have been a seventh too low.
const SPARE_PART: u64 = 4;

/// All that an estimate stands on.
pub(super) struct Costs<'a> {
    pub(super) spec: &'a DryRunSpec,
    pub(super) models: &'a [Model<'a>],
    pub(super) data: &'a Data,
    pub(super) kept: &'a [KeptCount],
    pub(super) sample: &'a Sample,
}

/// What a model takes while the job scores: its weights, and the activations of the largest batch.
pub(super) fn scoring_bytes(local: &Local, data: &Data) -> u64 {
    local.footprint.weights_bytes() + local.footprint.scoring_bytes(largest_batch(local, data))
}

fn largest_batch(local: &Local, data: &Data) -> u64 {
    let n_measured = data.files().map(|file| file.n_measured).sum();
    let lengths: Vec<usize> = local.lengths.iter().flatten().take(n_measured).map(|pair| pair.n_tokens).collect();
    lengths.chunks(N_AT_ONCE).map(|batch| batch.iter().sum::<usize>()).max().unwrap_or(0) as u64
}

impl Costs<'_> {
    /// Memory; `free_bytes` is what this machine had before the sample was taken.
    pub(super) fn memory(&self, program_bytes: u64, free_bytes: Option<u64>) -> anyhow::Result<MemoryEstimate> {
        let mut phases = Vec::new();
        for (model, kept) in self.models.iter().zip(self.kept).skip(1) {
            let Some(local) = &model.local else { continue };
            if kept.n_kept < kept.n_needed {
                phases.push(with_total(MemoryPhase {
                    phase: DryRunPhase::Scoring,
                    model: model.reference.model.clone(),
                    program_bytes,
                    weights_bytes: local.footprint.weights_bytes(),
                    adapter_bytes: 0,
                    optimizer_bytes: 0,
                    activations_bytes: local.footprint.scoring_bytes(largest_batch(local, self.data)),
                    total_bytes: 0,
                }));
            }
        }
        phases.push(self.training_phase(program_bytes)?);
        let peak_bytes = phases.iter().map(|phase| phase.total_bytes).max().unwrap_or(0);
        let available_bytes = free_bytes.filter(|_| self.is_on_cpu());
        let fits = available_bytes.map(|available| peak_bytes + peak_bytes / SPARE_PART <= available);
        Ok(MemoryEstimate { device: self.spec.device.clone(), phases, peak_bytes, available_bytes, fits })
    }

    /// The base is scored with the policy, before its first step.
    fn training_phase(&self, program_bytes: u64) -> anyhow::Result<MemoryPhase> {
        let footprint = self.policy()?;
        let (_, n_trained) = footprint.n_trained();
        let (for_training, _) = footprint.training_bytes(self.micro_batch_tokens(), self.budget()?);
        let for_scoring = self.base().map_or(0, |local| footprint.scoring_bytes(largest_batch(local, self.data)));
        Ok(with_total(MemoryPhase {
            phase: DryRunPhase::Training,
            model: self.models[0].reference.model.clone(),
            program_bytes,
            weights_bytes: footprint.weights_bytes(),
            adapter_bytes: if self.settings().lora.is_some() { 4 * n_trained } else { 0 },
            optimizer_bytes: 3 * 4 * n_trained,
            activations_bytes: for_training.max(for_scoring),
            total_bytes: 0,
        }))
    }

    /// Disk of the checkpoints.
    pub(super) fn disk(&self, run: &RunDir) -> anyhow::Result<DiskEstimate> {
        let footprint = self.policy()?;
        let (n_tensors, n_trained) = footprint.n_trained();
        let vocab_size = self.base().map_or(0, |local| local.facts.vocab_size);
        let one = CheckpointBytes::of(n_tensors, n_trained, self.settings().lora.is_none().then_some(vocab_size));
        let n_checkpoints = self.settings().n_checkpoints(self.plan().n_steps);
        let n_at_once = self.spec.retention.most_at_once(n_checkpoints);
        let (checkpoint_bytes, total_bytes) = (one.whole(), one.most(&self.spec.retention, n_checkpoints));
        let free_bytes = free_disk_bytes(run.root())?;
        let fits = total_bytes <= free_bytes;
        Ok(DiskEstimate { checkpoint_bytes, n_checkpoints, n_at_once, total_bytes, free_bytes, fits })
    }

    /// Time, from the seconds per token that each model took for the sample.
    pub(super) fn time(&self) -> TimeEstimate {
        let plan = self.plan();
        let n_tokens = self.n_policy_tokens(true) * u64::from(self.settings().n_epochs);
        let of_base = if self.is_on_cpu() { self.seconds_per_token(0) } else { None };
        let factor = self.training_factor();
        let training_seconds = of_base.map(|seconds| seconds * factor * n_tokens as f64);
        let n_evaluations = 1 + plan.n_steps.div_ceil(plan.eval_every);
        let n_validation = n_evaluations * self.n_policy_tokens(false);
        let evaluation_seconds = of_base.map(|seconds| seconds * n_validation as f64);
        let scoring: Vec<ScoringTime> = (0..self.models.len()).filter_map(|i| self.scoring_time(i)).collect();
        let scored: Option<f64> = scoring.iter().map(|time| time.seconds).sum();
        let total_seconds = training_seconds.zip(evaluation_seconds).zip(scored).map(|((a, b), c)| a + b + c);
        TimeEstimate {
            n_pairs: self.n_pairs() as u64,
            n_steps: plan.n_steps,
            n_tokens,
            scoring,
            training_seconds,
            evaluation_seconds,
            total_seconds,
            basis: self.basis(of_base, factor),
        }
    }

    fn basis(&self, of_base: Option<f64>, factor: f64) -> String {
        if !self.is_on_cpu() {
            return "the job would run on a GPU, and a dry run takes none of its time: nothing is known of it"
                .to_owned();
        }
        let Some(seconds) = of_base else {
            return "no model could be timed: none was small enough for the sample, or no pair is left".to_owned();
        };
        format!(
            "an estimate: scoring the sample took the base {:.3} ms per token on this machine as busy as it was; a step is \
             reckoned as {factor:.0} times that per token",
            1e3 * seconds
        )
    }

    fn scoring_time(&self, i: usize) -> Option<ScoringTime> {
        let (model, kept) = (&self.models[i], self.kept[i]);
        let local = model.local.as_ref()?;
        let files = self.data.files().zip(&local.lengths);
        let n_all: u64 = files.map(|(file, lengths)| file.of_all(lengths.iter().map(|pair| pair.n_tokens).sum())).sum();
        let missing = (kept.n_needed - kept.n_kept) as f64 / kept.n_needed.max(1) as f64;
        let n_tokens = (n_all as f64 * missing).round() as u64;
        if n_tokens == 0 {
            return None;
        }
        // The policy is loaded in any case: it is counted where it is scored.
        let load_seconds = self.sample.of_models[i].speed.map_or(0.0, |speed| speed.load_seconds);
        let seconds = self.seconds_per_token(i).filter(|_| self.is_on_cpu());
        let seconds = seconds.map(|seconds| load_seconds + seconds * n_tokens as f64);
        Some(ScoringTime { model: model.reference.model.clone(), n_tokens, seconds })
    }

    /// Of a model; of one that was not timed, by its number of weights beside one that was.
    fn seconds_per_token(&self, i: usize) -> Option<f64> {
        let speed = |i: usize| self.sample.of_models[i].speed.map(|speed| speed.seconds_per_token);
        let n_parameters = |i: usize| self.models[i].local.as_ref().map(|local| local.facts.n_parameters as f64);
        speed(i).or_else(|| {
            let other = (0..self.models.len()).find(|other| speed(*other).is_some())?;
            Some(speed(other)? * n_parameters(i)? / n_parameters(other)?)
        })
    }

    /// What a step's token costs, in forward passes: there and back; the gradients of weights; blocks that are computed again.
    fn training_factor(&self) -> f64 {
        let full = if self.settings().lora.is_none() { 1.0 } else { 0.0 };
        let again = self
            .policy()
            .and_then(|footprint| Ok(footprint.training_bytes(self.micro_batch_tokens(), self.budget()?).1));
        2.0 + full + if again.unwrap_or(false) { 1.0 } else { 0.0 }
    }

    fn policy(&self) -> anyhow::Result<Footprint> {
        let base = self.models[0].reference;
        let architecture = self.base().map_or("", |local| &local.facts.architecture);
        let tuning = tuning(&self.spec.train, architecture)?;
        let footprint = Footprint::of(&base.location, tuning, self.settings().dtype, self.is_on_cpu());
        Ok(footprint.map_err(|e| unusable(base, &e))?)
    }

    /// Tokens of the largest micro-batch: as many as are allowed, or as a batch can have; one long pair stands alone.
    fn micro_batch_tokens(&self) -> u64 {
        let longest = self.data.training.prepared.iter().map(Prepared::n_tokens).max().unwrap_or(0);
        let settings = self.settings();
        longest.max(settings.micro_batch_tokens.min(settings.batch_size * longest)) as u64
    }

    /// Bytes of activations that are kept on the processor.
    fn budget(&self) -> anyhow::Result<Option<u64>> {
        if self.is_on_cpu() { Ok(Some(activation_budget(&candle_core::Device::Cpu)? as u64)) } else { Ok(None) }
    }

    /// Tokens of one pass over the training file, or the validation file.
    fn n_policy_tokens(&self, of_training: bool) -> u64 {
        let file = if of_training { Some(&self.data.training) } else { self.data.validation.as_ref() };
        file.map_or(0, |file| file.of_all(file.prepared.iter().map(Prepared::n_tokens).sum()))
    }

    fn n_pairs(&self) -> usize {
        self.data.training.of_all(self.data.training.prepared.len()) as usize
    }

    fn plan(&self) -> Plan {
        Plan::new(self.settings(), self.n_pairs())
    }

    fn base(&self) -> Option<&Local> {
        self.models[0].local.as_ref()
    }

    fn settings(&self) -> &crate::domain::Hyperparameters {
        &self.spec.train.hyperparameters
    }

    fn is_on_cpu(&self) -> bool {
        self.spec.device == "cpu"
    }
}

fn with_total(phase: MemoryPhase) -> MemoryPhase {
    let MemoryPhase { program_bytes, weights_bytes, adapter_bytes, optimizer_bytes, activations_bytes, .. } = phase;
    let total_bytes = program_bytes + weights_bytes + adapter_bytes + optimizer_bytes + activations_bytes;
    MemoryPhase { total_bytes, ..phase }
}
