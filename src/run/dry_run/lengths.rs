//! How long pairs are in one model's tokens.

use rayon::prelude::*;

use super::super::prepare::{Part, at_line};
use crate::{
    dataset::PreferencePair,
    domain::{Failure, LengthBin, Lengths, ModelId},
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
    pairs.par_iter().map(of_pair).collect()
}

/// What is answered of them; `None` where there is no pair.
pub(super) fn summary(model: &ModelId, pairs: &[PairLength], context: u64) -> Option<Lengths> {
    let mut lengths: Vec<u64> = pairs.iter().map(|pair| pair.n_longest as u64).collect();
    lengths.sort_unstable();
    let (min, max) = (*lengths.first()?, *lengths.last()?);
    // The smallest length that so large a share does not exceed.
    let quantile = |share: f64| lengths[((share * lengths.len() as f64).ceil() as usize).max(1) - 1];
    Some(Lengths {
        model: model.clone(),
        min,
        median: quantile(0.5),
        p95: quantile(0.95),
        max,
        histogram: histogram(&lengths),
        n_same_sides: pairs.iter().filter(|pair| pair.has_same_sides).count() as u64,
        n_beyond_context: lengths.iter().filter(|length| **length > context).count() as u64,
    })
}

/// From the bin of the shortest to that of the longest; `lengths` are in order.
fn histogram(lengths: &[u64]) -> Vec<LengthBin> {
    let bin_of = |length: u64| length.max(1).next_power_of_two();
    let mut bins: Vec<LengthBin> = Vec::new();
    for length in lengths {
        let up_to = bin_of(*length);
        while bins.last().is_some_and(|bin| bin.up_to < up_to) {
            let next = bins.last().map_or(up_to, |bin| 2 * bin.up_to);
            bins.push(LengthBin { up_to: next, n_pairs: 0 });
        }
        match bins.last_mut() {
            Some(bin) => bin.n_pairs += 1,
            None => bins.push(LengthBin { up_to, n_pairs: 1 }),
        }
    }
    bins
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
        assert_eq!((found.min, found.median, found.p95, found.max), (5, 9, 40, 40));
        let bins: Vec<_> = found.histogram.iter().map(|bin| (bin.up_to, bin.n_pairs)).collect();
        assert_eq!(bins, [(8, 2), (16, 1), (32, 0), (64, 2)]);
        assert_eq!((found.n_same_sides, found.n_beyond_context), (1, 1));
        assert_eq!(summary(&model, &[], 9), None);
    }
}
