//! The model written out on candle's autograd, every completion by itself: what the packed, hand-written passes must equal.

#![expect(clippy::disallowed_methods, reason = "candle's autograd is the oracle")]

use std::collections::HashMap;

use candle_core::{D, Device, Result, Tensor, Var};
use mrpo::{
    domain::{Dtype, ModelLocation, TargetModule, WeightsFormat},
    model::{Decoder, DropoutKey, Gradients, LoraShape, Parameters, Purpose, Tuning, Weights, layout::Packed},
};

use crate::tiny::{numbers, write_weights_with};

const WIDTH: usize = 8;
const HEADS: usize = 4;
const SIZE: usize = WIDTH / HEADS;
const VOCABULARY: usize = 11;
const SCALE: f64 = 1.5;

/// The tensors by name, and how many key and value heads there are.
struct Oracle {
    tensors: HashMap<String, Tensor>,
    kv_heads: usize,
}

impl Oracle {
    fn get(&self, name: &str) -> &Tensor {
        &self.tensors[&format!("{name}.weight")]
    }

    /// x·Wᵀ and the LoRA update, if there is one.
    fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let y = x.matmul(&self.get(name).t()?)?;
        let part = |part: &str| self.tensors.get(&format!("base_model.model.{name}.lora_{part}.weight"));
        let (Some(a), Some(b)) = (part("A"), part("B")) else { return Ok(y) };
        y + (x.matmul(&a.t()?)?.matmul(&b.t()?)? * SCALE)?
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
        x.broadcast_div(&(mean + 1e-5)?.sqrt()?)?.broadcast_mul(self.get(name))
    }

    /// (T, heads · SIZE) to (heads, T, SIZE), turned by the positions' angles.
    fn rotated(x: &Tensor, heads: usize) -> Result<Tensor> {
        let t = x.dim(0)?;
        let x = x.reshape((t, heads, SIZE))?.transpose(0, 1)?;
        let half = SIZE / 2;
        let angle = |i: usize| (i / half) as f32 * 100f32.powf(-((i % half) as f32) / half as f32);
        let angles: Vec<f32> = (0..t * half).map(angle).collect();
        let angles = Tensor::from_vec(angles, (1, t, half), &Device::Cpu)?;
        let (cos, sin) = (angles.cos()?, angles.sin()?);
        let (low, high) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
        let new_low = (low.broadcast_mul(&cos)? - high.broadcast_mul(&sin)?)?;
        let new_high = (high.broadcast_mul(&cos)? + low.broadcast_mul(&sin)?)?;
        Tensor::cat(&[new_low, new_high], 2)
    }

    fn attention(&self, x: &Tensor, layer: &str) -> Result<Tensor> {
        let t = x.dim(0)?;
        let q = Self::rotated(&self.linear(x, &format!("{layer}.self_attn.q_proj"))?, HEADS)?;
        let k = Self::rotated(&self.linear(x, &format!("{layer}.self_attn.k_proj"))?, self.kv_heads)?;
        let v = self.linear(x, &format!("{layer}.self_attn.v_proj"))?;
        let v = v.reshape((t, self.kv_heads, SIZE))?.transpose(0, 1)?;
        let repeated = |x: &Tensor| -> Result<Tensor> {
            let group = HEADS / self.kv_heads;
            let x = x.unsqueeze(1)?.broadcast_as((self.kv_heads, group, t, SIZE))?;
            x.contiguous()?.reshape((HEADS, t, SIZE))
        };
        let scores = (q.contiguous()?.matmul(&repeated(&k)?.transpose(1, 2)?.contiguous()?)? / (SIZE as f64).sqrt())?;
        let mask: Vec<f32> = (0..t * t).map(|i| if i % t > i / t { -1e9 } else { 0.0 }).collect();
        let weights = softmax(&scores.broadcast_add(&Tensor::from_vec(mask, (1, t, t), &Device::Cpu)?)?)?;
        let out = weights.matmul(&repeated(&v)?)?.transpose(0, 1)?.contiguous()?.reshape((t, WIDTH))?;
        self.linear(&out, &format!("{layer}.self_attn.o_proj"))
    }

    /// log p of the tokens of `completion` after `prompt`.
    fn logps(&self, prompt: &[u32], completion: &[u32]) -> Result<Tensor> {
        let tokens = [prompt, completion].concat();
        let ids = Tensor::new(&tokens[..tokens.len() - 1], &Device::Cpu)?;
        let mut x = self.get("model.embed_tokens").index_select(&ids, 0)?;
        for layer in 0..2 {
            let layer = format!("model.layers.{layer}");
            x = (&x + self.attention(&self.norm(&x, &format!("{layer}.input_layernorm"))?, &layer)?)?;
            let normed = self.norm(&x, &format!("{layer}.post_attention_layernorm"))?;
            let gate = self.linear(&normed, &format!("{layer}.mlp.gate_proj"))?.silu()?;
            let up = self.linear(&normed, &format!("{layer}.mlp.up_proj"))?;
            x = (&x + self.linear(&(gate * up)?, &format!("{layer}.mlp.down_proj"))?)?;
        }
        let predictors = x.narrow(0, prompt.len() - 1, completion.len())?;
        let logits = self.linear(&self.norm(&predictors, "model.norm")?, "lm_head")?;
        let max = logits.max_keepdim(1)?.detach();
        let log_sum = (logits.broadcast_sub(&max)?.exp()?.sum_keepdim(1)?.log()? + max)?;
        let targets = Tensor::new(completion, &Device::Cpu)?.unsqueeze(1)?;
        (logits.gather(&targets, 1)? - log_sum)?.squeeze(1)
    }
}

