//! A job: what a client asked for, as written and as accepted, and its status.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Failure, FileId, Hyperparameters, JobId, Method, MethodKind, MethodRequest, ModelId, Ownership, Priority, Problems,
    Reference, ReferenceListId, ReferencesRequest, Retention, RetentionDefaults, RetentionRequest, RunId, ScoringCount,
    WeightConvention, Weighting, validate_references,
};

/// `POST /v1/fine_tuning/jobs`, as a client writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// The model to start from.
    pub model: ModelId,
    /// The preference pairs to train on.
    pub training_file: FileId,
    /// Held-out pairs, evaluated before, during and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_file: Option<FileId>,
    /// Seed of everything random; made up and returned when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Part of the tuned model's name, at most 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// Up to 16 texts of the client's own; keys up to 64 characters, values up to 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// What to optimise.
    pub method: MethodRequest,
    /// How soon it is to run beside others; `normal` when absent, `high` is an admin's to give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// What of it is kept on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionRequest>,
    /// Only tell what the job would take and what its references are; none is created.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

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

impl JobRequest {
    /// The largest seed.
    pub const MAX_SEED: u32 = i32::MAX as u32;
    /// The longest suffix.
    pub const MAX_SUFFIX_CHARS: usize = 64;
    /// The most entries of `metadata`.
    pub const MAX_METADATA: usize = 16;
    /// The longest name of one.
    pub const MAX_METADATA_KEY_CHARS: usize = 64;
    /// The longest text of one.
    pub const MAX_METADATA_VALUE_CHARS: usize = 512;
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
}

impl JobSpec {
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

/// Where a job stands (OpenAI's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Its files or models are still being checked.
    ValidatingFiles,
    /// Waits for a device.
    Queued,
    /// A process works on it.
    Running,
    /// Waits for its user.
    Paused,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// Ended by its user.
    Cancelled,
}

/// A change of status that the table does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {from} cannot become {to}")]
pub struct IllegalTransition {
    /// The status it has.
    pub from: JobStatus,
    /// The status it was to get.
    pub to: JobStatus,
}

impl JobStatus {
    /// Every status.
    pub const ALL: [Self; 7] = [
        Self::ValidatingFiles,
        Self::Queued,
        Self::Running,
        Self::Paused,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ValidatingFiles => "validating_files",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status a word stands for.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }

    /// Whether nothing changes any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The table of legal changes: the only place that knows it.
    pub fn can_become(self, to: Self) -> bool {
        match self {
            Self::ValidatingFiles => matches!(to, Self::Queued | Self::Paused | Self::Failed | Self::Cancelled),
            Self::Queued => matches!(to, Self::Running | Self::Paused | Self::Failed | Self::Cancelled),
            // Back to queued: its process died and it waits to be started again from its newest checkpoint.
            Self::Running => {
                matches!(to, Self::Queued | Self::Paused | Self::Succeeded | Self::Failed | Self::Cancelled)
            }
            // Back to validating_files: it was paused before everything it reads had been checked.
            Self::Paused => matches!(to, Self::ValidatingFiles | Self::Queued | Self::Cancelled),
            Self::Succeeded | Self::Failed | Self::Cancelled => false,
        }
    }

    /// The statuses from which `to` may be reached.
    pub fn sources_of(to: Self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |from| from.can_become(to))
    }
}

impl std::fmt::Display for JobStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Metrics of the validation set at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Evaluation {
    /// Steps done.
    pub step: u64,
    /// Name to value.
    pub metrics: BTreeMap<String, f64>,
}

/// The validation set before the first step and after the last.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct EvaluationPair {
    /// Before the first step.
    pub before: Option<Evaluation>,
    /// After the last step.
    pub after: Option<Evaluation>,
}

/// A job as the service knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What was asked for, everything filled in.
    pub spec: JobSpec,
    /// Where it stands.
    pub status: JobStatus,
    /// The directory its processes work in, once there was one.
    pub run_id: Option<RunId>,
    /// How often a process was started for it.
    pub n_attempts: u32,
    /// The model it made.
    pub fine_tuned_model: Option<ModelId>,
    /// The files with its results, once it has ended well; those that have been deleted are left out.
    pub result_files: Vec<FileId>,
    /// Why it failed.
    pub error: Option<Failure>,
    /// Tokens trained on.
    pub n_trained_tokens: Option<u64>,
    /// What its references' scores have cost, once they are all there.
    pub reference_scores: Option<ScoringCount>,
    /// The validation set before and after.
    pub evaluation: EvaluationPair,
    /// Optimizer steps done and in all, once known.
    pub progress: Option<(u64, u64)>,
    /// When it will be done, as far as one can tell: Unix time in seconds.
    pub estimated_finish: Option<i64>,
    /// Unix time in seconds.
    pub created_at: i64,
    /// When a process was first started for it.
    pub started_at: Option<i64>,
    /// When it got its final status.
    pub finished_at: Option<i64>,
    /// Whose it is.
    pub ownership: Ownership,
    /// How soon it is to run beside others.
    pub priority: Priority,
    /// Where it stands while it waits.
    pub standing: Standing,
}

/// Where a job stands among those that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its number in order of creation.
    pub seq: i64,
    /// Its priority, or a higher one that waiting has given it.
    pub class: Priority,
    /// The bytes of memory it waits for, being next.
    pub waits_for_bytes: Option<u64>,
    /// The bytes of disk it waits for, being next.
    pub waits_for_disk_bytes: Option<u64>,
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

    #[test]
    fn a_final_status_stays() {
        for from in JobStatus::ALL {
            assert_eq!(JobStatus::parse(from.as_str()), Some(from));
            assert!(!(from.is_final() && JobStatus::ALL.iter().any(|to| from.can_become(*to))));
            assert!(!from.can_become(from));
        }
    }
}
