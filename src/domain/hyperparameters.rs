//! Training settings: as a client writes them (`"auto"` or a value), and as they are used (every one filled in).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Auto, Clip, Limit, Lora, LoraRequest, Losses, Method, Mix, ObjectiveSpec, Problems, Range, WeightConvention,
    Weighting, lora::lora_or_null, range_of,
};

/// Learning rate over the steps, after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LrSchedule {
    /// Half a cosine, from the peak to zero.
    #[default]
    Cosine,
    /// A straight line, from the peak to zero.
    Linear,
    /// The peak.
    Constant,
}

/// What happens to a pair that is longer than `max_length` tokens on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// The prompt loses tokens from its left; completions stay whole; a pair whose completion alone is too long is dropped.
    #[default]
    TruncatePromptLeft,
    /// The pair is left out.
    Drop,
    /// The job fails before training and names the pairs.
    Error,
}

/// The type that weights and activations are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// IEEE 754 single precision.
    #[default]
    Float32,
    /// Frozen weights are stored, and the factors of every product rounded, as bfloat16; sums, trained weights, the optimizer and
    /// all else stay float32. About twice as fast where the processor multiplies bfloat16 (AVX-512 BF16), slower elsewhere.
    Bfloat16,
}

/// Training settings as a client writes them; each is `"auto"` (our default, see [`Hyperparameters`]) or a value.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields are those of `Hyperparameters`")]
pub struct HyperparametersRequest {
    pub beta: Auto<f64>,
    pub epsilon: Auto<f64>,
    pub clip: Auto<Clip>,
    pub weighting: Auto<Weighting>,
    pub weight_convention: Auto<WeightConvention>,
    pub mix: Auto<Mix>,
    pub loss: Auto<Losses>,
    pub loss_weights: Auto<Vec<f64>>,
    pub label_smoothing: Auto<f64>,
    pub discopop_tau: Auto<f64>,
    pub sft_weight: Auto<f64>,
    pub length_normalized: Auto<bool>,
    pub thompson_prior: Auto<f64>,
    pub thompson_pairs: Auto<usize>,
    pub learning_rate: Auto<f64>,
    /// OpenAI's name: a factor on our default learning rate.
    pub learning_rate_multiplier: Auto<f64>,
    pub lr_schedule: Auto<LrSchedule>,
    pub warmup_ratio: Auto<f64>,
    pub weight_decay: Auto<f64>,
    pub adam_beta1: Auto<f64>,
    pub adam_beta2: Auto<f64>,
    pub adam_epsilon: Auto<f64>,
    pub max_grad_norm: Auto<f64>,
    pub n_epochs: Auto<u32>,
    pub batch_size: Auto<usize>,
    pub micro_batch_tokens: Auto<usize>,
    pub max_length: Auto<usize>,
    pub truncation: Auto<Truncation>,
    pub dtype: Auto<Dtype>,
    /// Absent or `"auto"`: LoRA with our defaults. `null`: full fine-tuning.
    #[serde(deserialize_with = "lora_or_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Auto<LoraRequest>>, default = json!("auto"))]
    pub lora: Option<Option<LoraRequest>>,
    pub eval_every_n_steps: Auto<u64>,
    pub checkpoint_every_n_steps: Auto<u64>,
}

/// Training settings as they are used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Hyperparameters {
    /// β, ε, mix, clip, weighting, losses and what they read.
    #[serde(flatten)]
    pub objective: ObjectiveSpec,
    /// Peak learning rate. Default 1e-4 with LoRA, 1e-6 for full fine-tuning.
    pub learning_rate: f64,
    /// Learning rate over the steps.
    pub lr_schedule: LrSchedule,
    /// Share of the steps over which the learning rate rises from zero. Default 0.1.
    pub warmup_ratio: f64,
    /// Decoupled weight decay of `AdamW` on matrices. Default 0.
    pub weight_decay: f64,
    /// `AdamW`'s β1. Default 0.9.
    pub adam_beta1: f64,
    /// `AdamW`'s β2. Default 0.999.
    pub adam_beta2: f64,
    /// `AdamW`'s ε. Default 1e-8.
    pub adam_epsilon: f64,
    /// Gradients are scaled down to this global L2 norm. Default 1.
    pub max_grad_norm: f64,
    /// Passes over the data. Default 1.
    pub n_epochs: u32,
    /// Pairs per optimizer step. Default 8.
    pub batch_size: usize,
    /// Tokens computed at once: a batch is cut into micro-batches of at most this many (a single longer pair stands alone)
    /// and their gradients are added up, so the result does not depend on it but for rounding. Default 512.
    pub micro_batch_tokens: usize,
    /// Longest prompt and completion together, in tokens of the policy. Default 1024.
    pub max_length: usize,
    /// What happens to longer pairs.
    pub truncation: Truncation,
    /// The type of weights and activations, of the policy and of every reference.
    #[serde(default)]
    pub dtype: Dtype,
    /// LoRA, or null for full fine-tuning.
    pub lora: Option<Lora>,
    /// The validation set is evaluated every so many steps, besides before and after. Default: a quarter of the steps.
    pub eval_every_n_steps: Option<u64>,
    /// A checkpoint is written every so many steps, besides at the end. Default: a quarter of the steps.
    pub checkpoint_every_n_steps: Option<u64>,
}

