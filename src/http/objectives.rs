//! `/v1/objectives/evaluate`: the mathematics on numbers that a client brings, for checks and plots. Nothing is stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{App, error::ApiError, extract::Json, objective_request};
use crate::{
    domain::{Auto, Clip, Losses, MethodKind, Mix, Problems, Sides, WeightConvention, Weighting},
    objective::PairOutcome,
};

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(evaluate_objective))
}

/// Pairs to evaluate, and the objective: log-probabilities are summed over a completion's tokens, in nats.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ObjectiveRequest {
    /// `dpo`, `mrpo` (the default), `multi_dpo`, `modpo`, `spo`, `hpo` or `selm`.
    #[serde(default = "mrpo")]
    #[schema(value_type = Option<MethodKind>, default = "mrpo")]
    pub(super) method: MethodKind,
    /// Settings; those of a job where they are left out.
    #[serde(default)]
    pub(super) objective: ObjectiveSettings,
    /// `weighting: fixed`: one per reference, the base first. They sum to 1.
    pub(super) weights: Option<Vec<f64>>,
    /// Pairs that the weights come from: those of the validation set under `vdw`, `vaw` and `evidence`; those of the batch
    /// before under `swcw` and `swcw_one_hot`, where none means the first batch. At most 10,000.
    pub(super) weighting_pairs: Option<Vec<WeightingPair>>,
    /// `modpo`: weight of each margin reward.
    pub(super) margin_weights: Option<Vec<f64>>,
    /// `spo`: λ of each earlier round; 1 by default.
    #[serde(default)]
    pub(super) lambdas: Auto<Vec<f64>>,
    /// `hpo`: weight γ of the likelihood term; 0.1 by default.
    #[serde(default)]
    pub(super) gamma: Auto<f64>,
    /// `hpo`: λ in exp(A/λ); 1 by default.
    #[serde(default)]
    pub(super) temperature: Auto<f64>,
    /// `hpo`: A/λ is kept within ± this; 3 by default.
    #[serde(default)]
    pub(super) advantage_clip: Auto<f64>,
    /// `hpo`: weight of each auxiliary reward; by default all count alike.
    #[serde(default)]
    pub(super) reward_weights: Auto<Vec<f64>>,
    /// 1 to 10,000 pairs, all with the same references: a batch, for the losses that look at one.
    pub(super) pairs: Vec<ObjectivePair>,
}

impl ObjectiveRequest {
    /// The references of every pair: those of the first.
    pub(super) fn n_references(&self) -> usize {
        self.pairs.first().map_or(0, |pair| pair.references.chosen.len())
    }

    /// The earlier policies of every pair: those of the first.
    pub(super) fn n_earlier(&self) -> usize {
        self.pairs.first().and_then(|pair| pair.earlier.as_ref()).map_or(0, |earlier| earlier.chosen.len())
    }
}

fn mrpo() -> MethodKind {
    MethodKind::Mrpo
}

/// Settings of an objective, each a value or `"auto"`; names, meanings and defaults are those of a job's hyperparameters.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ObjectiveSettings {
    /// Strength of the tie to the references, β.
    pub(super) beta: Auto<f64>,
    /// How the references are mixed.
    pub(super) mix: Auto<Mix>,
    /// The trust region around the base reference.
    pub(super) clip: Auto<Clip>,
    /// Its radius ε.
    pub(super) epsilon: Auto<f64>,
    /// How the references are weighted; not `thompson`, which draws at random.
    pub(super) weighting: Auto<Weighting>,
    /// Which reference a weight belongs to.
    pub(super) weight_convention: Auto<WeightConvention>,
    /// One loss or a list.
    pub(super) loss: Auto<Losses>,
    /// Weight of each loss of a list.
    pub(super) loss_weights: Auto<Vec<f64>>,
    /// Assumed share of pairs that are the wrong way round.
    pub(super) label_smoothing: Auto<f64>,
    /// τ of `discopop`.
    pub(super) discopop_tau: Auto<f64>,
    /// Adds this times −log π_θ(chosen) per token.
    pub(super) sft_weight: Auto<f64>,
    /// Every log-probability is divided by its number of tokens first.
    pub(super) length_normalized: Auto<bool>,
    /// `modpo`: weight w₀ of the preference that is trained; 1 less the sum of `margin_weights` by default.
    pub(super) preference_weight: Auto<f64>,
    /// `selm`: α of the optimism term; 0.001 by default.
    pub(super) optimism: Auto<f64>,
}

/// One pair.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ObjectivePair {
    /// The log-probabilities under the policy.
    pub(super) policy: Sides<f64>,
    /// Those under each reference, 1 to 64; number 0 is the base.
    pub(super) references: Sides<Vec<f64>>,
    /// Tokens of the completions, as the policy counts them; needed where a loss or a term is per token: `ipo`,
    /// `sigmoid_norm`, `sft_weight`, `length_normalized`, `hpo`.
    pub(super) tokens: Option<Sides<f64>>,
    /// The same as each reference counts them, for `length_normalized`; by default they count like the policy.
    pub(super) reference_tokens: Option<Sides<Vec<f64>>>,
    /// `modpo`: the other objectives' rewards of the chosen completion, one per weight.
    pub(super) margin_rewards_chosen: Option<Vec<f64>>,
    /// `modpo`: the same of the rejected completion.
    pub(super) margin_rewards_rejected: Option<Vec<f64>>,
    /// `hpo`: the auxiliary rewards of the chosen completion.
    pub(super) aux_rewards_chosen: Option<Vec<f64>>,
    /// `hpo`: the same of the rejected completion.
    pub(super) aux_rewards_rejected: Option<Vec<f64>>,
    /// `hpo`: what the completions' rewards are compared with; the mean of both by default. A job takes the mean over all
    /// completions of a prompt.
    pub(super) baseline: Option<f64>,
    /// `spo`: the log-probabilities under π₀ … π_{n−2}, oldest first; the last round's policy is the base.
    pub(super) earlier: Option<Sides<Vec<f64>>>,
    /// `selm`: the log-probabilities of the third completion.
    pub(super) optimism: Option<OptimismLogps>,
}

