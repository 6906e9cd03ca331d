//! One optimizer step: the gradient of every method, through token weights, third completions and losses of a batch, against
//! finite differences of the loss.

use candle_core::{Device, Tensor};
use mrpo::{
    domain::{Hyperparameters, Lora, Method, Problems, SelmSettings, Sides, TargetModule},
    model::{LoraShape, Tuning},
    objective::Scored,
    train::{AdamW, AdamWSettings, Policy, ReferenceResponse, TrainingPair, Weigher, evaluate_pairs, training_step},
};
use serde_json::{Value, json};

use crate::gradients::decoder;

fn policy(method: &Method, settings: &Value) -> Policy {
    let request = serde_json::from_value(settings.clone()).expect("well formed");
    let mut problems = Problems::default();
    let settings = Hyperparameters::resolve(&request, method, "", &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    let Lora { rank, .. } = settings.lora.clone().expect("lora");
    let tuning = Tuning::Lora {
        shape: LoraShape { rank, scale: 1.5, dropout: 0.0 },
        targets: vec![TargetModule::QProj, TargetModule::DownProj],
        seed: 3,
    };
    let (decoder, parameters) = decoder(&tuning);
    let adam = AdamWSettings { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };
    Policy {
        optimizer: AdamW::new(adam, &parameters).expect("set up"),
        decoder,
        parameters,
        weigher: Weigher::new(&settings.objective, vec![0.5, 0.5], 2, &[]),
        settings,
        seed: 1,
        reference_names: vec!["base".into(), "other".into()],
    }
}

fn pairs() -> Vec<TrainingPair> {
    let scored =
        |chosen, rejected| Scored { logps: Sides { chosen, rejected }, n_tokens: Sides { chosen: 4.0, rejected: 2.0 } };
    let pair = |line: u64, prompt: &[u32], chosen: &[u32], rejected: &[u32], logps: [f64; 4]| TrainingPair {
        line,
        prompt: prompt.to_vec(),
        chosen: chosen.to_vec(),
        rejected: rejected.to_vec(),
        token_weights: None,
        references: vec![scored(logps[0], logps[1]), scored(logps[2], logps[3])],
        response: None,
        other_rewards: Sides::default(),
        likelihood: Sides::default(),
    };
    vec![
        pair(1, &[1, 2, 3], &[4, 5, 6, 10], &[7, 10], [-9.0, -6.0, -8.0, -7.5]),
        pair(2, &[8, 9], &[1, 10], &[2, 3, 10], [-5.0, -4.0, -6.0, -3.5]),
        pair(3, &[5, 5, 2], &[3, 7, 10], &[9, 9, 1, 10], [-7.0, -9.5, -7.2, -8.0]),
    ]
}

/// The norm of the gradient by finite differences of the loss, and the one a step reports.
fn check(name: &str, method: &Method, settings: &Value, pairs: &[TrainingPair]) {
    let mut policy = policy(method, settings);
    let ids: Vec<_> = policy.parameters.iter().map(|(id, _, value)| (id, value.clone())).collect();
    let mut sum = 0.0;
    for (id, value) in ids {
        let flat = value.flatten_all().and_then(|v| v.to_vec1::<f32>()).expect("read");
        for i in 0..flat.len() {
            let h = 1e-2f32;
            let mut at = |step: f32| {
                let mut moved = flat.clone();
                moved[i] += step;
                policy.parameters.set(id, Tensor::from_vec(moved, value.shape(), &Device::Cpu).expect("shaped"));
                evaluate_pairs(&policy, pairs).expect("evaluated")["loss"]
            };
            sum += ((at(h) - at(-h)) / (2.0 * f64::from(h))).powi(2);
        }
        policy.parameters.set(id, value);
    }
    let batch: Vec<&TrainingPair> = pairs.iter().collect();
    let norm = training_step(&mut policy, &batch, &[], 0, 1).expect("a step")["grad_norm"];
    let expected = sum.sqrt();
    assert!(expected > 1e-3 && (norm / expected - 1.0).abs() < 5e-3, "{name}: {norm}, not {expected}");
}

#[test]
fn the_gradient_of_a_step_is_that_of_its_loss() {
    let settings = |more: Value| {
        // Every pair in a micro-batch of its own.
        let mut settings = json!({"batch_size": 3, "micro_batch_tokens": 16, "lora": {"rank": 2}, "beta": 0.5});
        settings.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        settings
    };
    for loss in ["sigmoid", "ipo", "nca_pair", "sppo_hard", "aot", "aot_unpaired", "discopop", "sigmoid_norm"] {
        check(loss, &Method::Mrpo, &settings(json!({"loss": loss})), &pairs());
    }
    let normalized = settings(json!({"length_normalized": true, "sft_weight": 0.3}));
    check("per token", &Method::Mrpo, &normalized, &pairs());
    check("multi_dpo", &Method::MultiDpo, &settings(json!({"loss": ["hinge", "aot"]})), &pairs());

    let mut weighted = pairs();
    weighted[0].token_weights = Some(Sides { chosen: vec![1.0, 0.0, 0.5, 0.0], rejected: vec![0.0, 1.0] });
    weighted[2].token_weights = Some(Sides { chosen: vec![0.0; 3], rejected: vec![1.0, 1.0, 0.0, 0.25] });
    check("token weights", &Method::Mrpo, &settings(json!({})), &weighted);
    check("token weights, per token", &Method::Mrpo, &normalized, &weighted);

    let mut with_terms = pairs();
    for (i, pair) in with_terms.iter_mut().enumerate() {
        pair.response = Some(ReferenceResponse { tokens: vec![i as u32 + 1, 10], base_logp: -4.0 });
        pair.other_rewards = Sides { chosen: 0.3, rejected: -0.2 * i as f64 };
        pair.likelihood = Sides { chosen: 0.2, rejected: 0.1 };
    }
    let selm = Method::Selm(SelmSettings { alpha: 0.5 });
    check("every term", &selm, &settings(json!({})), &with_terms);
}

#[test]
fn how_a_batch_is_cut_does_not_matter() {
    let norm_and_loss = |micro_batch_tokens: usize, loss: &str| {
        let settings =
            json!({"batch_size": 3, "micro_batch_tokens": micro_batch_tokens, "lora": {"rank": 2}, "loss": loss});
        let pairs = pairs();
        let batch: Vec<&TrainingPair> = pairs.iter().collect();
        let values = training_step(&mut policy(&Method::Mrpo, &settings), &batch, &[], 0, 1).expect("a step");
        [values["grad_norm"], values["loss"], values["rewards/margins"]]
    };
    for loss in ["sigmoid", "aot", "aot_unpaired"] {
        for (whole, cut) in norm_and_loss(1024, loss).into_iter().zip(norm_and_loss(16, loss)) {
            assert!((whole - cut).abs() < 1e-5 * whole.abs(), "{loss}: {whole} is not {cut}");
        }
    }
}
