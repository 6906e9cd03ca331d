//! A preference pair in one model's tokens.

use crate::domain::Sides;

/// One preference pair in one model's tokens. All completions share the prompt's ids: prompt and completions are tokenised
/// apart, so that no token straddles the seam.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPair {
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// Where each of them begins in the rendered prompt, in characters; never falling.
    pub prompt_starts: Vec<usize>,
    /// Length of the rendered prompt, in characters.
    pub prompt_n_chars: usize,
    /// Whether the first prompt token begins the sequence (BOS): a cut from the left leaves it in place.
    pub starts_with_bos: bool,
    /// The preferred completion's tokens, the one that ends the turn included.
    pub chosen: Vec<u32>,
    /// The other completion's tokens, the one that ends the turn included.
    pub rejected: Vec<u32>,
    /// The tokens of the row's `reference_response`, where it has one, the one that ends the turn included.
    pub reference_response: Option<Vec<u32>>,
    /// Which tokens of the completions the row's spans touch, where it has spans; as many as `chosen` and `rejected` have.
    pub in_spans: Option<Sides<Vec<bool>>>,
}

impl EncodedPair {
    /// Tokens of the longest completion.
    pub fn n_longest_completion(&self) -> usize {
        let reference_response = self.reference_response.as_ref().map_or(0, Vec::len);
        self.chosen.len().max(self.rejected.len()).max(reference_response)
    }

    /// Tokens of the prompt and the longest completion.
    pub fn n_longest(&self) -> usize {
        self.prompt.len() + self.n_longest_completion()
    }

    /// The weight of each completion token: 1 where a span touches it, else `outside_weight`. `None` where the row has no
    /// spans.
    pub fn token_weights(&self, outside_weight: f64) -> Option<Sides<Vec<f64>>> {
        let weights = |touched: &Vec<bool>| touched.iter().map(|t| if *t { 1.0 } else { outside_weight }).collect();
        self.in_spans.as_ref().map(|sides| Sides { chosen: weights(&sides.chosen), rejected: weights(&sides.rejected) })
    }
}
