//! From a request to evaluate an objective to what can be evaluated: the rules of a job, and everything that is wrong at once.

use super::{
    objective_batch::Batch,
    objective_numbers::{check_pairs, check_weighting_pairs},
    objectives::ObjectiveRequest,
};
use crate::{
    domain::{
        Auto, HpoRequest, Hyperparameters, HyperparametersRequest, Method, MethodKind, MethodRequest, ModelId,
        ModpoRequest, ObjectiveSpec, Problem, Problems, SelmRequest, SpoRequest, WeightConvention, Weighting,
    },
    objective::{ObjectiveError, SetStrengths, checked_weights},
};

/// Fills in the defaults and checks all of it.
///
/// # Errors
/// Every problem at once.
pub(super) fn accept(request: &ObjectiveRequest) -> Result<Batch, Problems> {
    let mut problems = Problems::default();
    check_readers(request, &mut problems);
    let method = method(request, &mut problems);
    let spec = spec(request, &method, &mut problems);
    check_pairs(request, &method, &spec, &mut problems);
    check_weights(request, &spec, &mut problems);
    if problems.is_empty() { Ok(Batch::of(request, &method, spec)) } else { Err(problems) }
}

/// A setting of another method would be read by nobody.
fn check_readers(request: &ObjectiveRequest, problems: &mut Problems) {
    use MethodKind::{Hpo, Modpo, Selm, Spo};
    let is_given = |setting: &Auto<f64>| setting.given().is_some();
    let settings = [
        ("/margin_weights", Modpo, request.margin_weights.is_some()),
        ("/objective/preference_weight", Modpo, is_given(&request.objective.preference_weight)),
        ("/lambdas", Spo, request.lambdas.clone().given().is_some()),
        ("/gamma", Hpo, is_given(&request.gamma)),
        ("/temperature", Hpo, is_given(&request.temperature)),
        ("/advantage_clip", Hpo, is_given(&request.advantage_clip)),
        ("/reward_weights", Hpo, request.reward_weights.clone().given().is_some()),
        ("/objective/optimism", Selm, is_given(&request.objective.optimism)),
    ];
    for (pointer, reader, is_given) in settings {
        if is_given && request.method != reader {
            let (kind, reader) = (request.method.as_str(), reader.as_str());
            let message = format!("only {reader} reads this, and the method is {kind}: leave it out or take {reader}");
            problems.at(pointer, "conflicting_fields", message);
        }
    }
}

/// The method with its settings, by the rules of a job that has them in its method's section.
fn method(request: &ObjectiveRequest, problems: &mut Problems) -> Method {
    let mut section = MethodRequest {
        kind: request.method,
        dpo: None,
        mrpo: None,
        multi_dpo: None,
        modpo: None,
        spo: None,
        hpo: None,
        selm: None,
        token_level: None,
    };
    match request.method {
        MethodKind::Dpo => return Method::Dpo,
        MethodKind::Mrpo => return Method::Mrpo,
        MethodKind::MultiDpo => return Method::MultiDpo,
        MethodKind::TokenLevel => {
            let message = "token_level changes which tokens are summed, not the objective: sum the log-probabilities of the \
                           tokens that count and take mrpo";
            problems.at("/method", "unsupported_value", message);
            return Method::Mrpo;
        }
        MethodKind::Modpo => {
            let Some(margin_weights) = request.margin_weights.clone() else {
                problems.at("/margin_weights", "missing_field", "modpo needs margin_weights: one per margin reward");
                return Method::Mrpo;
            };
            let preference_weight = request.objective.preference_weight;
            let hyperparameters = HyperparametersRequest::default();
            section.modpo = Some(ModpoRequest { references: None, preference_weight, margin_weights, hyperparameters });
        }
        MethodKind::Spo => {
            // The rules count the earlier models; their names say nothing here, nor does the dimension.
            let model: ModelId = "earlier".parse().expect("a legal name");
            section.spo = Some(SpoRequest {
                references: None,
                dimension: "any".to_owned(),
                earlier: vec![model; request.n_earlier()],
                lambdas: request.lambdas.clone(),
                hyperparameters: HyperparametersRequest::default(),
            });
        }
        MethodKind::Hpo => {
            section.hpo = Some(HpoRequest {
                gamma: request.gamma,
                temperature: request.temperature,
                advantage_clip: request.advantage_clip,
                reward_weights: request.reward_weights.clone(),
                ..HpoRequest::default()
            });
        }
        MethodKind::Selm => {
            section.selm = Some(SelmRequest { alpha: request.objective.optimism, ..SelmRequest::default() });
        }
    }
    let mut of_section = Problems::default();
    let method = section.resolve(&mut of_section);
    of_section.first.into_iter().for_each(|problem| problems.push(moved(problem)));
    method
}

