//! How fast a device is: its products, its attention, and steps of whole models.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Result};

use super::{
    Finding,
    training::{Training, lora, push_pair, shape},
};
use crate::{
    domain::{Dtype, TargetModule},
    model::{
        ModelConfig, Purpose, Tuning, device,
        layout::Packed,
        noise,
        ops::{AttentionShape, Compute, Factor, Heads, operation_times, time_operations},
    },
};

/// Each figure is the mean of at least this long, and of at most so many calls.
const LONG_ENOUGH: Duration = Duration::from_millis(500);
const MOST_CALLS: u32 = 200;
/// Share of the free memory that a model with all it needs may take.
const MEMORY_SHARE: f64 = 0.8;
/// Of a pair whose steps are timed.
const PROMPT: usize = 256;
const COMPLETION: usize = 129;

/// A model's shape, by the name of one that has it.
struct Model {
    name: &'static str,
    config: ModelConfig,
}

fn models() -> Result<[Model; 3]> {
    let heads = |query, key_value, size| Heads { query, key_value, size };
    Ok([
        Model { name: "SmolLM2-135M", config: shape(30, (576, 1536), heads(9, 3, 64), 49_152)? },
        Model { name: "Llama-3.2-1B", config: shape(16, (2048, 8192), heads(32, 8, 64), 128_256)? },
        Model { name: "Llama-2-7B", config: shape(32, (4096, 11_008), heads(32, 32, 128), 32_000)? },
    ])
}

/// Seconds of a call, on a device that may still be working when it returns.
fn seconds(device: &Device, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    call()?;
    device.synchronize()?;
    let (begin, mut n) = (Instant::now(), 0);
    while n < MOST_CALLS && (n == 0 || begin.elapsed() < LONG_ENOUGH) {
        // A few at a time: waiting for each would show the program's time beside the device's.
        for _ in 0..if begin.elapsed() * 4 < LONG_ENOUGH && n > 0 { 4 } else { 1 } {
            call()?;
            n += 1;
        }
        device.synchronize()?;
    }
    Ok(begin.elapsed().as_secs_f64() / f64::from(n))
}

/// Measures everything that fits the device.
pub(super) fn measure(device: &Device, tell: &mut dyn FnMut(&Finding)) -> Result<()> {
    let is_gpu = device::memory(device)?.is_some();
    let models = models()?;
    for dtype in [Dtype::Bfloat16, Dtype::Float32] {
        for model in &models[..if is_gpu { 3 } else { 1 }] {
            products(device, dtype, &model.config, if is_gpu { 4096 } else { 768 }, tell)?;
        }
        let lengths: &[(usize, usize)] = if is_gpu { &[(512, 32), (4096, 4)] } else { &[(512, 2), (2048, 1)] };
        for (n_tokens, n_sequences) in lengths {
            attention(device, dtype, *n_tokens, *n_sequences, tell)?;
        }
    }
    for model in &models {
        if !is_gpu && model.name != models[0].name {
            tell(&Finding::LeftOut { what: format!("steps of {}: it would take the processor minutes", model.name) });
            continue;
        }
        let is_small = model.name == models[0].name;
        let lora = ("lora", lora(&[TargetModule::QProj, TargetModule::VProj]));
        step(device, model, &lora, Dtype::Bfloat16, tell)?;
        if is_small || is_gpu {
            step(device, model, &lora, Dtype::Float32, tell)?;
        }
        step(device, model, &("full", Tuning::Full), Dtype::Bfloat16, tell)?;
    }
    // Last: from here on every operation is waited for.
    time_operations();
    for model in &models[..if is_gpu { 3 } else { 1 }] {
        let tuning = lora(&[TargetModule::QProj, TargetModule::VProj]);
        if !fits(device, model, &tuning, Dtype::Bfloat16)? {
            continue;
        }
        let mut training = Training::new(model.config.clone(), &tuning, Dtype::Bfloat16, device)?;
        let batch = batch(&model.config, is_gpu);
        training.step(&batch)?;
        drop(operation_times());
        training.step(&batch)?;
        tell(&Finding::Operations { model: model.name, table: operation_times().unwrap_or_default() });
    }
    Ok(())
}

