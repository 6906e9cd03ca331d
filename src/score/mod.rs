//! Log-probabilities of completions under a frozen model: what a reference contributes, computed once and kept.

use candle_core::Result;

use crate::model::{Decoder, Parameters, Purpose, layout::Packed};

/// A prompt and its completions, in the scoring model's own tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoringPair {
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// The chosen completion's tokens.
    pub chosen: Vec<u32>,
    /// The rejected completion's tokens.
    pub rejected: Vec<u32>,
}

/// Summed log-probabilities (chosen, rejected) of each pair, in nats. The prompt is computed once per pair.
pub fn score_pairs(decoder: &Decoder, parameters: &Parameters, pairs: &[&ScoringPair]) -> Result<Vec<(f64, f64)>> {
    let mut packed = Packed::default();
    for pair in pairs {
        packed.push(&pair.prompt, &[&pair.chosen, &pair.rejected]);
    }
    let forward = decoder.forward(&packed, parameters, Purpose::Score)?;
    Ok(packed.sum_by_completion(&forward.token_logps).chunks(2).map(|sums| (sums[0], sums[1])).collect())
}
