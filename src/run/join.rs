//! Joins pairs with their scores: what the trainer reads.

use super::{extras::other_rewards, prepare::Prepared, references::Score};
use crate::{
    domain::{Method, Sides, TrainSpec},
    objective::{Scored, SequenceLogps, earlier_rewards},
    train::{ReferenceResponse, TrainingPair},
};

/// Scores of all pairs under every reference.
pub(super) struct Joiner<'a> {
    pub(super) spec: &'a TrainSpec,
    /// Per reference, per pair, per completion.
    pub(super) columns: Vec<Vec<Vec<Score>>>,
    /// The same of the policies of earlier rounds.
    pub(super) earlier: Vec<Vec<Vec<Score>>>,
}

impl Joiner<'_> {
    /// The pairs of one file; `first` is their place in the columns.
    pub(super) fn join(&self, prepared: Vec<Prepared>, first: usize) -> Vec<TrainingPair> {
        prepared.into_iter().enumerate().map(|(i, p)| self.pair(p, first + i)).collect()
    }

    fn pair(&self, prepared: Prepared, place: usize) -> TrainingPair {
        let references: Vec<Scored> = self.columns.iter().map(|column| scored(&column[place])).collect();
        let other_rewards = match &self.spec.method {
            Method::Spo(settings) => {
                let mut policies: Vec<SequenceLogps> =
                    self.earlier.iter().map(|column| scored(&column[place]).logps).collect();
                // The last round's policy is what this one starts from.
                policies.push(references[0].logps);
                earlier_rewards(self.spec.hyperparameters.objective.beta, &settings.lambdas, &policies)
            }
            method => other_rewards(method, &prepared.pair.extra),
        };
        let base_scores = &self.columns[0][place];
        let token_weights = prepared.token_weights();
        TrainingPair {
            line: prepared.pair.line,
            prompt: prepared.encoded.prompt,
            chosen: prepared.encoded.chosen,
            rejected: prepared.encoded.rejected,
            token_weights,
            references,
            response: prepared
                .encoded
                .reference_response
                .zip(base_scores.get(2))
                .map(|(tokens, score)| ReferenceResponse { tokens, base_logp: score.logp }),
            other_rewards,
            likelihood: prepared.likelihood,
        }
    }
}

fn scored(scores: &[Score]) -> Scored {
    Scored {
        logps: Sides { chosen: scores[0].logp, rejected: scores[1].logp },
        n_tokens: Sides { chosen: scores[0].n_tokens, rejected: scores[1].n_tokens },
    }
}
