//! What a sample's log-probabilities say: of a model alone, beside the base, and in the objective.

use std::collections::BTreeMap;

use super::{super::training::fixed_weights, Given, models::Model, sample::Speed};
use crate::{
    domain::{ModelId, ObjectiveSpec, ReferenceRole, SampleFitness, Sides, TrainSpec, Weighting, metric},
    objective::{Diagnosis, PairInput, Scored, SetStrengths, StepMetrics, diagnose, evaluate},
};

/// A model's numbers.
#[derive(Debug, Clone)]
pub(super) struct Spoken {
    /// Per pair of the sample.
    pub(super) scored: Vec<Scored>,
    /// Tokens that were computed.
    pub(super) n_tokens: u64,
    pub(super) duration_ms: Option<f64>,
    pub(super) speed: Option<Speed>,
}

impl Spoken {
    /// Of scores made elsewhere, at the places of the sample.
    pub(super) fn given(given: &Given, places: &[usize]) -> Result<Self, String> {
        let column = match given {
            Given::All(column) => column,
            Given::Unfit(why) => return Err(why.clone()),
            Given::Not => return Err("it has no scores".to_owned()),
        };
        let of_place = |place: &usize| {
            let (chosen, rejected) = (column[*place][0], column[*place][1]);
            Scored {
                logps: Sides { chosen: chosen.logp, rejected: rejected.logp },
                n_tokens: Sides { chosen: chosen.n_tokens, rejected: rejected.n_tokens },
            }
        };
        Ok(Self { scored: places.iter().map(of_place).collect(), n_tokens: 0, duration_ms: None, speed: None })
    }
}

/// The references in the objective, as before the first step.
pub(super) struct Start {
    /// The metrics under `refs/`; none where the base has no numbers.
    pub(super) values: Option<BTreeMap<String, f64>>,
    pub(super) findings: Vec<Diagnosis>,
}

impl Start {
    /// Of the references that have numbers, the others left out.
    pub(super) fn of(train: &TrainSpec, models: &[Model<'_>], spoken: &[Result<Spoken, String>]) -> Self {
        let nothing = Self { values: None, findings: Vec::new() };
        if !matches!(spoken.first(), Some(Ok(_))) {
            return nothing;
        }
        let has_part = |(model, said): &(&Model<'_>, &Result<Spoken, String>)| {
            model.role != ReferenceRole::Earlier && said.is_ok()
        };
        let (names, columns): (Vec<String>, Vec<&Spoken>) = models
            .iter()
            .zip(spoken)
            .filter(has_part)
            .filter_map(|(model, said)| Some((model.reference.model.to_string(), said.as_ref().ok()?)))
            .unzip();
        let fixed = fixed_weights(train);
        let fixed = models.iter().zip(spoken).filter(has_part).map(|(model, _)| fixed[model.number]).collect();
        let Some(values) = at_start(train, &names, &columns, fixed) else { return nothing };
        let findings = diagnose(&names, &values);
        Self { values: Some(values), findings }
    }
}

fn at_start(
    train: &TrainSpec,
    names: &[String],
    columns: &[&Spoken],
    fixed: Vec<f64>,
) -> Option<BTreeMap<String, f64>> {
    // The policy is the base, and what pairs have besides their references moves no reference.
    let objective = ObjectiveSpec { optimism: 0.0, ..train.hyperparameters.objective.clone() };
    let n_pairs = columns.first()?.scored.len();
    let pairs: Vec<Vec<Scored>> =
        (0..n_pairs).map(|i| columns.iter().map(|column| column.scored[i]).collect()).collect();
    let weights = set_weights(&objective, &pairs, fixed);
    let mut metrics = StepMetrics::new(names.iter().cloned());
    for pairs in pairs.chunks(train.hyperparameters.batch_size) {
        let inputs: Vec<PairInput<'_>> = pairs.iter().map(input).collect();
        let outcomes = evaluate(&objective, &inputs, &weights).ok()?;
        inputs.iter().zip(&outcomes).for_each(|(input, outcome)| metrics.add(objective.beta, input, outcome));
    }
    Some(metrics.values())
}

/// A pair before the first step, when the policy is the base.
fn input(references: &Vec<Scored>) -> PairInput<'_> {
    PairInput {
        policy: references[0],
        references,
        other_rewards: Sides::default(),
        likelihood: Sides::default(),
        optimism: None,
    }
}

