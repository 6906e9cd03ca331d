//! Pairs as the trainer sees them, and how a batch of them is cut into micro-batches.

use crate::{model::layout::Packed, objective::SequenceLogps};

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
    /// One per reference; number 0 is the base.
    pub references: Vec<SequenceLogps>,
}

impl TrainingPair {
    /// Tokens it takes in a batch.
    pub fn n_tokens(&self) -> usize {
        Packed::n_tokens_of(self.prompt.len(), &[self.chosen.len(), self.rejected.len()])
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
