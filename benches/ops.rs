//! `cargo bench`: products of a model's shapes against candle's, each fused operation against candle's unfused, and one step.
//!
//! Shapes are SmolLM2-135M's, 768 tokens (one micro-batch). Numbers of a busy machine mean nothing: compare within one run.
#![expect(clippy::disallowed_methods, reason = "candle's autograd is what is compared with")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up should say so and stop")]

use std::{hint::black_box, time::Duration};

use candle_core::{D, DType, Device, Tensor, Var};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mrpo::{
    domain::Dtype,
    model::{
        layout::Packed,
        ops::{Activation, AttentionShape, Compute, Factor, Head, Heads, LogitShape, RopeTable},
    },
};

const TOKENS: usize = 768;
const WIDTH: usize = 576;
const INNER: usize = 1536;
const VOCABULARY: usize = 49_152;
const HEADS: Heads = Heads { query: 9, key_value: 3, size: 64 };

fn random(shape: impl Into<candle_core::Shape>) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
}

fn compute(dtype: Dtype) -> Compute {
    Compute::new(&Device::Cpu, dtype).unwrap()
}

/// x·Wᵀ, as the forward pass has it; W stored as the product is computed.
fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("product");
    let shapes = [(TOKENS, WIDTH, WIDTH), (TOKENS, WIDTH, INNER), (TOKENS, INNER, WIDTH), (168, WIDTH, VOCABULARY)];
    for (m, k, n) in shapes {
        let (x, w) = (random((m, k)), random((n, k)));
        // Elements per second are multiplications and additions per second.
        group.throughput(Throughput::Elements((2 * m * k * n) as u64));
        let shape = format!("{m}x{k}x{n}");
        group.bench_function(BenchmarkId::new("candle float32", &shape), |b| {
            let transposed = w.t().unwrap();
            b.iter(|| x.matmul(&transposed).unwrap());
        });
        for dtype in [Dtype::Float32, Dtype::Bfloat16] {
            let compute = compute(dtype);
            let w = if dtype == Dtype::Bfloat16 { w.to_dtype(DType::BF16).unwrap() } else { w.clone() };
            group.bench_function(BenchmarkId::new(format!("mrpo {dtype:?}").to_lowercase(), &shape), |b| {
                let product = || compute.sum(m, n)?.add(Factor::Plain(&x), Factor::Transposed(&w), 1.0)?.into_tensor();
                b.iter(|| product().unwrap());
            });
        }
    }
}

/// Root-mean-square normalisation, forward and backward.
fn rms_norm(c: &mut Criterion) {
    let mut group = c.benchmark_group("rms_norm forward and backward");
    let (x, w, dy) = (random((TOKENS, WIDTH)), random(WIDTH), random((TOKENS, WIDTH)));
    group.bench_function("candle", |b| {
        let x = Var::from_tensor(&x).unwrap();
        let norm = || {
            let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + 1e-5)?.sqrt()?;
            (x.broadcast_div(&scale)?.broadcast_mul(&w)? * &dy)?.sum_all()?.backward()
        };
        b.iter(|| norm().unwrap());
    });
    let compute = compute(Dtype::Float32);
    group.bench_function("mrpo", |b| {
        let norm = || {
            let (y, inverse) = compute.rms_norm(&x, &w, 1e-5)?;
            black_box(y);
            compute.rms_norm_backward(&dy, &x, &w, &inverse, None)
        };
        b.iter(|| norm().unwrap());
    });
}

/// SiLU(gate) ⊙ up, forward and backward.
fn gated(c: &mut Criterion) {
    let mut group = c.benchmark_group("gated SiLU forward and backward");
    let (gate, up, dy) = (random((TOKENS, INNER)), random((TOKENS, INNER)), random((TOKENS, INNER)));
    group.bench_function("candle", |b| {
        let (gate, up) = (Var::from_tensor(&gate).unwrap(), Var::from_tensor(&up).unwrap());
        let gated = || ((gate.silu()? * up.as_tensor())? * &dy)?.sum_all()?.backward();
        b.iter(|| gated().unwrap());
    });
    let compute = compute(Dtype::Float32);
    group.bench_function("mrpo", |b| {
        let gated = || {
            black_box(compute.gated(&gate, &up, Activation::Silu)?);
            compute.gated_backward(&dy, &gate, &up, Activation::Silu)
        };
        b.iter(|| gated().unwrap());
    });
}

