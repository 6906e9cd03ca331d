//! Which objective a job trains, as a record; the mathematics is in `crate::objective`.
//!
//! An objective is (virtual reference: mix × clip × weighting) × (losses of a pair) + optional terms; every combination is
//! allowed that is not refused in [`ObjectiveSpec::validate`].

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Limit, Problems, Range, range_of};

/// How the references are mixed into the virtual reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mix {
    /// The weighted harmonic mean of the probabilities: MRPO's lower bound (arXiv 2405.16388).
    #[default]
    Harmonic,
    /// The weighted geometric mean: exact for the reverse KL divergence (arXiv 2502.01203).
    Geometric,
    /// The weighted arithmetic mean: exact for the forward KL divergence (arXiv 2502.01203).
    Arithmetic,
}

/// The trust region around the base reference: Clipped Trust-Region Optimization (CTRO, arXiv 2405.16388).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Clip {
    /// Radius per side: the less likely response of the pair gets the wider band; both sum to ε.
    #[default]
    Adaptive,
    /// Radius ε on both sides.
    Fixed,
    /// No trust region.
    None,
}

/// How the references are weighted against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// Adaptive Reference Weighting Coefficients: by how strongly each tells the two responses apart (arXiv 2405.16388).
    #[default]
    Arwc,
    /// All the same.
    Uniform,
    /// As given with the references.
    Fixed,
    /// Validation discrimination: by how strongly each tells the validation pairs apart (VDW, arXiv 2512.10040).
    Vdw,
    /// Validation accuracy: by how many validation pairs each ranks as people did (VAW, arXiv 2512.10040).
    Vaw,
    /// Sliding window: by how strongly each told the previous batch's pairs apart (SWCW, arXiv 2512.10040). All the same on
    /// the first batch. The mean over the window; the authors' code reuses the window's rows one by one.
    Swcw,
    /// Sliding window, all on the strongest reference of the previous batch (arXiv 2512.10040); on the base first.
    SwcwOneHot,
    /// One reference per step, drawn by Thompson sampling and rewarded where the policy's accuracy on a random part of the
    /// validation set rises (TSW, arXiv 2512.10040).
    Thompson,
    /// All on the reference that most prefers the chosen response of the pair (ours): no single reference gives any pair a
    /// larger gradient.
    MaxMargin,
    /// By the likelihood of the validation set's preferences under each, exp Σ log σ(β·δ) (ours).
    Evidence,
}

impl Weighting {
    /// Whether the weights come from the validation set.
    pub fn needs_validation(self) -> bool {
        matches!(self, Self::Vdw | Self::Vaw | Self::Thompson | Self::Evidence)
    }
}

/// Which reference a weight of the harmonic mean belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightConvention {
    /// Each weight multiplies its own reference, as the paper's derivation has it.
    #[default]
    Paper,
    /// The weights of two references are exchanged, as in the authors' code: it computes
    /// −log(α/π_base + (1−α)/π_extra) with the α of the extra reference. For comparison with their numbers.
    AuthorsCode,
}

/// The loss of one pair. z = β·(Δ(chosen) − Δ(rejected)) with Δ(y) = log π_θ(y) − log π̃_ref(y), r(y) = β·Δ(y); names and
/// definitions are TRL's, but for `minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PairLoss {
    /// −log σ(z): DPO (arXiv 2305.18290); with `label_smoothing` s, −(1−s)·log σ(z) − s·log σ(−z).
    #[default]
    Sigmoid,
    /// max(0, 1 − z): SLiC (arXiv 2305.10425), RSO (arXiv 2309.06657).
    Hinge,
    /// (Δ(chosen)/|chosen| − Δ(rejected)/|rejected| − 1/(2β))², per token (arXiv 2310.12036).
    Ipo,
    /// KL(p_θ ‖ (1−s, s)) of the pair's two probabilities, p_θ = (σ(z), σ(−z)) (EXO, arXiv 2402.00856). Needs a
    /// `label_smoothing` s above 0.
    ExoPair,
    /// −log σ(r(chosen)) − ½·log σ(−r(chosen)) − ½·log σ(−r(rejected)) (NCA, arXiv 2402.05369).
    NcaPair,
    /// (−(1−s)·log σ(z) + s·log σ(−z)) / (1−2s): unbiased under swapped labels (arXiv 2403.00409).
    Robust,
    /// −log σ(r(chosen)) − log σ(−r(rejected)) (BCO without its moving shift, arXiv 2404.04656).
    BcoPair,
    /// (Δ(chosen) − 1/(2β))² + (Δ(rejected) + 1/(2β))² (SPPO, arXiv 2405.00675).
    SppoHard,
    /// −log σ(β·δ), δ the difference of the batch's sorted policy margins and sorted reference margins (AOT, arXiv 2406.05882).
    Aot,
    /// −log σ(β·δ), δ the difference of the batch's sorted Δ(chosen) and sorted Δ(rejected) (arXiv 2406.05882).
    AotUnpaired,
    /// 1 − σ(r(chosen)) + σ(r(rejected)) (APO-zero, arXiv 2408.06266).
    ApoZero,
    /// σ(r(chosen)) + 1 − σ(z) (APO-down, arXiv 2408.06266).
    ApoDown,
    /// (1 − m)·(−log σ(z)) + m·exp(−z) with m = σ(z/τ) (DiscoPOP, arXiv 2406.08414).
    Discopop,
    /// −log σ(β·(Δ(chosen)/|chosen| − Δ(rejected)/|rejected|)), per token.
    SigmoidNorm,
    /// −log σ(β·(Δ(chosen) − max(0, Δ(rejected)))): a rejected completion is pushed down only to where its reference has it
    /// (MinorDPO, arXiv 2408.09834).
    Minor,
}

