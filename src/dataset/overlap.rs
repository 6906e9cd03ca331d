//! Which pairs of one file stand in another one: held-out pairs that were trained on say nothing.

use std::io::{self, BufRead};

use super::{
    PairReader, PreferencePair,
    digests::{FirstLines, PairDigest},
};
use crate::domain::{Overlap, SharedPair, SharedPart};

/// The most pairs of the file that is looked in: as many as tables of 2^21 places take before they grow, 54 MB in all.
const MAX_PAIRS: usize = (1 << 21) / 8 * 7;
/// How many shared pairs are named.
const N_NAMED: usize = 100;

/// Looks for the pairs of `asked` in `within`; rows that are no pairs are passed over. Each file is read once.
///
/// # Errors
/// The readers' own.
pub fn overlap(within: PairReader<impl BufRead>, asked: PairReader<impl BufRead>) -> io::Result<Overlap> {
    overlap_up_to(MAX_PAIRS, within, asked)
}

fn overlap_up_to(
    max_pairs: usize,
    within: PairReader<impl BufRead>,
    asked: PairReader<impl BufRead>,
) -> io::Result<Overlap> {
    let mut found = Overlap { is_complete: true, ..Overlap::default() };
    // A pair by its prompt and by all of it, each at the line where it stands first.
    let (mut prompts, mut pairs) = (FirstLines::default(), FirstLines::default());
    each_pair(within, |pair| {
        found.is_complete = pairs.len() < max_pairs;
        if found.is_complete {
            let digest = PairDigest::of(pair);
            prompts.note(digest.prompt, pair.line);
            pairs.note(digest.pair, pair.line);
        }
        found.is_complete
    })?;
    each_pair(asked, |pair| {
        found.n_pairs += 1;
        let digest = PairDigest::of(pair);
        let Some(line_of_prompt) = prompts.get(digest.prompt) else { return true };
        let (same, swapped) = (pairs.get(digest.pair), pairs.get(digest.swapped));
        let (part, line_within) = match (same, swapped) {
            (Some(line), _) => (SharedPart::Pair, line),
            (None, Some(line)) => (SharedPart::SwappedPair, line),
            (None, None) => (SharedPart::Prompt, line_of_prompt),
        };
        found.n_shared_prompts += 1;
        found.n_shared_pairs += u64::from(part == SharedPart::Pair);
        found.n_swapped_pairs += u64::from(part == SharedPart::SwappedPair);
        if found.first.len() < N_NAMED {
            found.first.push(SharedPair { line: pair.line, line_within, part });
        }
        true
    })?;
    Ok(found)
}

/// Hands over every good pair, until `each` has enough.
fn each_pair(mut reader: PairReader<impl BufRead>, mut each: impl FnMut(&PreferencePair) -> bool) -> io::Result<()> {
    while let Some(row) = reader.read()? {
        if let Ok(pair) = &row.pair
            && !each(pair)
        {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pairs: &[[&str; 3]]) -> String {
        pairs
            .iter()
            .map(|[p, c, r]| format!("{{\"prompt\":\"{p}\",\"chosen\":\"{c}\",\"rejected\":\"{r}\"}}\n"))
            .collect()
    }

    fn of(max_pairs: usize, within: &[[&str; 3]], asked: &[[&str; 3]]) -> Overlap {
        let (within, asked) = (lines(within), lines(asked));
        let reader = |text| PairReader::new(io::Cursor::new(text), None);
        overlap_up_to(max_pairs, reader(within), reader(asked)).expect("readable")
    }

    #[test]
    fn pairs_swapped_pairs_and_prompts_are_told_apart() {
        let within = [["a", "x", "y"], ["b", "x", "y"], ["a", "z", "y"]];
        let found = of(10, &within, &[["c", "x", "y"], ["a", "z", "y"], ["b", "y", "x"], ["a", "q", "y"]]);
        let named: Vec<_> = found.first.iter().map(|s| (s.line, s.line_within, s.part)).collect();
        let expected = [(2, 3, SharedPart::Pair), (3, 2, SharedPart::SwappedPair), (4, 1, SharedPart::Prompt)];
        assert_eq!(named, expected);
        assert_eq!((found.n_pairs, found.n_shared_prompts, found.n_shared_pairs, found.n_swapped_pairs), (4, 3, 1, 1));
        assert!(found.is_complete);
    }

    #[test]
    fn a_file_beyond_the_limit_is_looked_in_as_far_as_it_goes() {
        let within = [["a", "x", "y"], ["b", "x", "y"]];
        let found = of(1, &within, &[["a", "x", "y"], ["b", "x", "y"]]);
        assert_eq!((found.is_complete, found.n_shared_pairs), (false, 1));
        assert!(of(2, &within, &[]).is_complete);
    }
}
