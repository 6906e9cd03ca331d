//! How long pairs are in one model's tokens.

use rayon::prelude::*;

use super::super::prepare::{Part, at_line};
use crate::{
    dataset::{Counts, PreferencePair},
    domain::{Failure, ModelId, TokenLengths},
    model::layout::Packed,
    text::Codec,
};

/// One pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PairLength {
    /// Tokens of the prompt and the longest completion, before any cut.
    pub(super) n_longest: usize,
    /// Tokens it takes in a batch, as long as it may be at most.
    pub(super) n_tokens: usize,
    /// Tokens of both completions.
    pub(super) n_of_sides: (usize, usize),
    has_same_sides: bool,
    pub(super) starts_with_bos: bool,
}

/// Lays pairs out in a model's tokens, by all threads.
pub(super) fn measure(
    codec: &Codec,
    pairs: &[PreferencePair],
    part: Part,
    max_length: usize,
) -> Result<Vec<PairLength>, Failure> {
    let of_pair = |pair: &PreferencePair| {
        let encoded = codec.encode_pair(pair).map_err(|e| at_line(part, pair.line, &e))?;
        let n_longest = encoded.n_longest();
        let n_cut = n_longest.saturating_sub(max_length).min(encoded.prompt.len().saturating_sub(1));
        let mut completions = vec![encoded.chosen.len(), encoded.rejected.len()];
        completions.extend(encoded.reference_response.as_ref().map(Vec::len));
        Ok(PairLength {
            n_longest,
            n_tokens: Packed::n_tokens_of(encoded.prompt.len() - n_cut, &completions),
            n_of_sides: (encoded.chosen.len(), encoded.rejected.len()),
            has_same_sides: encoded.chosen == encoded.rejected,
            starts_with_bos: encoded.starts_with_bos,
        })
    };
    // Of several refusals the first by line is told, whichever thread was the first.
    pairs.par_iter().map(of_pair).collect::<Vec<_>>().into_iter().collect()
}

/// What is answered of them; `None` where there is no pair.
pub(super) fn summary(model: &ModelId, pairs: &[PairLength], context: u64) -> Option<TokenLengths> {
    let mut counts = Counts::default();
    pairs.iter().for_each(|pair| counts.add(pair.n_longest as u64));
    (!pairs.is_empty()).then(|| TokenLengths {
        model: model.clone(),
        tokens: counts.distribution(),
        n_same_sides: pairs.iter().filter(|pair| pair.has_same_sides).count() as u64,
        n_beyond_context: pairs.iter().filter(|pair| pair.n_longest as u64 > context).count() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(lengths: &[usize]) -> Vec<PairLength> {
        let of = |n: &usize| PairLength {
            n_longest: *n,
            n_tokens: *n,
            n_of_sides: (1, 1),
            has_same_sides: *n == 5,
            starts_with_bos: false,
        };
        lengths.iter().map(of).collect()
    }

    #[test]
    fn a_summary_is_of_the_pairs_in_order_of_length() {
        let model: ModelId = "m".parse().expect("an id");
        let found = summary(&model, &pairs(&[40, 5, 8, 9, 33]), 33).expect("pairs");
        let tokens = &found.tokens;
        assert_eq!((tokens.min, tokens.median, tokens.p95, tokens.max), (5, 9, 40, 40));
        let bins: Vec<_> = tokens.histogram.iter().map(|bin| (bin.below, bin.n)).collect();
        assert_eq!(bins, [(8, 1), (16, 2), (32, 0), (64, 2)]);
        assert_eq!((found.n_same_sides, found.n_beyond_context), (1, 1));
        assert_eq!(summary(&model, &[], 9), None);
    }
}
