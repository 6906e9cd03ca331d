//! A short greedy completion, to show what a model says.

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
    let (mut logits, mut cache) = decoder.read(prompt, parameters)?;
    let mut tokens = Vec::new();
    while tokens.len() < n_max {
        let next = logits.argmax(D::Minus1)?.to_scalar::<u32>()?;
        if ends.contains(&next) {
            break;
        }
        tokens.push(next);
        logits = decoder.read_on(next, &mut cache, parameters)?;
    }
    Ok(tokens)
}
