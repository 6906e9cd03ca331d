//! A fine-tuning run from top to bottom: data, references, policy, step-0 check, steps, evaluations, checkpoints.

use std::{collections::BTreeMap, rc::Rc, time::Instant};

use candle_core::Device;

use super::{
    checkpoint::{self, LoopState},
    codecs::Codecs,
    hashed_files::sha256_of,
    join::Joiner,
    journal::Journal,
    prepare::{Part, Prepared, prepare},
    references::{Scores, check_digest, unusable},
    signal,
};
use crate::{
    domain::{
        Dtype, EvaluationPhase, Failure, FailureCode, Hyperparameters, Level, ModelInfo, Phase, RunEvent, TrainSpec,
        metric,
    },
    model::{Decoder, LoraShape, Tuning, Weights, generate_greedy, inspect},
    objective::{Diagnosis, PairInput, StepMetrics, diagnose, evaluate},
    run_dir::RunDir,
    text::Codec,
    train::{
        AdamW, AdamWSettings, Plan, Policy, StepError, TrainingPair, Weigher, epoch_order, evaluate_pairs,
        training_step,
    },
};

/// Longest sampled completion, in tokens.
const N_SAMPLE_TOKENS: usize = 48;

/// Log-probabilities of policy and base may differ by this much of their size at step 0: rounding, in another batch. (The
/// processor's kernels round the same in any batch; a GPU's do not.)
fn step_zero_tolerance(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::Float32 => 1e-3,
        Dtype::Bfloat16 => 5e-2,
    }
}

struct Session<'a> {
    run: &'a RunDir,
    spec: &'a TrainSpec,
    codec: Rc<Codec>,
    policy: Policy,
    training: Vec<TrainingPair>,
    validation: Vec<TrainingPair>,
    plan: Plan,
    state: LoopState,
}

/// Executes the run. Returns its last event.
pub(super) fn train(
    run: &RunDir,
    spec: &TrainSpec,
    device: &Device,
    journal: &mut Journal,
) -> anyhow::Result<RunEvent> {
    let base = spec.references.first().ok_or_else(|| Failure::new(FailureCode::InvalidSpec, "the spec has no base"))?;
    let settings = &spec.hyperparameters;
    journal.progress(Phase::Preparing, 0, 1, None)?;
    spec.references.iter().chain(&spec.earlier).try_for_each(check_digest)?;
    // Asked first: scoring against references that it does not go with would take hours for nothing.
    let training_file = sha256_of(&spec.training_file)?;
    let resumed = checkpoint::newest(run, spec, &training_file)?;
    let mut codecs = Codecs::default();
    let codec = codecs.of(base)?;
    let prepared = prepare(Part::Training, &codec, spec, journal)?;
    let held_out = prepare(Part::Validation, &codec, spec, journal)?;
    let all: Vec<&Prepared> = prepared.iter().chain(&held_out).collect();

    // The extra references first, one in memory at a time; the base is the policy before its first step.
    let mut scores = Scores::open(run, (spec, device), codecs, all, journal)?;
    let mut columns = Vec::new();
    for reference in spec.references[1..].iter().chain(&spec.earlier) {
        let Some(column) = scores.of(reference, None, journal)? else { return Ok(RunEvent::Stopped { step: 0 }) };
        columns.push(column);
    }
    let earlier = columns.split_off(spec.references.len() - 1);
    let mut policy = build_policy(spec, device)?;
    let Some(column) = scores.of(base, Some((&policy.decoder, &policy.parameters)), journal)? else {
        return Ok(RunEvent::Stopped { step: 0 });
    };
    columns.insert(0, column);
    scores.tell_total(journal)?;

    let references = spec.references.iter().map(|r| r.digest.clone()).collect();
    let joiner = Joiner { spec, columns, earlier };
    let pairs = joiner.join(prepared, 0);
    let validation = joiner.join(held_out, pairs.len());
    let plan = Plan::new(settings, pairs.len());
    policy.weigher = Weigher::new(&settings.objective, fixed_weights(spec), spec.references.len(), &validation);
    let weigher = policy.weigher.clone();
    let state = LoopState { step: 0, n_tokens: 0, references, training_file, weigher, newest: BTreeMap::new() };
    let mut session = Session { run, spec, codec, policy, training: pairs, validation, plan, state };
    match resumed {
        Some(state) => {
            checkpoint::restore(run, spec, state.step, &mut session.policy)?;
            session.policy.weigher = state.weigher.clone();
            journal.message(Level::Info, format!("resumed from the checkpoint at step {}", state.step))?;
            session.state = state;
        }
        None => {
            session.check_step_zero(journal)?;
            session.diagnose(journal)?;
        }
    }
    session.run_steps(journal)
}

