//! Metric names: TRL's, verbatim, and ours per reference. One place, so that a chart made for TRL reads our runs.

/// Mean loss over the step's pairs.
pub const LOSS: &str = "loss";
/// Mean implicit reward of the chosen completions, β(log π_θ − log π̃_ref).
pub const REWARDS_CHOSEN: &str = "rewards/chosen";
/// Mean implicit reward of the rejected completions.
pub const REWARDS_REJECTED: &str = "rewards/rejected";
/// Mean of chosen reward minus rejected reward.
pub const REWARDS_MARGINS: &str = "rewards/margins";
/// Share of pairs whose chosen reward is the larger.
pub const REWARDS_ACCURACIES: &str = "rewards/accuracies";
/// Mean summed log-probability of the chosen completions under the policy, in nats.
pub const LOGPS_CHOSEN: &str = "logps/chosen";
/// Mean summed log-probability of the rejected completions under the policy, in nats.
pub const LOGPS_REJECTED: &str = "logps/rejected";
/// Share of pairs to which the policy itself gives the larger summed log-probability on the chosen side.
pub const LOGPS_ACCURACIES: &str = "logps/accuracies";
/// Global L2 norm of the gradient before clipping.
pub const GRAD_NORM: &str = "grad_norm";
/// Learning rate of the step.
pub const LEARNING_RATE: &str = "learning_rate";
/// Epochs done, as a fraction.
pub const EPOCH: &str = "epoch";
/// Tokens the policy has been trained on so far, a shared prompt counted once.
pub const NUM_TOKENS: &str = "num_tokens";
/// Wall-clock time of the step, in milliseconds.
pub const STEP_DURATION_MS: &str = "step_duration_ms";

/// What stands before the names of the validation set's metrics.
pub const EVALUATED: &str = "eval_";

/// The name of one of a reference's metrics: `refs/{name}/{metric}`.
pub fn of_reference(name: &str, metric: &str) -> String {
    format!("refs/{name}/{metric}")
}

/// Per reference: mean margin of its own log-probabilities, chosen minus rejected, in nats.
pub const REFERENCE_MARGIN: &str = "margin";
/// Per reference: share of pairs it ranks as the data does.
pub const REFERENCE_ACCURACY: &str = "accuracy";
/// Per reference: mean over the pairs of chosen less rejected implicit reward against it alone, β(log π_θ − log π_ref).
pub const REFERENCE_REWARDS_MARGINS: &str = "rewards/margins";
/// Per reference: share of pairs in which that is above zero.
pub const REFERENCE_REWARDS_ACCURACIES: &str = "rewards/accuracies";
/// Per reference: mean weight α.
pub const REFERENCE_WEIGHT_MEAN: &str = "weight_mean";
/// Per reference: standard deviation of its weight over the pairs.
pub const REFERENCE_WEIGHT_STD: &str = "weight_std";
/// Per reference: share of its log-probabilities that the trust region moved.
pub const REFERENCE_CLIP_FRACTION: &str = "clip_fraction";
/// Per reference: the same on the chosen side.
pub const REFERENCE_CLIP_FRACTION_CHOSEN: &str = "clip_fraction/chosen";
/// Per reference: the same on the rejected side.
pub const REFERENCE_CLIP_FRACTION_REJECTED: &str = "clip_fraction/rejected";
/// Per reference: mean over the other references of the share of pairs that both rank the same way.
pub const REFERENCE_AGREEMENT: &str = "agreement";
/// Per reference: share of pairs in which the virtual reference prefers by as much as this one, within a hundredth of a nat.
pub const REFERENCE_VIRTUAL_SHARE: &str = "virtual_share";
/// Mean over all couples of references of the share of pairs that both rank the same way.
pub const REFERENCES_AGREEMENT: &str = "refs/agreement";
