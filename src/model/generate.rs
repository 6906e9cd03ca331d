//! A short greedy completion, to show what a model says. It computes the whole text again for every token: samples are short.

use candle_core::{D, Result};

use super::{Decoder, Parameters};

/// The likeliest next tokens, one after the other, until one of `ends` or `n_max` of them. The end token is left out.
pub fn generate_greedy(
    decoder: &Decoder,
    parameters: &Parameters,
    prompt: &[u32],
    ends: &[u32],
    n_max: usize,
) -> Result<Vec<u32>> {
    let mut tokens = prompt.to_vec();
    for _ in 0..n_max {
        let next = decoder.last_logits(&tokens, parameters)?.argmax(D::Minus1)?.to_scalar::<u32>()?;
        if ends.contains(&next) {
            break;
        }
        tokens.push(next);
    }
    Ok(tokens.split_off(prompt.len()))
}
