//! Log-probabilities of completions under a frozen model: what a reference contributes, computed once and kept.

pub mod remote;

use candle_core::Result;

use crate::model::{Decoder, Parameters, Purpose, layout::Packed};

/// A prompt and its completions, in the scoring model's own tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoringRow {
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// Its completions.
    pub completions: Vec<ScoringCompletion>,
}

/// A completion to score.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoringCompletion {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// A weight per token; absent: all count as 1.
    pub weights: Option<Vec<f64>>,
}

impl ScoringCompletion {
    /// How many tokens count: the sum of the weights.
    pub fn n_tokens(&self) -> f64 {
        self.weights.as_ref().map_or(self.tokens.len() as f64, |weights| weights.iter().sum())
    }
}

/// (Weighted) sums of the log-probabilities of each row's completions, in nats. A prompt is computed once per row.
pub fn score(decoder: &Decoder, parameters: &Parameters, rows: &[ScoringRow]) -> Result<Vec<Vec<f64>>> {
    let mut packed = Packed::default();
    let mut weights = Vec::new();
    for row in rows {
        let completions: Vec<&[u32]> = row.completions.iter().map(|c| c.tokens.as_slice()).collect();
        packed.push(&row.prompt, &completions);
        for completion in &row.completions {
            match &completion.weights {
                Some(of_tokens) => weights.extend(of_tokens),
                None => weights.extend(std::iter::repeat_n(1.0, completion.tokens.len())),
            }
        }
    }
    let forward = decoder.forward(&packed, parameters, Purpose::Score)?;
    let weighted = forward.token_logps.iter().zip(weights).map(|(logp, weight)| weight * f64::from(*logp));
    let mut sums = packed.sum_by_completion(weighted).into_iter();
    Ok(rows.iter().map(|row| sums.by_ref().take(row.completions.len()).collect()).collect())
}