impl Hyperparameters {
    /// The default of [`Self::max_length`].
    pub const MAX_LENGTH: usize = 1024;

    /// What its numbers may be, but for those of [`ObjectiveSpec`] and [`Lora`].
    pub const LIMITS: [Limit; 14] = [
        ("learning_rate", Range::above_to(0.0, 1.0)),
        // Of 1e-6, the smallest learning rate it is a multiple of; what comes of it is checked as the learning rate.
        ("learning_rate_multiplier", Range::above_to(0.0, 1e6)),
        ("warmup_ratio", Range::between(0.0, 1.0)),
        ("weight_decay", Range::between(0.0, 1.0)),
        ("adam_beta1", Range::from_to_below(0.0, 1.0)),
        ("adam_beta2", Range::from_to_below(0.0, 1.0)),
        ("adam_epsilon", Range::above_to(0.0, 1.0)),
        ("max_grad_norm", Range::above(0.0)),
        ("n_epochs", Range::between(1.0, 1000.0)),
        ("batch_size", Range::between(1.0, 4096.0)),
        ("micro_batch_tokens", Range::between(16.0, 1_048_576.0)),
        ("max_length", Range::between(2.0, 1_048_576.0)),
        ("eval_every_n_steps", Range::between(1.0, 1e9)),
        ("checkpoint_every_n_steps", Range::between(1.0, 1e9)),
    ];

    /// Fills in the defaults and checks every value; problems are pointed at below `pointer`.
    ///
    /// The result is only meaningful where no problem was added.
    pub fn resolve(request: &HyperparametersRequest, method: &Method, pointer: &str, problems: &mut Problems) -> Self {
        let lora = match &request.lora {
            Some(None) => None,
            Some(Some(lora)) => Some(lora.resolve()),
            None => Some(LoraRequest::default().resolve()),
        };
        let default_learning_rate = if lora.is_some() { 1e-4 } else { 1e-6 };
        if let (Auto::Value(_), Auto::Value(_)) = (request.learning_rate, request.learning_rate_multiplier) {
            problems.at(
                format!("{pointer}/learning_rate_multiplier"),
                "conflicting_fields",
                "give learning_rate or learning_rate_multiplier, not both",
            );
        }
        let learning_rate = request.learning_rate.or(default_learning_rate * request.learning_rate_multiplier.or(1.0));
        let settings = Self {
            objective: resolve_objective(request, method),
            learning_rate,
            lr_schedule: request.lr_schedule.or(LrSchedule::default()),
            warmup_ratio: request.warmup_ratio.or(0.1),
            weight_decay: request.weight_decay.or(0.0),
            adam_beta1: request.adam_beta1.or(0.9),
            adam_beta2: request.adam_beta2.or(0.999),
            adam_epsilon: request.adam_epsilon.or(1e-8),
            max_grad_norm: request.max_grad_norm.or(1.0),
            n_epochs: request.n_epochs.or(1),
            batch_size: request.batch_size.or(8),
            micro_batch_tokens: request.micro_batch_tokens.or(512),
            max_length: request.max_length.or(Self::MAX_LENGTH),
            truncation: request.truncation.or(Truncation::default()),
            dtype: request.dtype.or(Dtype::default()),
            lora,
            eval_every_n_steps: request.eval_every_n_steps.given(),
            checkpoint_every_n_steps: request.checkpoint_every_n_steps.given(),
        };
        settings.validate(pointer, problems);
        settings
    }

