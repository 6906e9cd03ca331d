//! Methods as a client asks for them: the type, and its settings in the section of that name.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Auto, ExtraField, HpoSettings, HyperparametersRequest, Method, MethodKind, ModelId, ModpoSettings, Problems, Range,
    Reference, ReferenceListId, SelmSettings, SpoSettings, TokenLevelSettings, range_of,
};

/// The method part of a job's body: its type, and its settings in the section of that name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MethodRequest {
    /// Which method.
    #[serde(rename = "type")]
    pub kind: MethodKind,
    /// Settings of `dpo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpo: Option<DpoRequest>,
    /// Settings of `mrpo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mrpo: Option<MrpoRequest>,
    /// Settings of `multi_dpo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multi_dpo: Option<MrpoRequest>,
    /// Settings of `modpo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modpo: Option<ModpoRequest>,
    /// Settings of `spo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spo: Option<SpoRequest>,
    /// Settings of `hpo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hpo: Option<HpoRequest>,
    /// Settings of `selm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selm: Option<SelmRequest>,
    /// Settings of `token_level`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_level: Option<TokenLevelRequest>,
}

/// Settings of `dpo`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DpoRequest {
    /// Settings; every one may be left out.
    pub hyperparameters: HyperparametersRequest,
}

/// Settings of `mrpo` and `multi_dpo`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MrpoRequest {
    /// The id of a reference list, or the references themselves. The policy's own start is always reference 0.
    pub references: ReferencesRequest,
    /// Settings; every one may be left out.
    #[serde(default)]
    pub hyperparameters: HyperparametersRequest,
}

/// Settings of `modpo`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModpoRequest {
    /// References besides the policy's own start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<ReferencesRequest>,
    /// Weight w₀ of the preference that is trained, above 0 and at most 1; default: 1 less the sum of `margin_weights`.
    #[serde(default)]
    pub preference_weight: Auto<f64>,
    /// Weight of each margin reward of a row.
    pub margin_weights: Vec<f64>,
    /// Settings; every one may be left out.
    #[serde(default)]
    pub hyperparameters: HyperparametersRequest,
}

/// Settings of `spo`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SpoRequest {
    /// References besides the policy's own start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<ReferencesRequest>,
    /// Which rows are trained on.
    pub dimension: String,
    /// What the first round started from, then the model of every round but the last; empty in the first round.
    #[serde(default)]
    pub earlier: Vec<ModelId>,
    /// λ of each earlier round, as many as `earlier`; default: 1 each.
    #[serde(default)]
    pub lambdas: Auto<Vec<f64>>,
    /// Settings; every one may be left out.
    #[serde(default)]
    pub hyperparameters: HyperparametersRequest,
}

/// Settings of `hpo`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields are those of `HpoSettings`")]
pub struct HpoRequest {
    /// References besides the policy's own start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub references: Option<ReferencesRequest>,
    pub gamma: Auto<f64>,
    pub temperature: Auto<f64>,
    pub advantage_clip: Auto<f64>,
    pub reward_weights: Auto<Vec<f64>>,
    /// Settings; every one may be left out.
    pub hyperparameters: HyperparametersRequest,
}

/// Settings of `selm`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SelmRequest {
    /// References besides the policy's own start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub references: Option<ReferencesRequest>,
    /// α of the optimism term, between 0 and 1; default 0.001.
    pub alpha: Auto<f64>,
    /// Settings; every one may be left out.
    pub hyperparameters: HyperparametersRequest,
}

/// Settings of `token_level`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokenLevelRequest {
    /// References besides the policy's own start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub references: Option<ReferencesRequest>,
    /// Weight of the tokens outside the spans, between 0 and 1; default 0.
    pub outside_weight: Auto<f64>,
    /// Settings; every one may be left out.
    pub hyperparameters: HyperparametersRequest,
}