/// Weights that do not come from the pair alone: those that look at a validation set look at the sample here.
fn set_weights(objective: &ObjectiveSpec, pairs: &[Vec<Scored>], fixed: Vec<f64>) -> Vec<f64> {
    let n = fixed.len();
    let strengths = |pairs: &[Vec<Scored>]| {
        SetStrengths::of(n, objective, pairs.iter().map(Vec::as_slice)).weights(objective.weighting)
    };
    let weights = match objective.weighting {
        Weighting::Fixed => {
            let sum: f64 = fixed.iter().sum();
            (sum > 0.0).then(|| fixed.iter().map(|weight| weight / sum).collect())
        }
        Weighting::Vdw | Weighting::Vaw | Weighting::Evidence => strengths(pairs),
        Weighting::SwcwOneHot => strengths(&[]),
        Weighting::Swcw | Weighting::Arwc | Weighting::MaxMargin | Weighting::Uniform | Weighting::Thompson => None,
    };
    weights.unwrap_or_else(|| vec![1.0 / n as f64; n])
}

/// What is answered of a model's numbers.
pub(super) fn fitness(
    said: &Spoken,
    base: Option<&Spoken>,
    (model, at_start): (&ModelId, Option<&BTreeMap<String, f64>>),
) -> SampleFitness {
    let n = said.scored.len() as f64;
    let mean = |of: &dyn Fn(&Scored) -> f64| said.scored.iter().map(of).sum::<f64>() / n;
    let nats = nats_per_completion(said);
    let n_tokens: f64 = said.scored.iter().map(|s| s.n_tokens.chosen + s.n_tokens.rejected).sum();
    let of_start = |name| at_start?.get(&metric::of_reference(model.as_str(), name)).copied();
    SampleFitness {
        n_pairs: said.scored.len() as u64,
        accuracy: mean(&|s| if s.logps.margin() > 0.0 { 1.0 } else { 0.0 }),
        margin: mean(&|s| s.logps.margin()),
        nats_per_completion: nats,
        nats_per_token: Some(2.0 * n * nats / n_tokens).filter(|x| x.is_finite()),
        scale: base.map(|base| nats / nats_per_completion(base)).filter(|x| x.is_finite()),
        margin_correlation: base.and_then(|base| correlation(&margins(said), &margins(base))),
        weight_mean: of_start(metric::REFERENCE_WEIGHT_MEAN),
        clip_fraction: of_start(metric::REFERENCE_CLIP_FRACTION),
        n_tokens: said.n_tokens,
        duration_ms: said.duration_ms,
    }
}

fn nats_per_completion(said: &Spoken) -> f64 {
    let sum: f64 = said.scored.iter().map(|s| s.logps.chosen.abs() + s.logps.rejected.abs()).sum();
    sum / (2 * said.scored.len()) as f64
}

fn margins(said: &Spoken) -> Vec<f64> {
    said.scored.iter().map(|scored| scored.logps.margin()).collect()
}

/// Pearson's; `None` of fewer than three pairs, or where all are the same.
fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() < 3 {
        return None;
    }
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let product = |x: &[f64], of_x: f64, y: &[f64], of_y: f64| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - of_x) * (y - of_y)).sum()
    };
    let of_both = product(a, mean_a, b, mean_b);
    let spread = product(a, mean_a, a, mean_a).sqrt() * product(b, mean_b, b, mean_b).sqrt();
    Some((of_both / spread).clamp(-1.0, 1.0)).filter(|r| r.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(logps: &[(f64, f64)]) -> Spoken {
        let scored = |(chosen, rejected): &(f64, f64)| Scored {
            logps: Sides { chosen: *chosen, rejected: *rejected },
            n_tokens: Sides { chosen: 10.0, rejected: 20.0 },
        };
        Spoken { scored: logps.iter().map(scored).collect(), n_tokens: 0, duration_ms: None, speed: None }
    }

    #[test]
    fn numbers_are_means_over_the_pairs_and_beside_the_base() {
        let base = spoken(&[(-10.0, -20.0), (-30.0, -20.0), (-10.0, -10.0)]);
        let other = spoken(&[(-20.0, -40.0), (-60.0, -40.0), (-20.0, -20.0)]);
        let model: ModelId = "m".parse().expect("an id");
        let found = fitness(&other, Some(&base), (&model, None));
        assert_eq!((found.n_pairs, found.accuracy, found.margin), (3, 1.0 / 3.0, 0.0));
        assert!((found.nats_per_completion - 200.0 / 6.0).abs() < 1e-12, "{found:?}");
        assert!((found.nats_per_token.expect("counts") - 200.0 / 90.0).abs() < 1e-12, "{found:?}");
        assert_eq!(found.scale, Some(2.0));
        assert!((found.margin_correlation.expect("three pairs") - 1.0).abs() < 1e-12);
        assert_eq!((found.weight_mean, found.clip_fraction), (None, None));
    }

    #[test]
    fn a_correlation_needs_something_that_varies() {
        assert_eq!(correlation(&[1.0, 2.0], &[1.0, 2.0]), None);
        assert_eq!(correlation(&[1.0, 1.0, 1.0], &[1.0, 2.0, 3.0]), None);
        let found = correlation(&[1.0, 2.0, 3.0], &[3.0, 1.0, 2.0]).expect("varies");
        assert!((found + 0.5).abs() < 1e-12, "{found}");
    }
}
