//! Rewards besides the one that is trained, and the weights they give.

use super::SequenceLogps;
use crate::domain::{HpoSettings, Sides};

/// wᵀR per completion: the other objectives' rewards, weighted (MODPO, arXiv 2310.03708). The loss is that of
/// (β·margin − wᵀ(R(chosen) − R(rejected)))/w₀. Our generalisation: as a shift of the virtual reference by wᵀR/β it goes with
/// every pair loss and any number of references.
pub fn margin_rewards(weights: &[f64], rewards: &Sides<Vec<f64>>) -> Sides<f64> {
    let sum = |rewards: &[f64]| weights.iter().zip(rewards).map(|(w, r)| w * r).sum();
    Sides { chosen: sum(&rewards.chosen), rejected: sum(&rewards.rejected) }
}

/// Σ λᵢRᵢ per completion, the implicit rewards of earlier rounds (SPO, arXiv 2405.12739; our derivation): with π_0 … π_{n−1}
/// in `policies`, Rᵢ = β(log πᵢ − log πᵢ₋₁) − Σ_{j<i} λⱼRⱼ for i = 1 … n−1.
pub fn earlier_rewards(beta: f64, lambdas: &[f64], policies: &[SequenceLogps]) -> Sides<f64> {
    let mut sum = Sides::default();
    for (lambda, round) in lambdas.iter().zip(policies.windows(2)) {
        let gained = round[1].with(round[0], |now, before| beta * (now - before));
        // The sum so far is that over j < i.
        sum = sum.with(gained, |sum: f64, gained| sum + lambda * (gained - sum));
    }
    sum
}

/// Weight of a completion's likelihood by its advantage A = R − V: γ·exp(A/λ), A/λ kept within ± `advantage_clip` (HPO,
/// arXiv 2405.17956; our derivation, with the mean reward of the prompt's completions as V).
pub fn advantage_weights(settings: &HpoSettings, rewards: Sides<f64>, baseline: f64) -> Sides<f64> {
    let clip = settings.advantage_clip;
    rewards.map(|reward| settings.gamma * ((reward - baseline) / settings.temperature).clamp(-clip, clip).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides(chosen: f64, rejected: f64) -> Sides<f64> {
        Sides { chosen, rejected }
    }

    #[test]
    fn margin_rewards_are_weighted_sums() {
        let rewards = Sides { chosen: vec![1.0, -2.0], rejected: vec![3.0, 0.5] };
        assert_eq!(margin_rewards(&[0.5, 2.0], &rewards), sides(-3.5, 2.5));
    }

    #[test]
    fn earlier_rounds_follow_the_recursion() {
        let policies = [sides(-10.0, -12.0), sides(-9.0, -13.0), sides(-8.5, -12.0)];
        assert_eq!(earlier_rewards(0.5, &[], &policies[..1]), sides(0.0, 0.0));
        let first = sides(0.5, -0.5);
        assert_eq!(earlier_rewards(0.5, &[0.4], &policies[..2]), first.map(|r| 0.4 * r));
        let second = sides(0.5 * 0.5 - 0.4 * first.chosen, 0.5 * 1.0 - 0.4 * first.rejected);
        let expected = first.with(second, |first, second| 0.4 * first + 0.3 * second);
        let got = earlier_rewards(0.5, &[0.4, 0.3], &policies);
        assert!((got.chosen - expected.chosen).abs() < 1e-15 && (got.rejected - expected.rejected).abs() < 1e-15);
    }

    #[test]
    fn a_better_completion_than_the_prompts_mean_weighs_more() {
        let settings = HpoSettings { gamma: 0.1, temperature: 2.0, advantage_clip: 3.0, reward_weights: vec![1.0] };
        let weights = advantage_weights(&settings, sides(3.0, 1.0), 2.0);
        assert_eq!(weights, sides(0.1 * 0.5f64.exp(), 0.1 * (-0.5f64).exp()));
        assert_eq!(advantage_weights(&settings, sides(1e9, -1e9), 0.0), sides(3f64, -3.0).map(|x| 0.1 * x.exp()));
    }
}