/// A problem of a job's method section, where the setting stands here.
fn moved(problem: Problem) -> Problem {
    let pointer = problem.pointer.unwrap_or_default();
    let field = pointer.rsplit('/').next().unwrap_or_default();
    let pointer = match field {
        "alpha" => "/objective/optimism".to_owned(),
        "preference_weight" => "/objective/preference_weight".to_owned(),
        "earlier" => "/pairs/0/earlier".to_owned(),
        field => format!("/{field}"),
    };
    let message = problem.message.replace("alpha must", "optimism must");
    Problem { pointer: Some(pointer), message, ..problem }
}

/// The objective, by the rules of a job's hyperparameters.
fn spec(request: &ObjectiveRequest, method: &Method, problems: &mut Problems) -> ObjectiveSpec {
    let objective = request.objective.clone();
    let settings = HyperparametersRequest {
        beta: objective.beta,
        mix: objective.mix,
        clip: objective.clip,
        epsilon: objective.epsilon,
        weighting: objective.weighting,
        weight_convention: objective.weight_convention,
        loss: objective.loss,
        loss_weights: objective.loss_weights,
        label_smoothing: objective.label_smoothing,
        discopop_tau: objective.discopop_tau,
        sft_weight: objective.sft_weight,
        length_normalized: objective.length_normalized,
        ..HyperparametersRequest::default()
    };
    let spec = Hyperparameters::resolve(&settings, method, "/objective", problems).objective;
    let n_references = request.n_references();
    if spec.weight_convention == WeightConvention::AuthorsCode && n_references != 2 {
        let message = format!("{}: take 'paper'", ObjectiveError::ExchangeNeedsTwo(n_references));
        problems.at("/objective/weight_convention", "conflicting_fields", message);
    }
    spec
}

/// What the weighting needs, and what it would not read.
fn check_weights(request: &ObjectiveRequest, spec: &ObjectiveSpec, problems: &mut Problems) {
    let n_references = request.n_references();
    match (&request.weights, spec.weighting) {
        (Some(weights), Weighting::Fixed) => {
            if let Err(e) = checked_weights(weights, n_references) {
                let code = match e {
                    ObjectiveError::WeightCount { .. } => "inconsistent_length",
                    _ => "weights_do_not_sum_to_one",
                };
                problems.at("/weights", code, e.to_string());
            }
        }
        (None, Weighting::Fixed) if n_references > 1 => {
            problems.at("/weights", "missing_field", "weighting is fixed: give one weight per reference");
        }
        (Some(_), _) => {
            let message = "only the weighting 'fixed' reads weights: set objective.weighting to it or leave them out";
            problems.at("/weights", "conflicting_fields", message);
        }
        (None, _) => {}
    }
    let is_of_a_set = SetStrengths::of(n_references, spec, []).weights(spec.weighting).is_some();
    let pairs = request.weighting_pairs.as_deref();
    match pairs {
        _ if spec.weighting == Weighting::Thompson => {
            let message = "thompson draws a reference at random: choose one yourself, with weighting 'fixed' and all weight \
                           on it";
            problems.at("/objective/weighting", "unsupported_value", message);
        }
        None if spec.weighting.needs_validation() => {
            let message = "this weighting looks at held-out pairs: give their log-probabilities as weighting_pairs";
            problems.at("/weighting_pairs", "missing_field", message);
        }
        Some(pairs) if is_of_a_set => check_weighting_pairs(pairs, n_references, spec, problems),
        Some(_) => {
            let message = "this weighting looks at no other pairs: leave weighting_pairs out";
            problems.at("/weighting_pairs", "conflicting_fields", message);
        }
        None => {}
    }
}