/// References by the id of their list, or as a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected the id of a reference list (reflist-...) or a list of {\"model\", \"weight\"?}"
)]
pub enum ReferencesRequest {
    /// A stored list.
    List(ReferenceListId),
    /// The references themselves.
    Inline(Vec<Reference>),
}

impl MethodRequest {
    /// The references that the section of its type asks for.
    pub fn references(&self) -> Option<&ReferencesRequest> {
        match self.kind {
            MethodKind::Dpo => None,
            MethodKind::Mrpo => self.mrpo.as_ref().map(|m| &m.references),
            MethodKind::MultiDpo => self.multi_dpo.as_ref().map(|m| &m.references),
            MethodKind::Modpo => self.modpo.as_ref()?.references.as_ref(),
            MethodKind::Spo => self.spo.as_ref()?.references.as_ref(),
            MethodKind::Hpo => self.hpo.as_ref()?.references.as_ref(),
            MethodKind::Selm => self.selm.as_ref()?.references.as_ref(),
            MethodKind::TokenLevel => self.token_level.as_ref()?.references.as_ref(),
        }
    }

    /// The settings of the section of its type.
    pub fn hyperparameters(&self) -> Option<&HyperparametersRequest> {
        match self.kind {
            MethodKind::Dpo => self.dpo.as_ref().map(|m| &m.hyperparameters),
            MethodKind::Mrpo => self.mrpo.as_ref().map(|m| &m.hyperparameters),
            MethodKind::MultiDpo => self.multi_dpo.as_ref().map(|m| &m.hyperparameters),
            MethodKind::Modpo => self.modpo.as_ref().map(|m| &m.hyperparameters),
            MethodKind::Spo => self.spo.as_ref().map(|m| &m.hyperparameters),
            MethodKind::Hpo => self.hpo.as_ref().map(|m| &m.hyperparameters),
            MethodKind::Selm => self.selm.as_ref().map(|m| &m.hyperparameters),
            MethodKind::TokenLevel => self.token_level.as_ref().map(|m| &m.hyperparameters),
        }
    }

    /// Where the section of its type stands in a job's body.
    pub fn pointer(&self) -> String {
        format!("/method/{}", self.kind.as_str())
    }

    /// Fills in the defaults of the method's own settings and checks them.
    pub fn resolve(&self, problems: &mut Problems) -> Method {
        self.check_sections(problems);
        let at = self.pointer();
        let method = match self.kind {
            MethodKind::Dpo => Method::Dpo,
            MethodKind::Mrpo => Method::Mrpo,
            MethodKind::MultiDpo => Method::MultiDpo,
            MethodKind::Modpo => Method::Modpo(resolve_modpo(self.modpo.as_ref(), &at, problems)),
            MethodKind::Spo => Method::Spo(resolve_spo(self.spo.as_ref(), &at, problems)),
            MethodKind::Hpo => Method::Hpo(resolve_hpo(self.hpo.as_ref(), &at, problems)),
            MethodKind::Selm => {
                let alpha = self.selm.as_ref().map_or(1e-3, |m| m.alpha.or(1e-3));
                check_range(problems, &at, "alpha", alpha, SelmSettings::ALPHA);
                Method::Selm(SelmSettings { alpha })
            }
            MethodKind::TokenLevel => {
                let outside_weight = self.token_level.as_ref().map_or(0.0, |m| m.outside_weight.or(0.0));
                check_range(problems, &at, "outside_weight", outside_weight, TokenLevelSettings::OUTSIDE_WEIGHT);
                Method::TokenLevel(TokenLevelSettings { outside_weight })
            }
        };
        let needs = match self.kind {
            MethodKind::Mrpo | MethodKind::MultiDpo => "references",
            MethodKind::Modpo => "margin_weights",
            MethodKind::Spo => "dimension",
            _ => return method,
        };
        if self.hyperparameters().is_none() {
            let kind = self.kind.as_str();
            problems.at(&at, "missing_field", format!("{kind} needs method.{kind}.{needs}"));
        }
        method
    }

