//! Named lists of reference models.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ModelId, Ownership, Problems, ReferenceListId};

/// One reference: a registered model and, for `weighting: fixed`, its weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// A registered model.
    pub model: ModelId,
    /// Its weight α under `weighting: fixed`; given for all or for none, and they sum to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
}

/// A named list of references. A job's references are its own starting point (reference 0) and these.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferenceList {
    /// Its id.
    pub id: ReferenceListId,
    /// A name for people.
    pub name: String,
    /// The references, in order. The job's base may stand among them (to be given a weight); it is then not added again.
    pub references: Vec<Reference>,
    /// Unix time in seconds.
    pub created_at: i64,
    /// Whose it is.
    pub ownership: Ownership,
}

/// The most references one job can have besides its base.
pub const MAX_REFERENCES: usize = 64;

/// Checks a list on its own: not empty, not too long, no model twice, weights for all or none, finite, not negative, sum 1.
pub fn validate_references(references: &[Reference], pointer: &str, problems: &mut Problems) {
    if references.is_empty() {
        problems.at(pointer, "empty_list", "a reference list names at least one model");
    }
    if references.len() > MAX_REFERENCES {
        problems.at(pointer, "too_many", format!("at most {MAX_REFERENCES} references, got {}", references.len()));
    }
    for (i, reference) in references.iter().enumerate() {
        if references[..i].iter().any(|r| r.model == reference.model) {
            problems.at(
                format!("{pointer}/{i}/model"),
                "duplicate_reference",
                format!("'{}' is already in the list", reference.model),
            );
        }
        if let Some(w) = reference.weight
            && !(w.is_finite() && (0.0..=1.0).contains(&w))
        {
            problems.at(
                format!("{pointer}/{i}/weight"),
                "out_of_range",
                format!("a weight is between 0 and 1, got {w}"),
            );
        }
    }
    let given = references.iter().filter(|r| r.weight.is_some()).count();
    if given != 0 && given != references.len() {
        problems.at(
            pointer,
            "weights_incomplete",
            format!("{given} of {} references have a weight: give one to all of them or to none", references.len()),
        );
    } else if given != 0 {
        let sum: f64 = references.iter().filter_map(|r| r.weight).sum();
        if (sum - 1.0).abs() > 1e-6 {
            problems.at(pointer, "weights_do_not_sum_to_one", format!("the weights sum to {sum}, not to 1"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(list: &[(&str, Option<f64>)]) -> Vec<String> {
        let references: Vec<_> =
            list.iter().map(|(m, weight)| Reference { model: m.parse().expect("legal"), weight: *weight }).collect();
        let mut problems = Problems::default();
        validate_references(&references, "/references", &mut problems);
        problems.first.into_iter().map(|p| p.code).collect()
    }

    #[test]
    fn every_problem_of_a_list_is_named() {
        assert!(check(&[("a", None), ("b", None)]).is_empty());
        assert!(check(&[("a", Some(0.25)), ("b", Some(0.75))]).is_empty());
        assert_eq!(check(&[]), ["empty_list"]);
        assert_eq!(check(&[("a", None), ("a", None)]), ["duplicate_reference"]);
        assert_eq!(check(&[("a", Some(0.5)), ("b", None)]), ["weights_incomplete"]);
        assert_eq!(check(&[("a", Some(0.5)), ("b", Some(0.6))]), ["weights_do_not_sum_to_one"]);
        assert_eq!(check(&[("a", Some(f64::NAN))]), ["out_of_range"]);
    }
}