impl Session<'_> {
    fn run_steps(&mut self, journal: &mut Journal) -> anyhow::Result<RunEvent> {
        let plan = self.plan;
        journal.progress(Phase::Training, self.state.step as usize, plan.n_steps as usize, None)?;
        if self.state.step == 0 {
            self.evaluate(EvaluationPhase::Before, journal)?;
            self.sample("before", journal)?;
        }
        // An earlier attempt may have died between writing the checkpoint and saying so.
        let mut model = if self.state.step > 0 { Some(self.announce(journal)?) } else { None };
        while self.state.step < plan.n_steps {
            let started = Instant::now();
            let (epoch_idx, range) = plan.position(self.state.step);
            let order = epoch_order(self.training.len(), self.spec.seed, epoch_idx);
            let batch: Vec<&TrainingPair> = order[range].iter().map(|i| &self.training[*i]).collect();
            let step = training_step(&mut self.policy, &batch, &self.validation, self.state.step, plan.n_steps);
            let mut values = match step {
                Err(StepError::NonFinite(message)) => {
                    return Err(Failure::new(FailureCode::NonFiniteLoss, message).into());
                }
                other => other?,
            };
            self.state.step += 1;
            self.state.weigher = self.policy.weigher.clone();
            self.state.n_tokens += batch.iter().map(|p| p.n_tokens() as u64).sum::<u64>();
            values.insert(metric::NUM_TOKENS.to_owned(), self.state.n_tokens as f64);
            values.insert(metric::EPOCH.to_owned(), self.state.step as f64 / plan.n_steps_per_epoch as f64);
            values.insert(metric::STEP_DURATION_MS.to_owned(), started.elapsed().as_secs_f64() * 1e3);
            // What was evaluated at an earlier step says nothing of the model as it is now.
            self.state.newest.retain(|name, _| !name.starts_with(metric::EVALUATED));
            self.state.newest.extend(values.clone());
            journal.say(RunEvent::Metrics { step: self.state.step, values })?;
            journal.progress(Phase::Training, self.state.step as usize, plan.n_steps as usize, None)?;
            let is_last = self.state.step == plan.n_steps;
            if is_last || self.state.step.is_multiple_of(plan.eval_every) {
                let phase = if is_last { EvaluationPhase::After } else { EvaluationPhase::During };
                self.evaluate(phase, journal)?;
            }
            let stop = signal::stop_requested() && !is_last;
            if is_last || stop || self.state.step.is_multiple_of(plan.checkpoint_every) {
                model = Some(self.save(journal)?);
            }
            if stop {
                return Ok(RunEvent::Stopped { step: self.state.step });
            }
        }
        self.sample("after", journal)?;
        if let Some(bytes) = peak_memory_bytes() {
            let message = format!("peak memory of the run: {} MiB", bytes >> 20);
            let data = Some(serde_json::json!({"peak_memory_bytes": bytes}));
            journal.say(RunEvent::Message { level: Level::Info, message, data })?;
        }
        Ok(RunEvent::Succeeded { model, n_trained_tokens: self.state.n_tokens })
    }

    fn evaluate(&mut self, phase: EvaluationPhase, journal: &mut Journal) -> anyhow::Result<()> {
        if self.validation.is_empty() {
            return Ok(());
        }
        let values = match evaluate_pairs(&self.policy, &self.validation) {
            Err(StepError::NonFinite(message)) => return Err(Failure::new(FailureCode::NonFiniteLoss, message).into()),
            other => other?,
        };
        self.state.newest.extend(values.iter().map(|(name, value)| (format!("{}{name}", metric::EVALUATED), *value)));
        journal.say(RunEvent::Evaluation { step: self.state.step, phase, values })
    }

    fn save(&self, journal: &mut Journal) -> anyhow::Result<ModelInfo> {
        checkpoint::write(self.run, self.spec, &self.policy, &self.codec, &self.state)?;
        self.announce(journal)
    }

    /// Tells of the checkpoint at this step. Returns the model it holds.
    fn announce(&self, journal: &mut Journal) -> anyhow::Result<ModelInfo> {
        let summary = checkpoint::summary(self.run, self.spec, &self.codec, &self.state)?;
        let model = summary.model.clone();
        journal.say(RunEvent::Checkpoint(summary))?;
        journal.sync()?;
        Ok(model)
    }

    /// Policy and base are the same model before the first step: the numbers must say so.
    fn check_step_zero(&self, journal: &mut Journal) -> anyhow::Result<()> {
        let sample = &self.training[..self.training.len().min(4)];
        let mut worst = 0f64;
        for pair in sample {
            let values = evaluate_pairs(&self.policy, std::slice::from_ref(pair))?;
            let base = pair.references[0].logps;
            for (name, base) in [(metric::LOGPS_CHOSEN, base.chosen), (metric::LOGPS_REJECTED, base.rejected)] {
                worst = worst.max((values[name] - base).abs() / base.abs().max(1.0));
            }
        }
        if worst > step_zero_tolerance(self.policy.settings.dtype) {
            let message = format!("at step 0 the policy and its base differ by {worst:.1e} of their log-probability");
            return Err(Failure::new(FailureCode::StepZeroMismatch, message).into());
        }
        let message = format!("step 0: policy and base agree (largest relative difference {worst:.1e})");
        let data = Some(serde_json::json!({"step_zero": {"largest_relative_difference": worst}}));
        journal.say(RunEvent::Message { level: Level::Info, message, data })
    }

    /// What the references' numbers say about them, before any training.
    fn diagnose(&self, journal: &mut Journal) -> anyhow::Result<()> {
        let Policy { settings, weigher, reference_names, .. } = &self.policy;
        let mut metrics = StepMetrics::new(reference_names.iter().cloned());
        for pairs in self.training.chunks(settings.batch_size) {
            let inputs: Vec<PairInput<'_>> = pairs.iter().map(TrainingPair::input_at_start).collect();
            let outcomes = evaluate(&settings.objective, &inputs, weigher.weights())?;
            inputs
                .iter()
                .zip(&outcomes)
                .for_each(|(input, outcome)| metrics.add(settings.objective.beta, input, outcome));
        }
        let values = metrics.values();
        for Diagnosis { reference, finding, message } in diagnose(reference_names, &values) {
            let data = serde_json::json!({"diagnosis": {"reference": reference, "finding": finding}});
            journal.say(RunEvent::Message { level: Level::Warn, message, data: Some(data) })?;
        }
        let loss = values[metric::LOSS];
        let message = format!("the loss of the training pairs begins at {loss:.4}");
        let data = Some(serde_json::json!({"at_start": values}));
        journal.say(RunEvent::Message { level: Level::Info, message, data })
    }

    /// What the model says to the first held-out prompt, for people to see.
    fn sample(&self, phase: &str, journal: &mut Journal) -> anyhow::Result<()> {
        let Some(pair) = self.validation.first() else { return Ok(()) };
        let Policy { decoder, parameters, .. } = &self.policy;
        let ids = generate_greedy(decoder, parameters, &pair.prompt, self.codec.eos_ids(), N_SAMPLE_TOKENS)?;
        let sample = serde_json::json!({"phase": phase, "prompt": self.codec.decode(&pair.prompt)?, "completion": self.codec.decode(&ids)?});
        let message = format!("a completion {phase} training, of the first held-out prompt");
        journal.say(RunEvent::Message {
            level: Level::Info,
            message,
            data: Some(serde_json::json!({"sample": sample})),
        })
    }
}

