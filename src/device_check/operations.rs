//! Every operation of the models on the device and on the processor, of the same numbers.

use candle_core::{DType, Device, Result, Tensor};

use super::{Finding, Outputs, compare};
use crate::{
    domain::Dtype,
    model::{
        layout::Packed,
        noise,
        ops::{
            Activation, AdamWStep, AttentionShape, Compute, Factor, Head, Heads, LogitShape, RopeTable, Scoring, Sum,
        },
    },
};

/// Odd sizes: the ends of tiles and of vectors are where kernels go wrong.
const TOKENS: usize = 301;
const WIDTH: usize = 88;
const VOCABULARY: usize = 1003;
/// Sizes of heads, among them the kernels' largest, and one that fills no tile.
const HEAD_SIZES: [usize; 5] = [16, 64, 80, 128, 256];

/// One of the two that compute.
struct Side {
    compute: Compute,
    /// The type that is checked: both sides begin from the same numbers, which it can hold.
    checked: Dtype,
}

impl Side {
    /// Activations of this shape.
    fn activations(&self, shape: &[usize], seed: u64) -> Result<Tensor> {
        self.numbers(shape, seed)?.to_dtype(self.compute.activations())
    }

    /// A frozen weight of this shape.
    fn weight(&self, shape: &[usize], seed: u64) -> Result<Tensor> {
        let stored = if self.compute.dtype() == Dtype::Bfloat16 { DType::BF16 } else { DType::F32 };
        self.numbers(shape, seed)?.to_dtype(stored)
    }

    /// Float32.
    fn numbers(&self, shape: &[usize], seed: u64) -> Result<Tensor> {
        let numbers = noise(shape, seed)?;
        let numbers = match self.checked {
            Dtype::Float32 => numbers,
            Dtype::Bfloat16 => numbers.to_dtype(DType::BF16)?.to_dtype(DType::F32)?,
        };
        numbers.to_device(self.compute.device())
    }
}

/// Compares all of them.
pub(super) fn check(device: &Device, dtype: Dtype, tell: &mut dyn FnMut(&Finding)) -> Result<()> {
    // Sums in another order; and what is stored, or multiplied, in eight bits.
    let limit = match dtype {
        Dtype::Float32 => 2e-5,
        Dtype::Bfloat16 => 2e-2,
    };
    let expected = Side { compute: Compute::new(&Device::Cpu, Dtype::Float32)?, checked: dtype };
    let found = Side { compute: Compute::new(device, dtype)?, checked: dtype };
    let mut one = |name: &str, outputs: &dyn Fn(&Side) -> Result<Outputs>| -> Result<()> {
        compare((name, dtype, limit), outputs(&found), &outputs(&expected)?, tell);
        Ok(())
    };
    one("product", &products)?;
    one("rms_norm", &rms_norm)?;
    one("rows", &rows)?;
    for f in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
        one(&format!("{f:?}"), &|side| activation(side, f))?;
    }
    for (name, shape, n_angles) in attentions(dtype) {
        one(&name, &|side| attention(side, AttentionShape { dtype: side.compute.dtype(), ..shape }, n_angles))?;
    }
    one("head", &|side| head(side, None))?;
    one("head, logits capped", &|side| head(side, Some(2.5)))?;
    one("sums", &sums)?;
    one("adamw", &adamw)
}

fn named<const N: usize>(outputs: [(&str, Tensor); N]) -> Outputs {
    outputs.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
}

fn products(side: &Side) -> Result<Outputs> {
    let compute = &side.compute;
    let (x, w) = (side.activations(&[TOKENS, WIDTH], 1)?, side.weight(&[2 * WIDTH, WIDTH], 2)?);
    let y = compute.sum(TOKENS, 2 * WIDTH)?.add(Factor::Plain(&x), Factor::Transposed(&w), 1.0)?.into_tensor()?;
    let dy = side.activations(&[TOKENS, 2 * WIDTH], 3)?;
    let residual = side.activations(&[TOKENS, WIDTH], 4)?;
    let dx = compute.sum_from(&residual)?.add(Factor::Plain(&dy), Factor::Plain(&w), 0.5)?.into_tensor()?;
    let gradient = compute.float32_sum(2 * WIDTH, WIDTH)?;
    let gradient = gradient.add(Factor::Transposed(&dy), Factor::Plain(&x), 1.0)?;
    let gradient = gradient.add(Factor::Transposed(&dy), Factor::Plain(&x), -0.25)?.into_tensor()?;
    let (a, b) = (side.numbers(&[8, WIDTH], 5)?, side.weight(&[WIDTH, WIDTH], 6)?);
    let (mut narrow, mut wide) = (compute.sum(TOKENS, 8)?, compute.sum(TOKENS, WIDTH)?);
    compute.add_each(
        &mut [&mut narrow, &mut wide],
        Factor::Plain(&x),
        &[Factor::Transposed(&a), Factor::Transposed(&b)],
    )?;
    Ok(named([
        ("x Wᵀ", y),
        ("dy W + residual", dx),
        ("dyᵀ x, twice", gradient),
        ("x Aᵀ, A trained", Sum::into_tensor(narrow)?),
        ("x Wᵀ, beside it", wide.into_tensor()?),
    ]))
}

