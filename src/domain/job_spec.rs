//! A job as it is accepted: everything filled in and checked that can be checked without looking anything up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    FileId, Hyperparameters, JobRequest, Method, MethodKind, ModelId, Problems, Reference, ReferenceListId,
    ReferencesRequest, Retention, RetentionDefaults, WeightConvention, Weighting, validate_references,
};

/// A job as accepted: everything filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobSpec {
    /// The model to start from.
    pub model: ModelId,
    /// The preference pairs to train on.
    pub training_file: FileId,
    /// Held-out pairs.
    pub validation_file: Option<FileId>,
    /// Seed of everything random.
    pub seed: u32,
    /// Part of the tuned model's name.
    pub suffix: Option<String>,
    /// The client's own texts.
    pub metadata: Option<BTreeMap<String, String>>,
    /// The method and its own settings.
    pub method: Method,
    /// The list the references were taken from, if they were.
    pub reference_list: Option<ReferenceListId>,
    /// The references; number 0 is `model` itself.
    pub references: Vec<Reference>,
    /// All settings.
    pub hyperparameters: Hyperparameters,
    /// What of it is kept on the disk.
    #[serde(default)]
    pub retention: Retention,
}

impl JobSpec {
    /// Fills in the defaults and checks everything that can be checked without looking anything up.
    ///
    /// `listed` is the content of the reference list that the request names, `seed` the one to use where none is given.
    /// The result is only meaningful where no problem was added.
    pub fn resolve(request: &JobRequest, listed: Option<&[Reference]>, seed: u32, problems: &mut Problems) -> Self {
        check_texts(request, problems);
        let seed = match request.seed {
            None => seed,
            Some(given) => u32::try_from(given).ok().filter(|s| *s <= JobRequest::MAX_SEED).unwrap_or_else(|| {
                problems.at("/seed", "out_of_range", format!("a seed is between 0 and {}", JobRequest::MAX_SEED));
                0
            }),
        };
        let asked = &request.method;
        let method = asked.resolve(problems);
        let (reference_list, extra) = match asked.references() {
            None => (None, Vec::new()),
            Some(ReferencesRequest::Inline(references)) => {
                validate_references(references, &format!("{}/references", asked.pointer()), problems);
                (None, references.clone())
            }
            Some(ReferencesRequest::List(id)) => (Some(id.clone()), listed.unwrap_or_default().to_vec()),
        };
        let settings = asked.hyperparameters().cloned().unwrap_or_default();
        let at = format!("{}/hyperparameters", asked.pointer());
        let mut hyperparameters = Hyperparameters::resolve(&settings, &method, &at, problems);
        let references = with_base(&request.model, extra);
        // Whoever gives weights wants them read.
        if settings.weighting.given().is_none() && references.iter().any(|r| r.weight.is_some()) {
            hyperparameters.objective.weighting = Weighting::Fixed;
        }
        check_weighting(request, &hyperparameters, &references, problems);
        Self {
            model: request.model.clone(),
            training_file: request.training_file.clone(),
            validation_file: request.validation_file.clone(),
            seed,
            suffix: request.suffix.clone(),
            metadata: request.metadata.clone(),
            method,
            reference_list,
            references,
            hyperparameters,
            retention: Retention::default(),
        }
    }

    /// Fills in what is kept, where it was not said as the operator has.
    pub fn resolve_retention(&mut self, request: &JobRequest, defaults: RetentionDefaults, problems: &mut Problems) {
        let has_validation = request.validation_file.is_some();
        self.retention = Retention::resolve(request.retention.as_ref(), defaults, has_validation, problems);
    }

    /// The policies of earlier rounds, oldest first (the method `spo`).
    pub fn earlier(&self) -> &[ModelId] {
        match &self.method {
            Method::Spo(settings) => &settings.earlier,
            _ => &[],
        }
    }

    /// Every model the job reads.
    pub fn models(&self) -> impl Iterator<Item = &ModelId> {
        self.references.iter().map(|r| &r.model).chain([&self.model]).chain(self.earlier())
    }
}

#[cfg(test)]
impl JobSpec {
    /// A job of the method `dpo` with these settings.
    pub(super) fn for_tests(hyperparameters: serde_json::Value) -> Self {
        let body = serde_json::json!({"model": "smol", "training_file": FileId::new(),
            "method": {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}}});
        let request: JobRequest = serde_json::from_value(body).expect("well formed");
        Self::resolve(&request, None, 1, &mut Problems::default())
    }
}