/// The most memory this process has had, as Linux counts it.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}

fn build_policy(spec: &TrainSpec, device: &Device) -> anyhow::Result<Policy> {
    let base = &spec.references[0];
    let settings: &Hyperparameters = &spec.hyperparameters;
    let facts = inspect(&base.location).map_err(|e| unusable(base, &e))?;
    let tuning = tuning(spec, &facts.architecture)?;
    let weights = Weights::load(&base.location, tuning.stored(settings.dtype))
        .and_then(|weights| weights.to_device(device))
        .map_err(|e| unusable(base, &e))?;
    let (decoder, parameters) = Decoder::new(weights, &tuning, settings.dtype).map_err(|e| unusable(base, &e))?;
    let optimizer = AdamWSettings {
        beta1: settings.adam_beta1,
        beta2: settings.adam_beta2,
        epsilon: settings.adam_epsilon,
        weight_decay: settings.weight_decay,
    };
    Ok(Policy {
        optimizer: AdamW::new(optimizer, &parameters)?,
        decoder,
        parameters,
        settings: settings.clone(),
        seed: spec.seed,
        reference_names: spec.references.iter().map(|r| r.model.to_string()).collect(),
        // Set anew once the pairs are scored.
        weigher: Weigher::new(&settings.objective, fixed_weights(spec), spec.references.len(), &[]),
    })
}

/// What of a base of this architecture is trained.
pub(super) fn tuning(spec: &TrainSpec, architecture: &str) -> Result<Tuning, Failure> {
    let Some(lora) = &spec.hyperparameters.lora else { return Ok(Tuning::Full) };
    let targets = lora.target_modules.of_architecture(architecture);
    Ok(Tuning::Lora {
        shape: LoraShape { rank: lora.rank, scale: lora.alpha / lora.rank as f64, dropout: lora.dropout },
        targets: targets.map_err(|message| Failure::new(FailureCode::InvalidSpec, message))?,
        seed: u64::from(spec.seed),
    })
}

/// The weights given with the references; all the same where a lone base has none.
pub(super) fn fixed_weights(spec: &TrainSpec) -> Vec<f64> {
    spec.references.iter().map(|r| r.weight.unwrap_or(1.0 / spec.references.len() as f64)).collect()
}