impl PairLoss {
    /// Whether the loss of a pair depends on the other pairs of its batch.
    pub fn is_of_the_batch(self) -> bool {
        matches!(self, Self::Aot | Self::AotUnpaired)
    }

    /// Whether it reads how many tokens the completions have.
    pub fn is_per_token(self) -> bool {
        matches!(self, Self::Ipo | Self::SigmoidNorm)
    }
}

/// One loss, or several that are added up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected the name of a loss or a list of them")]
pub enum Losses {
    /// One.
    One(PairLoss),
    /// Several, weighted by `loss_weights`.
    Several(Vec<PairLoss>),
}

impl Default for Losses {
    fn default() -> Self {
        Self::One(PairLoss::default())
    }
}

impl Losses {
    /// The most losses that can be added up.
    pub const MAX: usize = 16;

    /// As a list.
    pub fn as_slice(&self) -> &[PairLoss] {
        match self {
            Self::One(loss) => std::slice::from_ref(loss),
            Self::Several(losses) => losses,
        }
    }
}

/// Everything an objective needs to know besides the numbers of the pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ObjectiveSpec {
    /// Strength of the tie to the references, β > 0.
    pub beta: f64,
    /// How the references are mixed.
    pub mix: Mix,
    /// The trust region around the base reference.
    pub clip: Clip,
    /// Its radius ε, 0 ≤ ε < 1 (for `adaptive`, the sum of both sides' radii).
    pub epsilon: f64,
    /// How the references are weighted.
    pub weighting: Weighting,
    /// Which reference a weight belongs to.
    pub weight_convention: WeightConvention,
    /// No virtual reference, but the weighted sum of the losses against each (clipped) reference (the method `multi_dpo`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sum_of_losses: bool,
    /// The loss of a pair.
    pub loss: Losses,
    /// Weight of each loss; 1 where the list is empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loss_weights: Vec<f64>,
    /// Assumed share of pairs whose two sides are the wrong way round, 0 ≤ s < 0.5; read by `sigmoid`, `exo_pair`, `robust`,
    /// `aot`, `aot_unpaired`.
    pub label_smoothing: f64,
    /// τ of `discopop`.
    pub discopop_tau: f64,
    /// Adds this times −log π_θ(chosen) per token.
    pub sft_weight: f64,
    /// Every log-probability is divided by its number of tokens first: the policy's and each reference's by its own.
    pub length_normalized: bool,
    /// `thompson`: a = b of the Beta distributions it starts from.
    pub thompson_prior: f64,
    /// `thompson`: validation pairs, drawn anew after every step, on which the policy's accuracy is measured.
    pub thompson_pairs: usize,
    /// Weight w₀ of the preference that is trained, 0 < w₀ ≤ 1: β becomes β/w₀ (the method `modpo`).
    #[serde(skip_serializing_if = "is_one")]
    pub preference_weight: f64,
    /// α of the optimism term α·β·(log π_θ(y′) − log π_ref(y′)) (the method `selm`).
    #[serde(skip_serializing_if = "is_zero")]
    pub optimism: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_one(x: &f64) -> bool {
    *x == 1.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(x: &f64) -> bool {
    *x == 0.0
}

impl Default for ObjectiveSpec {
    fn default() -> Self {
        Self {
            beta: 0.1,
            mix: Mix::default(),
            clip: Clip::default(),
            epsilon: 0.1,
            weighting: Weighting::default(),
            weight_convention: WeightConvention::default(),
            sum_of_losses: false,
            loss: Losses::default(),
            loss_weights: Vec::new(),
            label_smoothing: 0.0,
            discopop_tau: 0.05,
            sft_weight: 0.0,
            length_normalized: false,
            thompson_prior: 5.0,
            thompson_pairs: 32,
            preference_weight: 1.0,
            optimism: 0.0,
        }
    }
}

impl ObjectiveSpec {
    /// What its numbers may be.
    pub const LIMITS: [Limit; 7] = [
        ("beta", Range::above_to(0.0, 100.0)),
        ("epsilon", Range::from_to_below(0.0, 1.0)),
        ("label_smoothing", Range::from_to_below(0.0, 0.5)),
        // Above 1 the exponential part grows faster than its share falls.
        ("discopop_tau", Range::inside(0.0, 1.0)),
        ("sft_weight", Range::between(0.0, 1000.0)),
        ("thompson_prior", Range::between(1e-3, 1e6)),
        ("thompson_pairs", Range::between(1.0, 100_000.0)),
    ];
    /// What each of `loss_weights` may be.
    pub const LOSS_WEIGHT: Range = Range::between(0.0, 1000.0);

    /// The losses of a pair with their weights.
    pub fn weighted_losses(&self) -> impl Iterator<Item = (PairLoss, f64)> + '_ {
        let losses = self.loss.as_slice().iter().enumerate();
        losses.map(|(i, loss)| (*loss, self.loss_weights.get(i).copied().unwrap_or(1.0)))
    }

    /// Whether the loss of a pair depends on the other pairs of its batch.
    pub fn is_of_the_batch(&self) -> bool {
        self.loss.as_slice().iter().any(|loss| loss.is_of_the_batch())
    }

    /// Adds a problem for every value that is out of its range and every combination that makes no sense.
    pub fn validate(&self, pointer: &str, problems: &mut Problems) {
        let mut check = |field: &str, ok: bool, expected: &str| {
            if !ok {
                problems.at(format!("{pointer}/{field}"), "out_of_range", format!("{field} must be {expected}"));
            }
        };
        let values = [
            ("beta", self.beta),
            ("epsilon", self.epsilon),
            ("label_smoothing", self.label_smoothing),
            ("discopop_tau", self.discopop_tau),
            ("sft_weight", self.sft_weight),
            ("thompson_prior", self.thompson_prior),
            ("thompson_pairs", self.thompson_pairs as f64),
        ];
        for (field, value) in values {
            let range = range_of(&Self::LIMITS, field);
            check(field, range.contains(value), &range.to_string());
        }
        let losses = self.loss.as_slice();
        let n_distinct = losses.iter().enumerate().filter(|(i, loss)| !losses[..*i].contains(loss)).count();
        let is_list = (1..=Losses::MAX).contains(&losses.len()) && n_distinct == losses.len();
        check("loss", is_list, "at least one loss, and none of them twice");
        let are_weights = self.loss_weights.iter().all(|w| Self::LOSS_WEIGHT.contains(*w));
        check("loss_weights", are_weights, &format!("numbers {}", Self::LOSS_WEIGHT));
        if !self.loss_weights.is_empty() && self.loss_weights.len() != losses.len() {
            let message = format!(
                "{} weights for {} losses: give one per loss, or none for all to count the same",
                self.loss_weights.len(),
                losses.len()
            );
            problems.at(format!("{pointer}/loss_weights"), "inconsistent_length", message);
        }
        if losses.contains(&PairLoss::ExoPair) && self.label_smoothing == 0.0 {
            let message = "exo_pair needs a label_smoothing above 0; its paper recommends 0.001";
            problems.at(format!("{pointer}/label_smoothing"), "out_of_range", message);
        }
        if self.sum_of_losses && self.weight_convention == WeightConvention::AuthorsCode {
            let message = "the authors exchange the weights of the virtual reference only: a sum of losses has none";
            problems.at(format!("{pointer}/weight_convention"), "conflicting_fields", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(spec: &ObjectiveSpec) -> Vec<String> {
        let mut problems = Problems::default();
        spec.validate("/o", &mut problems);
        problems.first.into_iter().filter_map(|p| p.pointer).collect()
    }

    #[test]
    fn losses_are_one_or_a_list() {
        let read = |json: &str| serde_json::from_str::<ObjectiveSpec>(json);
        assert_eq!(read(r#"{"loss":"hinge"}"#).expect("one").loss.as_slice(), [PairLoss::Hinge]);
        let two = read(r#"{"loss":["sigmoid","bco_pair"],"loss_weights":[0.8,0.2]}"#).expect("two");
        assert_eq!(two.weighted_losses().collect::<Vec<_>>(), [(PairLoss::Sigmoid, 0.8), (PairLoss::BcoPair, 0.2)]);
        assert!(problems(&two).is_empty());
        assert!(read(r#"{"loss":"dpo"}"#).expect_err("unknown").to_string().contains("name of a loss"));
    }

    #[test]
    fn combinations_that_make_no_sense_are_refused() {
        let spec = ObjectiveSpec::default();
        assert!(problems(&spec).is_empty());
        let several = |losses: &[PairLoss]| Losses::Several(losses.to_vec());
        assert_eq!(problems(&ObjectiveSpec { loss: several(&[]), ..spec.clone() }), ["/o/loss"]);
        let twice = several(&[PairLoss::Hinge, PairLoss::Hinge]);
        assert_eq!(problems(&ObjectiveSpec { loss: twice, ..spec.clone() }), ["/o/loss"]);
        assert_eq!(problems(&ObjectiveSpec { loss_weights: vec![1.0, 1.0], ..spec.clone() }), ["/o/loss_weights"]);
        let exo = Losses::One(PairLoss::ExoPair);
        assert_eq!(problems(&ObjectiveSpec { loss: exo, ..spec.clone() }), ["/o/label_smoothing"]);
        let exchanged = WeightConvention::AuthorsCode;
        let exchanged = ObjectiveSpec { weight_convention: exchanged, sum_of_losses: true, ..spec };
        assert_eq!(problems(&exchanged), ["/o/weight_convention"]);
    }
}