    /// Settings in another section than that of the type would be read by nobody.
    fn check_sections(&self, problems: &mut Problems) {
        let sections = [
            (MethodKind::Dpo, self.dpo.is_some()),
            (MethodKind::Mrpo, self.mrpo.is_some()),
            (MethodKind::MultiDpo, self.multi_dpo.is_some()),
            (MethodKind::Modpo, self.modpo.is_some()),
            (MethodKind::Spo, self.spo.is_some()),
            (MethodKind::Hpo, self.hpo.is_some()),
            (MethodKind::Selm, self.selm.is_some()),
            (MethodKind::TokenLevel, self.token_level.is_some()),
        ];
        for (section, is_there) in sections {
            if is_there && section != self.kind {
                let (section, kind) = (section.as_str(), self.kind.as_str());
                let message = format!("the type is {kind}: give its settings under method.{kind}");
                problems.at(format!("/method/{section}"), "conflicting_fields", message);
            }
        }
    }
}

fn check(problems: &mut Problems, pointer: &str, field: &str, ok: bool, expected: &str) {
    if !ok {
        problems.at(format!("{pointer}/{field}"), "out_of_range", format!("{field} must be {expected}"));
    }
}

fn check_range(problems: &mut Problems, pointer: &str, field: &str, value: f64, range: Range) {
    check(problems, pointer, field, range.contains(value), &range.to_string());
}

fn resolve_modpo(request: Option<&ModpoRequest>, at: &str, problems: &mut Problems) -> ModpoSettings {
    let Some(request) = request else { return ModpoSettings { preference_weight: 1.0, margin_weights: Vec::new() } };
    let margin_weights = request.margin_weights.clone();
    let are_weights = (1..=ExtraField::MAX_REWARDS).contains(&margin_weights.len())
        && margin_weights.iter().all(|w| ModpoSettings::MARGIN_WEIGHT.contains(*w));
    let expected = format!("1 to {} numbers {}", ExtraField::MAX_REWARDS, ModpoSettings::MARGIN_WEIGHT);
    check(problems, at, "margin_weights", are_weights, &expected);
    let rest = 1.0 - margin_weights.iter().sum::<f64>();
    let preference_weight = request.preference_weight.or(rest);
    let range = ModpoSettings::PREFERENCE_WEIGHT;
    let expected = format!("{range}; left out, it is 1 less the sum of margin_weights");
    check(problems, at, "preference_weight", range.contains(preference_weight), &expected);
    ModpoSettings { preference_weight, margin_weights }
}

fn resolve_spo(request: Option<&SpoRequest>, at: &str, problems: &mut Problems) -> SpoSettings {
    let Some(request) = request else {
        return SpoSettings { dimension: String::new(), earlier: Vec::new(), lambdas: Vec::new() };
    };
    let SpoRequest { dimension, earlier, .. } = request.clone();
    let lambdas = request.lambdas.clone().or(vec![1.0; earlier.len()]);
    let is_name = !dimension.trim().is_empty() && dimension.chars().count() <= ExtraField::MAX_DIMENSION_CHARS;
    check(problems, at, "dimension", is_name, "the value of the rows' field `dimension`, 1 to 64 characters");
    let max = SpoSettings::MAX_EARLIER;
    check(problems, at, "earlier", earlier.len() <= max, &format!("at most {max} models"));
    let are_weights = lambdas.iter().all(|w| SpoSettings::LAMBDA.contains(*w));
    check(problems, at, "lambdas", are_weights, &format!("numbers {}", SpoSettings::LAMBDA));
    if lambdas.len() != earlier.len() {
        let message = format!("{} lambdas for {} earlier models: give one for each", lambdas.len(), earlier.len());
        problems.at(format!("{at}/lambdas"), "inconsistent_length", message);
    }
    SpoSettings { dimension, earlier, lambdas }
}