    /// Adds a problem for every value that is out of its range.
    fn validate(&self, pointer: &str, problems: &mut Problems) {
        self.objective.validate(pointer, problems);
        let mut check = |limits: &[Limit], at: &str, field: &str, value: f64| {
            let range = range_of(limits, field);
            if !range.contains(value) {
                problems.at(format!("{pointer}/{at}{field}"), "out_of_range", format!("{at}{field} must be {range}"));
            }
        };
        let values = [
            ("learning_rate", self.learning_rate),
            ("warmup_ratio", self.warmup_ratio),
            ("weight_decay", self.weight_decay),
            ("adam_beta1", self.adam_beta1),
            ("adam_beta2", self.adam_beta2),
            ("adam_epsilon", self.adam_epsilon),
            ("max_grad_norm", self.max_grad_norm),
            ("n_epochs", f64::from(self.n_epochs)),
            ("batch_size", self.batch_size as f64),
            ("micro_batch_tokens", self.micro_batch_tokens as f64),
            ("max_length", self.max_length as f64),
        ];
        for (field, value) in values {
            check(&Self::LIMITS, "", field, value);
        }
        let every = [
            ("eval_every_n_steps", self.eval_every_n_steps),
            ("checkpoint_every_n_steps", self.checkpoint_every_n_steps),
        ];
        for (field, n_steps) in every {
            if let Some(n_steps) = n_steps {
                check(&Self::LIMITS, "", field, n_steps as f64);
            }
        }
        let Some(lora) = &self.lora else { return };
        for (field, value) in [("rank", lora.rank as f64), ("alpha", lora.alpha), ("dropout", lora.dropout)] {
            check(&Lora::LIMITS, "lora/", field, value);
        }
        if !lora.target_modules.is_sound() {
            let message = "lora/target_modules must be a list of at least one layer, none of them twice";
            problems.at(format!("{pointer}/lora/target_modules"), "out_of_range", message);
        }
    }
}

fn resolve_objective(request: &HyperparametersRequest, method: &Method) -> ObjectiveSpec {
    let defaults = ObjectiveSpec::default();
    let mut objective = ObjectiveSpec {
        beta: request.beta.or(defaults.beta),
        mix: request.mix.or(defaults.mix),
        clip: request.clip.or(defaults.clip),
        epsilon: request.epsilon.or(defaults.epsilon),
        weighting: request.weighting.or(defaults.weighting),
        weight_convention: request.weight_convention.or(defaults.weight_convention),
        loss: request.loss.clone().or(defaults.loss),
        loss_weights: request.loss_weights.clone().or(defaults.loss_weights),
        label_smoothing: request.label_smoothing.or(defaults.label_smoothing),
        discopop_tau: request.discopop_tau.or(defaults.discopop_tau),
        sft_weight: request.sft_weight.or(defaults.sft_weight),
        length_normalized: request.length_normalized.or(defaults.length_normalized),
        thompson_prior: request.thompson_prior.or(defaults.thompson_prior),
        thompson_pairs: request.thompson_pairs.or(defaults.thompson_pairs),
        ..defaults
    };
    method.apply_to(&mut objective);
    objective
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resolve(body: serde_json::Value) -> (Hyperparameters, Vec<String>) {
        let request = serde_json::from_value(body).expect("well formed");
        let mut problems = Problems::default();
        let settings = Hyperparameters::resolve(&request, &Method::Dpo, "/h", &mut problems);
        (settings, problems.first.into_iter().filter_map(|p| p.pointer).collect())
    }

    #[test]
    fn auto_and_absent_give_the_documented_defaults() {
        let (absent, problems) = resolve(json!({}));
        assert!(problems.is_empty());
        assert_eq!(absent, resolve(json!({"beta": "auto", "lora": "auto", "learning_rate": null})).0);
        assert_eq!(absent.learning_rate, 1e-4);
        assert_eq!(absent.lora.map(|l| (l.rank, l.alpha)), Some((8, 16.0)));
    }

    #[test]
    fn a_null_lora_means_full_fine_tuning() {
        let (full, _) = resolve(json!({"lora": null}));
        assert!(full.lora.is_none());
        assert_eq!(full.learning_rate, 1e-6);
    }

    #[test]
    fn every_value_out_of_range_is_pointed_at() {
        let (_, pointers) = resolve(json!({"beta": -1, "n_epochs": 0, "lora": {"rank": 0, "target_modules": []}}));
        assert_eq!(pointers, ["/h/beta", "/h/n_epochs", "/h/lora/rank", "/h/lora/alpha", "/h/lora/target_modules"]);
    }

    #[test]
    fn an_unknown_field_or_type_is_refused_in_words() {
        let error = |body| serde_json::from_value::<HyperparametersRequest>(body).expect_err("refused").to_string();
        assert!(error(json!({"betta": 1})).contains("betta"));
        assert!(error(json!({"beta": "high"})).contains("or \"auto\""));
    }
}
