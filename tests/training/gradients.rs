//! The written-out backward against finite differences: every trained tensor of a tiny model, LoRA and full.

use candle_core::{Device, Tensor};
use mrpo::{
    domain::{Dtype, ModelLocation, TargetModule, WeightsFormat},
    model::{Decoder, DropoutKey, Gradients, LoraShape, Parameters, Purpose, Tuning, Weights, layout::Packed},
};

use crate::tiny::{numbers, write_weights};

/// The tiny Llama with a vocabulary of eleven. B of a fresh LoRA pair is zero, and A's gradient with it: both are moved off zero.
pub(crate) fn decoder(tuning: &Tuning) -> (Decoder, Parameters) {
    let directory = tempfile::tempdir().expect("set up");
    write_weights(directory.path(), 11, 1);
    let weights = directory.path().to_owned();
    let location = ModelLocation { format: WeightsFormat::Huggingface, weights, adapters: Vec::new() };
    let weights = Weights::load(&location, Dtype::Float32).expect("set up");
    let (decoder, mut parameters) = Decoder::new(weights, tuning, Dtype::Float32).expect("set up");
    let ids: Vec<_> = parameters.iter().map(|(id, name, value)| (id, name.to_owned(), value.clone())).collect();
    for (id, _, value) in ids.iter().filter(|(_, name, _)| name.contains("lora_B")) {
        let moved = numbers(value.elem_count(), id.index());
        parameters.set(*id, Tensor::from_vec(moved, value.shape(), &Device::Cpu).expect("set up"));
    }
    (decoder, parameters)
}

fn batch() -> Packed {
    let mut batch = Packed::default();
    batch.push(&[1, 2, 3], &[&[4, 5, 6, 10], &[7, 10]]);
    batch.push(&[8, 9], &[&[1, 10], &[2, 3, 10]]);
    batch
}

fn weighted_logp(decoder: &Decoder, parameters: &Parameters, d_logps: &[f32]) -> f64 {
    let key = DropoutKey { seed: 1, pass: 0 };
    let forward = decoder.forward(&batch(), parameters, Purpose::Train(key)).expect("computed");
    forward.token_logps.iter().zip(d_logps).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn check(tuning: &Tuning) {
    let (decoder, mut parameters) = decoder(tuning);
    let ids: Vec<_> = parameters.iter().map(|(id, name, _)| (id, name.to_owned())).collect();
    let d_logps: Vec<f32> = (0..batch().scored.len()).map(|i| 0.3 - 0.1 * i as f32).collect();
    let mut gradients = Gradients::new(parameters.len());
    let forward =
        decoder.forward(&batch(), &parameters, Purpose::Train(DropoutKey { seed: 1, pass: 0 })).expect("computed");
    decoder.backward(&batch(), forward, &d_logps, &parameters, &mut gradients).expect("computed");
    for (id, name) in &ids {
        let gradient = gradients.get(*id).unwrap_or_else(|| panic!("{name} got no gradient"));
        let gradient = gradient.flatten_all().and_then(|g| g.to_vec1::<f32>()).expect("read");
        assert!(gradient.iter().any(|g| *g != 0.0), "the gradient of {name} is zero");
        let value = parameters.get(*id).clone();
        let flat = value.flatten_all().and_then(|v| v.to_vec1::<f32>()).expect("read");
        let scale = gradient.iter().fold(0f32, |a, g| a.max(g.abs()));
        for i in 0..flat.len() {
            let h = 2e-3f32;
            let mut at = |step: f32| {
                let mut moved = flat.clone();
                moved[i] += step;
                parameters.set(*id, Tensor::from_vec(moved, value.shape(), &Device::Cpu).expect("shaped"));
                weighted_logp(&decoder, &parameters, &d_logps)
            };
            let numeric = (at(h) - at(-h)) / (2.0 * f64::from(h));
            let error = (numeric - f64::from(gradient[i])).abs();
            assert!(error < 4e-3 * f64::from(scale).max(0.1), "{name}[{i}]: {numeric} against {}", gradient[i]);
        }
        parameters.set(*id, value);
    }
}

#[test]
fn every_weight_of_a_full_fine_tune_has_the_right_gradient() {
    check(&Tuning::Full);
}

#[test]
fn every_lora_weight_has_the_right_gradient() {
    let shape = LoraShape { rank: 2, scale: 1.5, dropout: 0.25 };
    check(&Tuning::Lora { shape, targets: TargetModule::ALL.to_vec(), seed: 3 });
}