/// Four pairs of 192 tokens: a prompt of 96, two completions of 48.
fn batch() -> Packed {
    let mut batch = Packed::default();
    for i in 0..4 {
        let text =
            |n: usize, seed: usize| (0..n).map(|j| ((i * 977 + j * 31 + seed) % VOCABULARY) as u32).collect::<Vec<_>>();
        batch.push(&text(96, 1), &[&text(49, 2), &text(49, 3)]);
    }
    batch
}

/// Causal attention of one sequence of 768 tokens, forward and backward.
fn attention(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention forward and backward, 768 tokens");
    let mut one = Packed::default();
    one.push(&vec![1; TOKENS], &[&[1]]);
    let joined = random((TOKENS, HEADS.joined_width()));
    let d_output = random((TOKENS, HEADS.q_width()));
    group.bench_function("candle", |b| {
        let shape = (HEADS.query, TOKENS, HEADS.size);
        let [q, k, v, dy] = [0, 1, 2, 3].map(|_| Var::from_tensor(&random(shape)).unwrap());
        let mask =
            (0..TOKENS * TOKENS).map(|i| if i % TOKENS > i / TOKENS { f32::NEG_INFINITY } else { 0.0 }).collect();
        let mask = Tensor::from_vec(mask, (1, TOKENS, TOKENS), &Device::Cpu).unwrap();
        let attention = || {
            let scores = (q.matmul(&k.t()?)? * 0.125)?.broadcast_add(&mask)?;
            let e = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
            let weights = e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?;
            (weights.matmul(&v)? * dy.as_tensor().detach())?.sum_all()?.backward()
        };
        b.iter(|| attention().unwrap());
    });
    for dtype in [Dtype::Float32, Dtype::Bfloat16] {
        let compute = compute(dtype);
        group.bench_function(format!("mrpo {dtype:?}").to_lowercase(), |b| {
            let attention = || {
                let kept = compute.attention(&joined, &one.sequences, AttentionShape::plain(HEADS, dtype))?;
                compute.attention_backward(
                    &d_output,
                    &joined,
                    &kept,
                    &one.sequences,
                    AttentionShape::plain(HEADS, dtype),
                )
            };
            b.iter(|| attention().unwrap());
        });
    }
    let (dtype, compute) = (Dtype::Bfloat16, compute(Dtype::Bfloat16));
    let pairs = batch();
    let joined = random((pairs.tokens.len(), HEADS.joined_width()));
    let d_output = random((pairs.tokens.len(), HEADS.q_width()));
    group.bench_function("mrpo bfloat16, as four pairs with shared prompts", |b| {
        let attention = || {
            let kept = compute.attention(&joined, &pairs.sequences, AttentionShape::plain(HEADS, dtype))?;
            compute.attention_backward(&d_output, &joined, &kept, &pairs.sequences, AttentionShape::plain(HEADS, dtype))
        };
        b.iter(|| attention().unwrap());
    });
}

/// Joining q, k and v and turning them, and back.
fn rope(c: &mut Criterion) {
    let mut group = c.benchmark_group("rope forward and backward");
    let frequencies: Vec<f32> = (0..32).map(|i| 10_000f32.powf(-(i as f32) / 32.0)).collect();
    let positions: Vec<u32> = (0..TOKENS as u32).collect();
    let table = RopeTable::new(&positions, &frequencies, &Device::Cpu).unwrap();
    let (q, k, v) = (random((TOKENS, 576)), random((TOKENS, 192)), random((TOKENS, 192)));
    let compute = compute(Dtype::Float32);
    group.bench_function("mrpo", |b| {
        let turn = || {
            let joined = compute.join_rotated(&q, &k, &v, HEADS, &table)?;
            compute.split_rotated_back(&joined, HEADS, &table)
        };
        b.iter(|| turn().unwrap());
    });
}

