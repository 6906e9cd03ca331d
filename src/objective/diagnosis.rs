//! What the references' own numbers say about them, before any training: which one is of no use, and which does harm.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::metric;

/// Above this weight a reference decides where the policy is kept.
const DECIDES: f64 = 0.5;
/// Below this weight a reference does not count.
const HARDLY_COUNTS: f64 = 0.01;
/// From this share of pairs on, "nearly always" is said.
const NEARLY_ALWAYS: f64 = 0.95;

/// What was found out about a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It decides, and ranks most pairs the wrong way round.
    Harmful,
    /// It ranks fewer pairs as the data does than the base, and less than half of them: it pulls the other way.
    WorseThanBase,
    /// Its weight is next to nothing.
    NoWeight,
    /// The trust region nearly always puts another number in the place of its own.
    AlwaysClipped,
    /// It gives the base's log-probabilities.
    SameAsBase,
    /// The virtual reference is nearly always this one: the others do not count.
    AlwaysDecides,
}

/// A finding, for programs and for people.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnosis {
    /// The reference's name.
    pub reference: String,
    /// What was found out.
    pub finding: Finding,
    /// The same in words, with the way out.
    pub message: String,
}

/// Looks at the metrics of several references over a set of pairs (names in order, the base first); of a single one there is
/// nothing to say.
pub fn diagnose(reference_names: &[String], values: &BTreeMap<String, f64>) -> Vec<Diagnosis> {
    if reference_names.len() < 2 {
        return Vec::new();
    }
    let base = Numbers::of(&reference_names[0], values);
    let mut found = Vec::new();
    for (k, name) in reference_names.iter().enumerate() {
        let numbers = Numbers::of(name, values);
        let mut say = |finding, message: String| found.push(Diagnosis { reference: name.clone(), finding, message });
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        if numbers.weight > DECIDES && numbers.accuracy < 0.5 {
            let message = format!(
                "the reference {name} has {} of the weight and ranks only {} of the pairs as the data does: it keeps the \
                 policy where it should not be; take it out, or weight by accuracy (weighting vaw) or by hand (fixed)",
                percent(numbers.weight),
                percent(numbers.accuracy)
            );
            say(Finding::Harmful, message);
        } else if numbers.pulls_away_from(&base) {
            let message = format!(
                "the reference {name} ranks {} of the pairs as the data does, the base {}, and prefers the rejected completions \
                 by {:.1} nats more: without a trust region it can undo what the others teach; take it out, keep clip adaptive, \
                 or take weighting evidence",
                percent(numbers.accuracy),
                percent(base.accuracy),
                base.margin - numbers.margin
            );
            say(Finding::WorseThanBase, message);
        }
        if numbers.weight < HARDLY_COUNTS {
            let message = format!(
                "the reference {name} has {:.1} % of the weight: it does not count; take it out, or take weighting uniform",
                100.0 * numbers.weight
            );
            say(Finding::NoWeight, message);
        }
        if k > 0 && numbers.logps == base.logps {
            let message = format!("the reference {name} gives the log-probabilities of the base: it adds nothing");
            say(Finding::SameAsBase, message);
        } else if numbers.clip_fraction > NEARLY_ALWAYS {
            let message = format!(
                "the trust region moved {} of {name}'s log-probabilities to its edge: the reference says little itself; \
                 raise epsilon, or take clip none",
                percent(numbers.clip_fraction)
            );
            say(Finding::AlwaysClipped, message);
        }
        let others = reference_names.iter().filter(|other| *other != name);
        let is_alone = others.map(|other| Numbers::of(other, values).virtual_share).all(|share| share < 0.5);
        if numbers.virtual_share > NEARLY_ALWAYS && is_alone {
            let message = format!(
                "the virtual reference is {name} on {} of the pairs: the other references do not count",
                percent(numbers.virtual_share)
            );
            say(Finding::AlwaysDecides, message);
        }
    }
    found
}

struct Numbers {
    weight: f64,
    accuracy: f64,
    margin: f64,
    clip_fraction: f64,
    virtual_share: f64,
    logps: [f64; 2],
}