/// The log-probabilities of the completion that the policy is pushed away from (`selm`).
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OptimismLogps {
    /// Under the policy.
    pub(super) policy: f64,
    /// Under the base.
    pub(super) reference: f64,
}

/// A pair that only its references are asked about.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WeightingPair {
    /// The chosen completion's log-probability under each reference.
    pub(super) chosen: Vec<f64>,
    /// The rejected completion's.
    pub(super) rejected: Vec<f64>,
    /// Tokens of the completions as each reference counts them; needed under `length_normalized`.
    pub(super) tokens: Option<Sides<Vec<f64>>>,
}

/// What the objective makes of the pairs.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct ObjectiveEvaluation {
    /// `objective.evaluation`.
    #[schema(example = "objective.evaluation")]
    object: &'static str,
    /// The loss of the batch: the mean of the pairs'.
    loss: f64,
    /// One per pair, in the request's order.
    pairs: Vec<EvaluatedPair>,
    /// What a job's step would report; the references are named `reference-0`, `reference-1`, …
    metrics: BTreeMap<String, f64>,
}

/// What the objective makes of one pair.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct EvaluatedPair {
    /// Its loss.
    loss: f64,
    /// Derivative of its loss by the policy's log-probability of the chosen completion. Under `aot` and `aot_unpaired`, which
    /// compare pairs by rank: of the sum over the pairs.
    grad_chosen: f64,
    /// The same of the rejected completion.
    grad_rejected: f64,
    /// The same of the third completion; absent without an optimism term.
    #[serde(skip_serializing_if = "Option::is_none")]
    grad_optimism: Option<f64>,
    /// Implicit reward β(log π_θ − log π̃_ref) of the chosen completion.
    reward_chosen: f64,
    /// The same of the rejected completion.
    reward_rejected: f64,
    /// The weight α of each reference.
    weights: Vec<f64>,
    /// Radius of the trust region around the base on the chosen side, as a share of the base's log-probability.
    epsilon_chosen: f64,
    /// The same on the rejected side.
    epsilon_rejected: f64,
    /// The references' log-probabilities after the trust region; per token under `length_normalized`.
    references: Sides<Vec<f64>>,
    /// The virtual reference. Under `multi_dpo`, which has none, the references' weighted mean.
    virtual_reference: Sides<f64>,
    /// Which references the trust region moved.
    clipped: Sides<Vec<bool>>,
}

impl EvaluatedPair {
    fn of(outcome: PairOutcome, has_optimism: bool) -> Self {
        let PairOutcome {
            loss,
            grad,
            grad_optimism,
            rewards,
            weights,
            references,
            epsilon,
            virtual_reference,
            clipped,
        } = outcome;
        Self {
            loss,
            grad_chosen: grad.chosen,
            grad_rejected: grad.rejected,
            grad_optimism: has_optimism.then_some(grad_optimism),
            reward_chosen: rewards.chosen,
            reward_rejected: rewards.rejected,
            weights,
            epsilon_chosen: epsilon.chosen,
            epsilon_rejected: epsilon.rejected,
            references: Sides {
                chosen: references.iter().map(|r| r.chosen).collect(),
                rejected: references.iter().map(|r| r.rejected).collect(),
            },
            virtual_reference,
            clipped: Sides {
                chosen: clipped.iter().map(|c| c.chosen).collect(),
                rejected: clipped.iter().map(|c| c.rejected).collect(),
            },
        }
    }
}

/// Evaluates an objective on numbers
///
/// Log-probabilities in; losses, gradients, weights, virtual references and metrics out, in double precision, by the functions
/// that train. Nothing is stored and no model is read.
///
/// Our own are: the trust region for more than two references (the paper's code has two); `modpo` with several references or
/// another loss than `sigmoid`; the recursion of `spo` over earlier rounds; the per-token likelihood and the baseline of `hpo`;
/// any loss but `sigmoid` against a virtual reference; the weightings `max_margin` and `evidence`. The rest is
/// the papers', whose numbers stand at each setting. `token_level` is `mrpo` on the log-probabilities of the tokens that count.
#[utoipa::path(
    post, path = "/v1/objectives/evaluate", tag = "objectives", request_body = ObjectiveRequest,
    responses(
        (status = 200, description = "Losses, gradients and everything on the way", body = ObjectiveEvaluation),
        (status = 400, description = "The body is not valid, or something the method needs is missing: `errors` has every \
                                      problem"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body is not JSON"),
    )
)]
async fn evaluate_objective(
    Json(request): Json<ObjectiveRequest>,
) -> Result<axum::Json<ObjectiveEvaluation>, ApiError> {
    // Ten thousand pairs take longer than a request may keep its thread.
    let evaluation = tokio::task::spawn_blocking(move || -> Result<_, Problems> {
        let batch = objective_request::accept(&request)?;
        let (outcomes, metrics) = batch.evaluate()?;
        let has_optimism = batch.spec().optimism != 0.0;
        Ok(ObjectiveEvaluation {
            object: "objective.evaluation",
            loss: outcomes.iter().map(|o| o.loss).sum::<f64>() / outcomes.len() as f64,
            pairs: outcomes.into_iter().map(|outcome| EvaluatedPair::of(outcome, has_optimism)).collect(),
            metrics,
        })
    });
    evaluation.await.map_err(ApiError::internal)?.map(axum::Json).map_err(ApiError::invalid)
}