/// Log-probabilities of 336 tokens of a vocabulary of 49,152 and their gradients by the hidden states.
fn head(c: &mut Criterion) {
    let mut group = c.benchmark_group("head: 336 log-probabilities and gradients");
    let (hidden, weight) = (random((336, WIDTH)), (random((VOCABULARY, WIDTH)) * 0.05).unwrap());
    let targets: Vec<u32> = (0..336).map(|i| i * 97).collect();
    group.bench_function("candle", |b| {
        let hidden = Var::from_tensor(&hidden).unwrap();
        let targets = Tensor::new(targets.as_slice(), &Device::Cpu).unwrap().unsqueeze(1).unwrap();
        let transposed = weight.t().unwrap();
        let logps = || {
            let logits = hidden.matmul(&transposed)?;
            let shifted = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?;
            let log_sum = shifted.exp()?.sum_keepdim(1)?.log()?;
            (shifted.gather(&targets, 1)? - log_sum)?.sum_all()?.backward()
        };
        b.iter(|| logps().unwrap());
    });
    for dtype in [Dtype::Float32, Dtype::Bfloat16] {
        let compute = compute(dtype);
        let weight = if dtype == Dtype::Bfloat16 { weight.to_dtype(DType::BF16).unwrap() } else { weight.clone() };
        group.bench_function(format!("mrpo {dtype:?}").to_lowercase(), |b| {
            b.iter(|| {
                compute
                    .completion_logps(&hidden, &weight, &targets, Head::Frozen, LogitShape { softcap: None, dtype })
                    .unwrap()
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(4));
    targets = products, rms_norm, gated, attention, rope, head, step::step
}
criterion_main!(benches);

/// A whole step.
mod step {
    use candle_core::Device;
    use criterion::{Criterion, Throughput};
    use mrpo::{
        domain::{Dtype, TargetModule},
        model::{Decoder, DropoutKey, Gradients, LoraShape, ModelConfig, Purpose, Tuning, Weights},
    };

    use super::{HEADS, INNER, VOCABULARY, WIDTH, batch};

    /// SmolLM2-135M's blocks, six of them instead of thirty, with random weights.
    const LAYERS: usize = 6;

    /// Forward and backward of four pairs, LoRA of rank 8 on q and v.
    pub(crate) fn step(c: &mut Criterion) {
        let config = serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": WIDTH, "intermediate_size": INNER,
            "num_hidden_layers": LAYERS, "num_attention_heads": HEADS.query, "num_key_value_heads": HEADS.key_value,
            "vocab_size": VOCABULARY, "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "max_position_embeddings": 2048,
        });
        let config = ModelConfig::from_json(config.to_string().as_bytes()).unwrap();
        let batch = batch();
        let mut group = c.benchmark_group("step: four pairs, six blocks");
        group.throughput(Throughput::Elements(batch.tokens.len() as u64));
        for dtype in [Dtype::Float32, Dtype::Bfloat16] {
            let shape = LoraShape { rank: 8, scale: 2.0, dropout: 0.0 };
            let tuning = Tuning::Lora { shape, targets: vec![TargetModule::QProj, TargetModule::VProj], seed: 1 };
            let weights = Weights::random(config.clone(), tuning.stored(dtype), &Device::Cpu).unwrap();
            let (decoder, parameters) = Decoder::new(weights, &tuning, dtype).unwrap();
            let d_logps = vec![0.01; batch.scored.len()];
            group.bench_function(format!("mrpo {dtype:?}").to_lowercase(), |b| {
                b.iter(|| {
                    let mut gradients = Gradients::new(parameters.len());
                    let purpose = Purpose::Train(DropoutKey { seed: 1, pass: 0 });
                    let forward = decoder.forward(&batch, &parameters, purpose).unwrap();
                    decoder.backward(&batch, forward, &d_logps, &parameters, &mut gradients).unwrap();
                    gradients
                });
            });
        }
    }
}
