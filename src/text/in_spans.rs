//! Which tokens of a text some of its characters are in.

use std::ops::Range;

/// For each token of a text, whether a span touches it; and, last, for the token that ends the turn, whether a span reaches
/// the end of the text.
///
/// `offsets` are the tokens' own, in characters of the text; `spans` ascend and do not overlap. The tokens are taken to cover
/// the text without a gap, so that each span touches at least one where there are tokens at all:
/// - of several tokens that make up one character (bytes), each stands for the whole character;
/// - what no token stands for (a normaliser has dropped it or joined it to the letter before) belongs to the tokens before
///   it, at the beginning of the text to the first;
/// - a token that stands for nothing in the text (the space that SentencePiece puts in front) belongs to what follows it.
pub(super) fn in_spans(offsets: &[(usize, usize)], n_chars: usize, spans: &[Range<usize>]) -> Vec<bool> {
    let touches = |chars: Range<usize>| {
        let first = spans.partition_point(|span| span.end <= chars.start);
        spans.get(first).is_some_and(|span| span.start < chars.end)
    };
    let mut touched = Vec::with_capacity(offsets.len() + 1);
    for group in offsets.chunk_by(|a, b| a.0 == b.0) {
        let start = if touched.is_empty() { 0 } else { group[0].0 };
        let next_start = offsets.get(touched.len() + group.len()).map_or(n_chars, |next| next.0);
        let last_end = group.iter().map(|(_, end)| *end).max().unwrap_or(start);
        for (_, end) in group {
            // What lies between two groups goes with those of the first that reach up to it.
            let end = if *end == last_end { next_start.max(*end) } else { *end };
            touched.push(touches(start..end.max(start + 1)));
        }
    }
    touched.push(spans.last().is_some_and(|span| span.end >= n_chars));
    touched
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of one span")]
mod tests {
    use super::*;

    /// The touched tokens as `x`.
    fn marks(offsets: &[(usize, usize)], n_chars: usize, spans: &[Range<usize>]) -> String {
        in_spans(offsets, n_chars, spans).into_iter().map(|t| if t { 'x' } else { '.' }).collect()
    }

    const WORDS: [(usize, usize); 3] = [(0, 3), (3, 5), (5, 9)];

    #[test]
    fn a_token_is_touched_where_it_overlaps() {
        assert_eq!(marks(&WORDS, 9, &[]), "....");
        assert_eq!(marks(&WORDS, 9, &[2..3]), "x...");
        assert_eq!(marks(&WORDS, 9, &[2..4]), "xx..");
        assert_eq!(marks(&WORDS, 9, &[3..5]), ".x..");
        assert_eq!(marks(&WORDS, 9, &[0..1, 1..2, 5..6]), "x.x.");
        assert_eq!(marks(&WORDS, 9, &[0..9]), "xxxx");
    }

    #[test]
    fn the_end_of_the_turn_is_touched_where_a_span_reaches_the_end_of_the_text() {
        assert_eq!(marks(&WORDS, 9, &[8..9]), "..xx");
        assert_eq!(marks(&WORDS, 9, &[7..8]), "..x.");
        assert_eq!(marks(&[], 1, &[0..1]), "x", "a text without tokens");
    }

    #[test]
    fn the_bytes_of_a_character_go_together() {
        let offsets = [(0, 1), (1, 2), (1, 2), (1, 2), (2, 3)];
        assert_eq!(marks(&offsets, 3, &[1..2]), ".xxx..");
        assert_eq!(marks(&offsets, 3, &[0..1]), "x.....");
        assert_eq!(marks(&[(0, 1), (0, 1), (2, 3)], 3, &[1..2]), "xx..", "with the accent that was joined to it");
    }

    #[test]
    fn what_no_token_stands_for_belongs_to_the_token_before() {
        let offsets = [(1, 3), (4, 5)];
        assert_eq!(marks(&offsets, 7, &[0..1]), "x..", "at the beginning to the first");
        assert_eq!(marks(&offsets, 7, &[3..4]), "x..");
        assert_eq!(marks(&offsets, 7, &[5..6]), ".x.");
        assert_eq!(marks(&offsets, 7, &[6..7]), ".xx");
    }

    #[test]
    fn a_token_of_nothing_belongs_to_what_follows() {
        let offsets = [(0, 0), (0, 3), (3, 3), (3, 5)];
        assert_eq!(marks(&offsets, 5, &[0..1]), "xx...");
        assert_eq!(marks(&offsets, 5, &[1..2]), ".x...");
        assert_eq!(marks(&offsets, 5, &[3..4]), "..xx.");
    }
}