fn rms_norm(side: &Side) -> Result<Outputs> {
    let (x, weight) = (side.activations(&[TOKENS, WIDTH], 1)?, side.numbers(&[WIDTH], 2)?);
    let (y, inverse) = side.compute.rms_norm(&x, &weight, 1e-5)?;
    let again = side.compute.rms_norm_again(&x, &weight, &inverse)?;
    let (dy, residual) = (side.activations(&[TOKENS, WIDTH], 3)?, side.activations(&[TOKENS, WIDTH], 4)?);
    let dx = side.compute.rms_norm_backward(&dy, &x, &weight, &inverse, None)?;
    let dx_residual = side.compute.rms_norm_backward(&dy, &x, &weight, &inverse, Some(&residual))?;
    let dw = side.compute.rms_norm_weight_gradient(&dy, &x, &inverse)?;
    Ok(named([
        ("y", y),
        ("1/rms", inverse),
        ("y again", again),
        ("dx", dx),
        ("dx + residual", dx_residual),
        ("dw", dw),
    ]))
}

fn rows(side: &Side) -> Result<Outputs> {
    let compute = &side.compute;
    let [x, residual, to] = [1, 2, 3].map(|seed| side.activations(&[TOKENS, WIDTH], seed));
    let (x, residual, to, bias) = (x?, residual?, to?, side.numbers(&[WIDTH], 4)?);
    compute.add_bias(&to, &bias)?;
    Ok(named([
        ("less their means", compute.centred(&x, None)?),
        ("less their means + residual", compute.centred(&x, Some(&residual))?),
        ("with a bias", to),
        ("column sums", compute.column_sums(&x)?),
    ]))
}

fn activation(side: &Side, f: Activation) -> Result<Outputs> {
    let compute = &side.compute;
    let [gate, up, dy] = [1, 2, 3].map(|seed| side.activations(&[TOKENS, WIDTH + 1], seed));
    let (gate, up, dy) = (gate?, up?, dy?);
    let (d_gate, d_up) = compute.gated_backward(&dy, &gate, &up, f)?;
    Ok(named([
        ("y", compute.activated(&gate, f)?),
        ("dx", compute.activated_backward(&dy, &gate, f)?),
        ("y, gated", compute.gated(&gate, &up, f)?),
        ("dgate", d_gate),
        ("dup", d_up),
    ]))
}

/// Heads of every size as the Llama family has them; then windows, within a tile and across several, capped scores, and heads of
/// which a part turns. With each the number of angles.
fn attentions(dtype: Dtype) -> Vec<(String, AttentionShape, usize)> {
    let plain = |query, key_value, size| AttentionShape::plain(Heads { query, key_value, size }, dtype);
    let mut all = Vec::from(HEAD_SIZES.map(|size| (format!("heads of {size}"), plain(6, 2, size), size / 2)));
    let named = |name: &str, shape, n_angles| (name.to_owned(), shape, n_angles);
    all.push(named("one head for keys", plain(3, 1, 64), 32));
    all.push(named("a window of 13", AttentionShape { window: Some(13), ..plain(4, 2, 64) }, 32));
    all.push(named("a window of 140", AttentionShape { window: Some(140), ..plain(4, 2, 128) }, 64));
    all.push(named("scores capped", AttentionShape { softcap: Some(1.5), scale: 0.2, ..plain(4, 2, 64) }, 32));
    let both = AttentionShape { softcap: Some(3.0), window: Some(70), ..plain(2, 1, 256) };
    all.push(named("scores capped, a window of 70", both, 128));
    all.push(named("a part of each head turned", plain(4, 4, 80), 16));
    all
}

/// Pairs of which one prompt takes several tiles, one a single token, and one completion predicts from its prompt alone.
fn pairs() -> Packed {
    let mut batch = Packed::default();
    for (prompt, completions) in [(150, [132, 7]), (1, [1, 40]), (300, [201, 65])] {
        let completions = completions.map(|n| vec![0; n]);
        batch.push(&vec![0; prompt], &completions.each_ref().map(Vec::as_slice));
    }
    batch
}