impl Numbers {
    fn of(name: &str, values: &BTreeMap<String, f64>) -> Self {
        let value = |key| values.get(&metric::of_reference(name, key)).copied().unwrap_or(f64::NAN);
        Self {
            weight: value(metric::REFERENCE_WEIGHT_MEAN),
            accuracy: value(metric::REFERENCE_ACCURACY),
            margin: value(metric::REFERENCE_MARGIN),
            clip_fraction: value(metric::REFERENCE_CLIP_FRACTION),
            virtual_share: value(metric::REFERENCE_VIRTUAL_SHARE),
            logps: [value(metric::LOGPS_CHOSEN), value(metric::LOGPS_REJECTED)],
        }
    }
}

impl Numbers {
    /// Whether a reference that counts is wrong more often than right, more often than the base, and by at least a nat.
    fn pulls_away_from(&self, base: &Self) -> bool {
        let is_wrong = self.accuracy < 0.5 && self.accuracy < base.accuracy;
        is_wrong && self.margin < base.margin - 1.0 && self.weight >= HARDLY_COUNTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{ObjectiveSpec, Sides, Weighting},
        objective::{Scored, StepMetrics, evaluate, properties::input},
    };

    /// What is found with these references on one pair.
    fn findings(references: &[(f64, f64)], spec: &ObjectiveSpec, weights: &[f64]) -> Vec<(String, Finding)> {
        let scored = |(chosen, rejected): (f64, f64)| Scored {
            logps: Sides { chosen, rejected },
            n_tokens: Sides { chosen: 9.0, rejected: 9.0 },
        };
        let names: Vec<String> = (0..references.len()).map(|k| format!("m{k}")).collect();
        let references: Vec<Scored> = references.iter().copied().map(scored).collect();
        let pair = input(references[0], &references);
        let outcomes = evaluate(spec, &[pair], weights).expect("finite");
        let mut metrics = StepMetrics::new(names.clone());
        metrics.add(spec.beta, &pair, &outcomes[0]);
        diagnose(&names, &metrics.values()).into_iter().map(|d| (d.reference, d.finding)).collect()
    }

    #[test]
    fn a_reference_that_decides_and_is_wrong_is_harmful() {
        let spec = ObjectiveSpec::default();
        let found = findings(&[(-40.0, -41.0), (-45.0, -40.0)], &spec, &[]);
        assert!(found.contains(&("m1".to_owned(), Finding::Harmful)), "{found:?}");
        assert!(findings(&[(-40.0, -43.0), (-42.5, -41.5)], &spec, &[]).iter().all(|f| f.1 != Finding::Harmful));
        assert!(findings(&[(-45.0, -40.0)], &spec, &[]).is_empty(), "there is no other to take");
    }

    #[test]
    fn a_reference_that_pulls_away_from_the_base_is_named_without_deciding() {
        let spec = ObjectiveSpec { weighting: Weighting::Uniform, ..ObjectiveSpec::default() };
        let found = findings(&[(-40.0, -41.0), (-45.0, -40.0), (-40.0, -47.0)], &spec, &[]);
        let named: Vec<_> = found.iter().filter(|f| f.1 == Finding::WorseThanBase).map(|f| f.0.as_str()).collect();
        assert_eq!(named, ["m1"], "{found:?}");
    }

    #[test]
    fn what_adds_nothing_is_named() {
        let fixed = ObjectiveSpec { weighting: Weighting::Fixed, ..ObjectiveSpec::default() };
        let found = findings(&[(-40.0, -43.0), (-40.0, -43.0), (-90.0, -90.5)], &fixed, &[0.5, 0.5, 0.0]);
        let expected = [("m1", Finding::SameAsBase), ("m2", Finding::NoWeight), ("m2", Finding::AlwaysClipped)];
        assert_eq!(found, expected.map(|(name, finding)| (name.to_owned(), finding)));
        let found = findings(&[(-40.0, -43.0), (-41.0, -44.5)], &fixed, &[0.0, 1.0]);
        assert!(found.contains(&("m1".to_owned(), Finding::AlwaysDecides)), "{found:?}");
    }
}