/// Puts the base in front; where it stands in the list it moves there with its weight, else its weight is 0 of those given.
fn with_base(base: &ModelId, mut extra: Vec<Reference>) -> Vec<Reference> {
    let weighted = extra.iter().any(|r| r.weight.is_some());
    let first = match extra.iter().position(|r| r.model == *base) {
        Some(i) => extra.remove(i),
        None => Reference { model: base.clone(), weight: weighted.then_some(0.0) },
    };
    extra.insert(0, first);
    extra
}

/// What a weighting needs besides the settings.
fn check_weighting(
    request: &JobRequest,
    settings: &Hyperparameters,
    references: &[Reference],
    problems: &mut Problems,
) {
    let objective = &settings.objective;
    let at = request.method.pointer();
    let is_single = request.method.kind == MethodKind::Dpo;
    if objective.weighting == Weighting::Fixed && !is_single && references.iter().all(|r| r.weight.is_none()) {
        let message = "weighting is fixed: give each reference a weight";
        problems.at(format!("{at}/references"), "missing_weights", message);
    }
    if objective.weighting.needs_validation() && request.validation_file.is_none() {
        let message = "this weighting looks at held-out pairs: give a validation_file";
        problems.at("/validation_file", "missing_field", message);
    }
    if objective.weight_convention == WeightConvention::AuthorsCode && references.len() != 2 {
        let message = format!(
            "the authors' code exchanges the weights of exactly two references, here are {}: take 'paper'",
            references.len()
        );
        problems.at(format!("{at}/hyperparameters/weight_convention"), "conflicting_fields", message);
    }
}

fn check_texts(request: &JobRequest, problems: &mut Problems) {
    if let Some(suffix) = &request.suffix
        && !(1..=JobRequest::MAX_SUFFIX_CHARS).contains(&suffix.chars().count())
    {
        let message = format!("a suffix has 1 to {} characters", JobRequest::MAX_SUFFIX_CHARS);
        problems.at("/suffix", "out_of_range", message);
    }
    let Some(metadata) = &request.metadata else { return };
    let max = JobRequest::MAX_METADATA;
    if metadata.len() > max {
        problems.at("/metadata", "too_many", format!("at most {max} entries, got {}", metadata.len()));
    }
    for (key, value) in metadata {
        let (max_key, max_value) = (JobRequest::MAX_METADATA_KEY_CHARS, JobRequest::MAX_METADATA_VALUE_CHARS);
        if key.chars().count() > max_key || value.chars().count() > max_value {
            let key: String = key.chars().take(max_key).collect();
            let message = format!("a key has at most {max_key} characters, a value at most {max_value}");
            problems.at(format!("/metadata/{key}"), "too_long", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resolve(method: serde_json::Value) -> (JobSpec, Vec<String>) {
        let body = json!({"model": "smol", "training_file": FileId::new(), "method": method, "seed": 7});
        let request: JobRequest = serde_json::from_value(body).expect("well formed");
        let mut problems = Problems::default();
        let spec = JobSpec::resolve(&request, None, 1, &mut problems);
        (spec, problems.first.into_iter().map(|p| p.code).collect())
    }

    #[test]
    fn the_base_is_always_reference_zero() {
        let names = |s: &JobSpec| s.references.iter().map(|r| r.model.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&resolve(json!({"type": "dpo"})).0), ["smol"]);
        let (spec, problems) = resolve(json!({"type": "mrpo", "mrpo": {"references": [{"model": "other"}]}}));
        assert_eq!((names(&spec), problems.len()), (vec!["smol".into(), "other".into()], 0));
        let listed = json!({"type": "mrpo", "mrpo": {"references":
            [{"model": "other", "weight": 0.25}, {"model": "smol", "weight": 0.75}]}});
        let (spec, _) = resolve(listed);
        assert_eq!(spec.references.iter().map(|r| r.weight).collect::<Vec<_>>(), [Some(0.75), Some(0.25)]);
        assert_eq!(spec.hyperparameters.objective.weighting, Weighting::Fixed, "weights that are given are read");
    }

    #[test]
    fn settings_in_the_wrong_section_are_refused() {
        assert_eq!(resolve(json!({"type": "mrpo"})).1, ["missing_field"]);
        assert_eq!(resolve(json!({"type": "dpo", "mrpo": {"references": [{"model": "x"}]}})).1, ["conflicting_fields"]);
        let fixed = json!({"type": "mrpo", "mrpo": {"references": [{"model": "x"}], "hyperparameters": {"weighting": "fixed"}}});
        assert_eq!(resolve(fixed).1, ["missing_weights"]);
    }
}