fn attention(side: &Side, shape: AttentionShape, n_angles: usize) -> Result<Outputs> {
    let (compute, batch, heads) = (&side.compute, pairs(), shape.heads);
    let n = batch.tokens.len();
    let frequencies: Vec<f32> = (0..n_angles).map(|i| 0.7f32.powi(i as i32)).collect();
    let table = RopeTable::new(&batch.positions, &frequencies, compute.device())?;
    let q = side.activations(&[n, heads.q_width()], 1)?;
    let (k, v) = (side.activations(&[n, heads.kv_width()], 2)?, side.activations(&[n, heads.kv_width()], 3)?);
    let joined = compute.join_rotated(&q, &k, &v, heads, &table)?;
    let kept = compute.attention(&joined, &batch.sequences, shape)?;
    let d_output = side.activations(&[n, heads.q_width()], 4)?;
    let d_joined = compute.attention_backward(&d_output, &joined, &kept, &batch.sequences, shape)?;
    let (dq, dk, dv) = compute.split_rotated_back(&d_joined, heads, &table)?;
    let one = side.activations(&[137, heads.joined_width()], 5)?;
    let last = compute.attention_last(&one, shape)?;
    Ok(named([
        ("q, k, v turned", joined),
        ("attention", kept.output),
        ("log-sums", kept.log_sums),
        ("dq", dq),
        ("dk", dk),
        ("dv", dv),
        ("the last token's", last),
    ]))
}

fn head(side: &Side, softcap: Option<f32>) -> Result<Outputs> {
    let compute = &side.compute;
    let hidden = side.activations(&[TOKENS, WIDTH], 1)?;
    let weight = side.weight(&[VOCABULARY, WIDTH], 2)?;
    let targets: Vec<u32> = (0..TOKENS).map(|i| (i * 97 % VOCABULARY) as u32).collect();
    let logits = LogitShape { softcap, dtype: compute.dtype() };
    let scored = compute.completion_logps(&hidden, &weight, &targets, Head::Score, logits)?;
    let frozen = compute.completion_logps(&hidden, &weight, &targets, Head::Frozen, logits)?;
    let d_logps: Vec<f32> = noise(&[TOKENS], 3)?.to_vec1()?;
    let d_weight = Tensor::zeros((VOCABULARY, WIDTH), DType::F32, compute.device())?;
    let trained = side.numbers(&[VOCABULARY, WIDTH], 2)?;
    let scoring = Scoring { targets: &targets, d_logps: &d_logps, logits };
    let d_hidden = compute.head_backward(&hidden, &trained, scoring, &d_weight)?;
    let Some(unscaled) = frozen.d_hidden else { candle_core::bail!("the gradient is missing") };
    Ok(named([
        ("log p", Tensor::new(scored.logps, &Device::Cpu)?),
        ("log p, with gradients", Tensor::new(frozen.logps, &Device::Cpu)?),
        ("dlog p/dhidden", unscaled),
        ("dhidden", d_hidden),
        ("dweight", d_weight),
    ]))
}

fn sums(side: &Side) -> Result<Outputs> {
    let compute = &side.compute;
    let (x, to) = (side.activations(&[TOKENS, WIDTH], 1)?, side.numbers(&[VOCABULARY, WIDTH], 2)?);
    let rows: Vec<u32> = (0..TOKENS).map(|i| (i * i % 40) as u32).collect();
    compute.add_rows(&to, &rows, &x)?;
    let gradient = side.numbers(&[VOCABULARY, WIDTH], 3)?;
    compute.add_in_place(&gradient, &to)?;
    let norm = compute.squared_norm(&gradient)?;
    Ok(named([("rows added", to), ("added", gradient), ("Σ x²", Tensor::new(&[norm as f32], &Device::Cpu)?)]))
}

fn adamw(side: &Side) -> Result<Outputs> {
    let [parameter, gradient, first, second] = [1, 2, 3, 4].map(|seed| side.numbers(&[WIDTH, WIDTH + 1], seed));
    let (parameter, gradient, first, second) = (parameter?, gradient?, first?, second?.sqr()?);
    let step = AdamWStep {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        step_size: 1e-2,
        root_correction: 0.3,
        decay: 0.999,
        gradient_scale: 0.5,
    };
    side.compute.adamw(&parameter, &gradient, (&first, &second), step)?;
    Ok(named([("parameter", parameter), ("first moment", first), ("second moment", second)]))
}