fn resolve_hpo(request: Option<&HpoRequest>, at: &str, problems: &mut Problems) -> HpoSettings {
    let request = request.cloned().unwrap_or_default();
    let settings = HpoSettings {
        gamma: request.gamma.or(0.1),
        temperature: request.temperature.or(1.0),
        advantage_clip: request.advantage_clip.or(3.0),
        reward_weights: request.reward_weights.or(Vec::new()),
    };
    let values =
        [("gamma", settings.gamma), ("temperature", settings.temperature), ("advantage_clip", settings.advantage_clip)];
    for (field, value) in values {
        check_range(problems, at, field, value, range_of(&HpoSettings::LIMITS, field));
    }
    let weights = &settings.reward_weights;
    let are_weights =
        weights.len() <= ExtraField::MAX_REWARDS && weights.iter().all(|w| HpoSettings::REWARD_WEIGHT.contains(*w));
    let expected = format!("at most {} numbers {}", ExtraField::MAX_REWARDS, HpoSettings::REWARD_WEIGHT);
    check(problems, at, "reward_weights", are_weights, &expected);
    settings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::ObjectiveSpec;

    fn resolve(body: serde_json::Value) -> (Method, Vec<String>) {
        let request: MethodRequest = serde_json::from_value(body).expect("well formed");
        let mut problems = Problems::default();
        let method = request.resolve(&mut problems);
        (method, problems.first.into_iter().map(|p| format!("{} {}", p.pointer.unwrap_or_default(), p.code)).collect())
    }

    #[test]
    fn every_section_is_read_by_its_type_only() {
        assert_eq!(resolve(json!({"type": "mrpo"})).1, ["/method/mrpo missing_field"]);
        assert_eq!(
            resolve(json!({"type": "dpo", "mrpo": {"references": [{"model": "x"}]}, "selm": {}})).1,
            ["/method/mrpo conflicting_fields", "/method/selm conflicting_fields"]
        );
        assert!(resolve(json!({"type": "hpo"})).1.is_empty());
        assert_eq!(resolve(json!({"type": "modpo"})).1, ["/method/modpo missing_field"]);
    }

    #[test]
    fn the_trained_preference_has_the_rest_of_the_weight() {
        let (method, problems) = resolve(json!({"type": "modpo", "modpo": {"margin_weights": [0.25, 0.5]}}));
        assert!(problems.is_empty(), "{problems:?}");
        let expected = ModpoSettings { preference_weight: 0.25, margin_weights: vec![0.25, 0.5] };
        assert_eq!(method, Method::Modpo(expected));
        let mut objective = ObjectiveSpec::default();
        method.apply_to(&mut objective);
        assert_eq!(objective.preference_weight, 0.25);
        let all = resolve(json!({"type": "modpo", "modpo": {"margin_weights": [1.0]}})).1;
        assert_eq!(all, ["/method/modpo/preference_weight out_of_range"]);
    }

    #[test]
    fn a_lambda_goes_with_every_earlier_round() {
        let spo = |rest: serde_json::Value| {
            let mut section = json!({"dimension": "safety"});
            section.as_object_mut().expect("object").extend(rest.as_object().expect("object").clone());
            resolve(json!({"type": "spo", "spo": section}))
        };
        let (method, problems) = spo(json!({"earlier": ["start", "first"]}));
        assert!(problems.is_empty());
        assert!(matches!(method, Method::Spo(s) if s.lambdas == [1.0, 1.0]));
        assert_eq!(spo(json!({"lambdas": [0.5]})).1, ["/method/spo/lambdas inconsistent_length"]);
    }

    #[test]
    fn auxiliary_rewards_make_one() {
        let (method, _) = resolve(json!({"type": "hpo"}));
        let Method::Hpo(mut settings) = method else { panic!("{method:?}") };
        assert_eq!(settings.reward(&[1.0, 3.0]), 2.0);
        settings.reward_weights = vec![1.0, -0.5];
        assert_eq!(settings.reward(&[1.0, 3.0]), -0.5);
    }
}
