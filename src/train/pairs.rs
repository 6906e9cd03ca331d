//! Pairs as the trainer sees them, and how a batch of them is cut into micro-batches.

use crate::{
    domain::Sides,
    model::layout::Packed,
    objective::{Optimism, PairInput, Scored},
};

/// A pair in the policy's tokens, with its references' log-probabilities.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingPair {
    /// Its line in the file.
    pub line: u64,
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// The chosen completion's tokens.
    pub chosen: Vec<u32>,
    /// The rejected completion's tokens.
    pub rejected: Vec<u32>,
    /// A weight per token of both completions, where not all count as 1.
    pub token_weights: Option<Sides<Vec<f64>>>,
    /// One per reference; number 0 is the base.
    pub references: Vec<Scored>,
    /// The completion of the optimism term.
    pub response: Option<ReferenceResponse>,
    /// Weighted rewards besides the one that is trained.
    pub other_rewards: Sides<f64>,
    /// Weights of the completions' likelihood.
    pub likelihood: Sides<f64>,
}

/// A third completion of the prompt (SELM).
#[derive(Debug, Clone, PartialEq)]
pub struct ReferenceResponse {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Its log-probability under the base.
    pub base_logp: f64,
}

/// What a forward pass says of a pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PolicyLogps {
    pub(super) scored: Scored,
    pub(super) response: Option<f64>,
}

impl TrainingPair {
    /// Its completions in the order they are laid out in: chosen, rejected, and the reference response where there is one.
    pub fn completions(&self) -> Vec<&[u32]> {
        let mut completions = vec![self.chosen.as_slice(), self.rejected.as_slice()];
        completions.extend(self.response.as_ref().map(|r| r.tokens.as_slice()));
        completions
    }

    /// Tokens it takes in a batch.
    pub fn n_tokens(&self) -> usize {
        let lengths: Vec<usize> = self.completions().iter().map(|c| c.len()).collect();
        Packed::n_tokens_of(self.prompt.len(), &lengths)
    }

    /// Weights of all tokens of its completions, in the order they are laid out in.
    pub(super) fn weights(&self) -> impl Iterator<Item = f64> + '_ {
        let side = |weights: Option<&Vec<f64>>, n: usize| weights.cloned().unwrap_or_else(|| vec![1.0; n]);
        let weights = self.token_weights.as_ref();
        let n_of_response = self.response.as_ref().map_or(0, |r| r.tokens.len());
        side(weights.map(|w| &w.chosen), self.chosen.len())
            .into_iter()
            .chain(side(weights.map(|w| &w.rejected), self.rejected.len()))
            .chain(std::iter::repeat_n(1.0, n_of_response))
    }

    /// What per-token numbers divide by: the weights' sums.
    pub(super) fn n_weighted_tokens(&self) -> Sides<f64> {
        match &self.token_weights {
            None => Sides { chosen: self.chosen.len() as f64, rejected: self.rejected.len() as f64 },
            Some(weights) => Sides { chosen: weights.chosen.iter().sum(), rejected: weights.rejected.iter().sum() },
        }
    }

    /// The pair as the objective sees it.
    pub(super) fn input(&self, policy: PolicyLogps) -> PairInput<'_> {
        let response = self.response.as_ref().zip(policy.response);
        PairInput {
            policy: policy.scored,
            references: &self.references,
            other_rewards: self.other_rewards,
            likelihood: self.likelihood,
            optimism: response.map(|(r, logp)| Optimism { policy: logp, reference: r.base_logp }),
        }
    }

    /// The pair as the objective sees it before the first step, when the policy is the base.
    pub fn input_at_start(&self) -> PairInput<'_> {
        let response = self.response.as_ref().map(|r| r.base_logp);
        self.input(PolicyLogps { scored: self.references[0], response })
    }
}

/// Cuts pairs, in order, into runs of at most `max_tokens` tokens; a longer pair stands alone.
pub fn micro_batches<'a>(pairs: &[&'a TrainingPair], max_tokens: usize) -> Vec<Vec<&'a TrainingPair>> {
    let mut batches: Vec<Vec<&TrainingPair>> = Vec::new();
    let mut n_tokens = 0;
    for pair in pairs {
        match batches.last_mut() {
            Some(last) if n_tokens + pair.n_tokens() <= max_tokens => last.push(pair),
            _ => {
                n_tokens = 0;
                batches.push(vec![pair]);
            }
        }
        n_tokens += pair.n_tokens();
    }
    batches
}
