//! What a method takes from a row beyond its pair: checked, brought into the pair, turned into numbers of the objective.

use std::collections::HashMap;

use crate::{
    dataset::{ExtraFields, PreferencePair, Prompt},
    domain::{ExtraField, HpoSettings, Method, Sides},
    objective::{advantage_weights, margin_rewards},
};

/// The pair as the method trains it: the edited response in its place, extra fields of other methods left out. `None` where
/// the method leaves the row out.
///
/// # Errors
/// In words, where the row lacks what the method needs.
pub(super) fn take(method: &Method, pair: PreferencePair) -> Result<Option<PreferencePair>, String> {
    let Some(field) = method.row_field() else {
        return Ok(Some(PreferencePair { extra: ExtraFields::default(), ..pair }));
    };
    let pair = if field == ExtraField::TokenSpans { pair.with_edit_as_spans() } else { pair };
    let PreferencePair { line, prompt, chosen, rejected, extra } = pair;
    let extra = only(field, extra);
    let kind = method.kind().as_str();
    if !extra.has(field) {
        return Err(format!("{kind} needs {}: give them on every line", field.row_fields()));
    }
    let n_values = extra.margin_rewards.as_ref().or(extra.aux_rewards.as_ref()).map(|rewards| rewards.chosen.len());
    if let (Some(expected), Some(found)) = (method.n_row_values(), n_values)
        && expected != found
    {
        return Err(format!("{kind} has {expected} weights for {found} {field}: give one weight per reward"));
    }
    if let Method::Spo(settings) = method
        && extra.dimension.as_ref() != Some(&settings.dimension)
    {
        return Ok(None);
    }
    Ok(Some(PreferencePair { line, prompt, chosen, rejected, extra }))
}

/// The one field that is used; a reference is asked for nothing that the method does not read.
fn only(field: ExtraField, extra: ExtraFields) -> ExtraFields {
    let ExtraFields { margin_rewards, aux_rewards, dimension, reference_response, spans, .. } = extra;
    let none = ExtraFields::default();
    match field {
        ExtraField::MarginRewards => ExtraFields { margin_rewards, ..none },
        ExtraField::AuxRewards => ExtraFields { aux_rewards, ..none },
        ExtraField::Dimension => ExtraFields { dimension, ..none },
        ExtraField::ReferenceResponse => ExtraFields { reference_response, ..none },
        ExtraField::TokenSpans => ExtraFields { spans, ..none },
    }
}

/// wᵀR of each completion under `modpo`, else nothing.
pub(super) fn other_rewards(method: &Method, extra: &ExtraFields) -> Sides<f64> {
    match (method, &extra.margin_rewards) {
        (Method::Modpo(settings), Some(rewards)) => margin_rewards(&settings.margin_weights, rewards),
        _ => Sides::default(),
    }
}

/// The likelihood weights of a file's pairs under `hpo`: the mean reward of all completions of a prompt is its baseline.
pub(super) fn likelihood<'a>(
    settings: &HpoSettings,
    pairs: impl Iterator<Item = &'a PreferencePair> + Clone,
) -> Vec<Sides<f64>> {
    let reward = |pair: &PreferencePair| match &pair.extra.aux_rewards {
        Some(Sides { chosen, rejected }) => Sides { chosen, rejected }.map(|rewards| settings.reward(rewards)),
        None => Sides::default(),
    };
    let mut sums: HashMap<&Prompt, (f64, f64)> = HashMap::new();
    for pair in pairs.clone() {
        let Sides { chosen, rejected } = reward(pair);
        let (sum, n) = sums.entry(&pair.prompt).or_default();
        *sum += chosen + rejected;
        *n += 2.0;
    }
    let weights = pairs.map(|pair| {
        let (sum, n) = sums[&pair.prompt];
        advantage_weights(settings, reward(pair), sum / n)
    });
    weights.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ModpoSettings, SelmSettings, SpoSettings, TokenLevelSettings};

    fn pair(prompt: &str, extra: ExtraFields) -> PreferencePair {
        let (chosen, rejected) = ("a kind word".to_owned(), "a rude word".to_owned());
        PreferencePair { line: 3, prompt: Prompt::Text(prompt.into()), chosen, rejected, extra }
    }

    fn rewards(chosen: f64, rejected: f64) -> ExtraFields {
        let aux_rewards = Some(Sides { chosen: vec![chosen], rejected: vec![rejected] });
        ExtraFields { aux_rewards, ..ExtraFields::default() }
    }

    #[test]
    fn a_method_takes_its_own_field_only() {
        let extra = ExtraFields {
            dimension: Some("tone".into()),
            reference_response: Some("well".into()),
            ..rewards(1.0, 0.0)
        };
        let taken = |method: &Method| take(method, pair("p", extra.clone())).map(|pair| pair.map(|p| p.extra));
        assert_eq!(taken(&Method::Mrpo), Ok(Some(ExtraFields::default())));
        let selm = Method::Selm(SelmSettings { alpha: 0.1 });
        let expected = ExtraFields { reference_response: Some("well".into()), ..ExtraFields::default() };
        assert_eq!(taken(&selm), Ok(Some(expected)));
        let spo = |dimension: &str| {
            Method::Spo(SpoSettings { dimension: dimension.into(), earlier: Vec::new(), lambdas: Vec::new() })
        };
        assert!(taken(&spo("tone")).expect("taken").is_some());
        assert_eq!(taken(&spo("truth")), Ok(None));
    }

    #[test]
    fn what_a_method_lacks_is_said() {
        let modpo =
            |n| Method::Modpo(ModpoSettings { preference_weight: 0.5, margin_weights: vec![0.5 / n as f64; n] });
        let lacks = take(&modpo(1), pair("p", ExtraFields::default())).expect_err("refused");
        assert!(lacks.starts_with("modpo needs the fields `margin_rewards_chosen`"), "{lacks}");
        let extra = ExtraFields {
            margin_rewards: Some(Sides { chosen: vec![1.0], rejected: vec![2.0] }),
            ..ExtraFields::default()
        };
        let message = take(&modpo(2), pair("p", extra)).expect_err("refused");
        assert!(message.contains("2 weights for 1 margin_rewards"), "{message}");
    }

    #[test]
    fn an_edited_response_is_what_is_preferred() {
        let method = Method::TokenLevel(TokenLevelSettings { outside_weight: 0.0 });
        let extra = ExtraFields { edited_response: Some("a good word".into()), ..ExtraFields::default() };
        let taken = take(&method, pair("p", extra)).expect("taken").expect("not left out");
        assert_eq!(taken.chosen, "a good word");
        assert!(taken.extra.spans.is_some() && taken.extra.edited_response.is_none());
    }

    #[test]
    fn the_baseline_is_the_prompts_mean() {
        let settings = HpoSettings { gamma: 1.0, temperature: 1.0, advantage_clip: 9.0, reward_weights: Vec::new() };
        let pairs = [pair("p", rewards(4.0, 0.0)), pair("p", rewards(2.0, 2.0)), pair("q", rewards(1.0, 0.0))];
        let weights = likelihood(&settings, pairs.iter());
        let advantages: Vec<_> = weights.iter().map(|w| w.map(f64::ln)).collect();
        let expected = [(2.0, -2.0), (0.0, 0.0), (0.5, -0.5)];
        for (got, (chosen, rejected)) in advantages.iter().zip(expected) {
            assert!((got.chosen - chosen).abs() < 1e-12 && (got.rejected - rejected).abs() < 1e-12, "{got:?}");
        }
    }
}