/// The products of a block, forward, and of the head.
fn products(
    device: &Device,
    dtype: Dtype,
    config: &ModelConfig,
    n_tokens: usize,
    tell: &mut dyn FnMut(&Finding),
) -> Result<()> {
    let compute = Compute::new(device, dtype)?;
    let (d, i) = (config.hidden_size, config.intermediate_size);
    for [m, k, n] in [[n_tokens, d, d], [n_tokens, d, i], [n_tokens, i, d], [n_tokens / 4, d, config.vocab_size]] {
        let x = noise(&[m, k], 1)?.to_device(device)?.to_dtype(compute.activations())?;
        let w = noise(&[n, k], 2)?.to_device(device)?;
        let w = if dtype == Dtype::Bfloat16 { w.to_dtype(DType::BF16)? } else { w };
        let seconds = seconds(device, || {
            compute.sum(m, n)?.add(Factor::Plain(&x), Factor::Transposed(&w), 1.0)?.into_tensor().map(drop)
        })?;
        let tflop_per_second = 2.0 * (m * k) as f64 * n as f64 / seconds / 1e12;
        tell(&Finding::Product { shape: [m, k, n], dtype, microseconds: seconds * 1e6, tflop_per_second });
    }
    Ok(())
}

fn attention(
    device: &Device,
    dtype: Dtype,
    n_tokens: usize,
    n_sequences: usize,
    tell: &mut dyn FnMut(&Finding),
) -> Result<()> {
    let heads = Heads { query: 32, key_value: 8, size: 64 };
    let (shape, compute) = (AttentionShape::plain(heads, dtype), Compute::new(device, dtype)?);
    let mut batch = Packed::default();
    for _ in 0..n_sequences {
        batch.push(&vec![0; n_tokens], &[&[0]]);
    }
    let activations = |width: usize, seed| {
        noise(&[batch.tokens.len(), width], seed)?.to_device(device)?.to_dtype(compute.activations())
    };
    let (joined, d_output) = (activations(heads.joined_width(), 1)?, activations(heads.q_width(), 2)?);
    let seconds = seconds(device, || {
        let kept = compute.attention(&joined, &batch.sequences, shape)?;
        compute.attention_backward(&d_output, &joined, &kept, &batch.sequences, shape).map(drop)
    })?;
    let products = 7.0 * n_sequences as f64 * (n_tokens as f64).powi(2) * heads.q_width() as f64;
    tell(&Finding::Attention {
        n_tokens,
        n_sequences,
        dtype,
        milliseconds: seconds * 1e3,
        tflop_per_second: products / seconds / 1e12,
    });
    Ok(())
}

/// 16 pairs on a GPU, two on a processor: what a micro-batch of the defaults holds.
fn batch(config: &ModelConfig, is_gpu: bool) -> Packed {
    let mut batch = Packed::default();
    for _ in 0..if is_gpu { 16 } else { 2 } {
        push_pair(&mut batch, config.vocab_size, PROMPT, [COMPLETION; 2]);
    }
    batch
}

/// Whether weights, gradients and moments leave room for the rest.
fn fits(device: &Device, model: &Model, tuning: &Tuning, dtype: Dtype) -> Result<bool> {
    let Some(memory) = device::memory(device)? else { return Ok(true) };
    let of_weight = match (tuning, dtype) {
        (Tuning::Full, _) => 4 * 4,
        (_, Dtype::Float32) => 4,
        (_, Dtype::Bfloat16) => 2,
    };
    Ok((model.config.n_parameters() * of_weight) as f64 <= MEMORY_SHARE * memory.free as f64)
}

fn step(
    device: &Device,
    model: &Model,
    (name, tuning): &(&'static str, Tuning),
    dtype: Dtype,
    tell: &mut dyn FnMut(&Finding),
) -> Result<()> {
    if !fits(device, model, tuning, dtype)? {
        tell(&Finding::LeftOut {
            what: format!("steps of {}, {name}, {dtype:?}: the memory is too small", model.name),
        });
        return Ok(());
    }
    let is_gpu = device::memory(device)?.is_some();
    let mut training = Training::new(model.config.clone(), tuning, dtype, device)?;
    let batch = batch(&model.config, is_gpu);
    let n_tokens = batch.tokens.len();
    let of_step = seconds(device, || training.step(&batch))?;
    let of_scoring =
        seconds(device, || training.decoder.forward(&batch, &training.parameters, Purpose::Score).map(drop))?;
    tell(&Finding::Step {
        model: model.name,
        tuning: name,
        dtype,
        n_tokens,
        milliseconds: of_step * 1e3,
        tokens_per_second: n_tokens as f64 / of_step,
        scored_tokens_per_second: n_tokens as f64 / of_scoring,
        memory_bytes: device::memory(device)?.map(|memory| memory.most_used),
    });
    Ok(())
}