fn softmax(scores: &Tensor) -> Result<Tensor> {
    let e = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    e.broadcast_div(&e.sum_keepdim(D::Minus1)?)
}

/// Long enough that attention takes several blocks of a prompt, and of a completion behind it.
fn conversations() -> Vec<(Vec<u32>, Vec<Vec<u32>>)> {
    let text =
        |n: usize, seed: usize| (0..n).map(|i| ((i * i + seed * 7 + i) % VOCABULARY) as u32).collect::<Vec<u32>>();
    vec![(text(150, 1), vec![text(131, 2), text(7, 3)]), (text(1, 4), vec![text(1, 5), text(40, 6)])]
}

/// All numbers of two tensors, and the largest difference relative to the largest number.
fn difference(ours: &Tensor, theirs: &Tensor) -> f32 {
    let read = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("read");
    let (ours, theirs) = (read(ours), read(theirs));
    assert_eq!(ours.len(), theirs.len());
    let scale = theirs.iter().fold(0f32, |a, x| a.max(x.abs()));
    assert!(scale > 0.0, "there is something to compare");
    ours.iter().zip(&theirs).fold(0f32, |a, (x, y)| a.max((x - y).abs())) / scale
}

fn check(tuning: &Tuning, kv_heads: usize, dtype: Dtype, tolerance: f32) {
    let directory = tempfile::tempdir().expect("set up");
    write_weights_with(directory.path(), VOCABULARY, 1, kv_heads);
    let weights = directory.path().to_owned();
    let location = ModelLocation { format: WeightsFormat::Huggingface, weights, adapters: Vec::new() };
    let weights = Weights::load(&location, tuning.stored(dtype)).expect("set up");
    let (decoder, mut parameters) = Decoder::new(weights, tuning, dtype).expect("set up");
    move_off_zero(&mut parameters);

    let file = directory.path().join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(file, &Device::Cpu).expect("read");
    let mut trained = Vec::new();
    for (id, name, value) in parameters.iter() {
        let var = Var::from_tensor(value).expect("made");
        tensors.insert(name.to_owned(), var.as_tensor().clone());
        trained.push((id, name.to_owned(), var));
    }
    let oracle = Oracle { tensors, kv_heads };

    let mut batch = Packed::default();
    for (prompt, completions) in &conversations() {
        batch.push(prompt, &completions.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    let purpose = Purpose::Train(DropoutKey { seed: 1, pass: 0 });
    let forward = decoder.forward(&batch, &parameters, purpose).expect("computed");
    let ours = Tensor::new(forward.token_logps.as_slice(), &Device::Cpu).expect("made");
    let mut each = Vec::new();
    for (prompt, completions) in &conversations() {
        each.extend(completions.iter().map(|completion| oracle.logps(prompt, completion).expect("computed")));
    }
    let theirs = Tensor::cat(&each, 0).expect("computed");
    assert!(difference(&ours, &theirs) < tolerance, "log-probabilities: {}", difference(&ours, &theirs));

    let d_logps: Vec<f32> = numbers(batch.scored.len(), 5);
    let loss = (&theirs * Tensor::new(d_logps.as_slice(), &Device::Cpu).expect("made")).and_then(|l| l.sum_all());
    let oracle_gradients = loss.and_then(|loss| loss.backward()).expect("computed");
    let mut gradients = Gradients::new(parameters.len());
    decoder.backward(&batch, forward, &d_logps, &parameters, &mut gradients).expect("computed");
    for (id, name, var) in &trained {
        let ours = gradients.get(*id).unwrap_or_else(|| panic!("{name} has no gradient"));
        let theirs = oracle_gradients.get(var).unwrap_or_else(|| panic!("candle has no gradient of {name}"));
        let difference = difference(ours, theirs);
        assert!(difference < tolerance, "the gradient of {name}: {difference}");
    }
}

/// B of a fresh LoRA pair is zero, and A's gradient with it.
fn move_off_zero(parameters: &mut Parameters) {
    let zero: Vec<_> =
        parameters.iter().filter(|(_, name, _)| name.contains("lora_B")).map(|(id, _, v)| (id, v.clone())).collect();
    for (id, value) in zero {
        let moved = Tensor::from_vec(numbers(value.elem_count(), id.index()), value.shape(), &Device::Cpu);
        parameters.set(id, moved.expect("made"));
    }
}

fn lora() -> Tuning {
    let shape = LoraShape { rank: 2, scale: SCALE, dropout: 0.0 };
    Tuning::Lora { shape, targets: TargetModule::ALL.to_vec(), seed: 3 }
}

#[test]
fn a_full_fine_tune_has_the_gradients_of_autograd() {
    check(&Tuning::Full, 2, Dtype::Float32, 2e-5);
}

#[test]
fn lora_has_the_gradients_of_autograd() {
    check(&lora(), 2, Dtype::Float32, 2e-5);
}

#[test]
fn one_key_head_for_all_queries_and_one_for_each() {
    check(&lora(), 1, Dtype::Float32, 2e-5);
    check(&Tuning::Full, 4, Dtype::Float32, 2e-5);
}

/// Factors keep eight bits, and the smallest gradients are differences of much larger numbers.
#[test]
fn bfloat16_is_the_same_computation_in_fewer_bits() {
    check(&lora(), 2, Dtype::Bfloat16, 8e-2);
    check(&Tuning::Full, 2, Dtype::Bfloat16, 8e-2);
}
