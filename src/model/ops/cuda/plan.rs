//! How attention over packed segments is cut into tiles: which block of a kernel computes what.

use crate::model::layout::{Segment, Sequence};

/// Numbers of the kernels' `Span`: first query, number of queries, prefix first and end, start of the segment.
const SPAN_NUMBERS: usize = 5;

/// What the kernels of attention are handed, as their structures lie in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// `Span`s: a tile of queries each, those with the most keys first.
    pub(super) spans: Vec<u32>,
    /// `KeyTile`s: first key, number of keys, first and end of the spans below that see some of them; the most seen first.
    pub(super) key_tiles: Vec<u32>,
    /// `Span`s again, in the order of the key tiles.
    pub(super) seeing: Vec<u32>,
}

impl Plan {
    /// Cuts all segments into tiles of at most `tile` tokens. A query sees at most `window` keys, itself among them.
    pub(super) fn new(sequences: &[Sequence], tile: usize, window: Option<usize>) -> Self {
        let window = window.unwrap_or(usize::MAX);
        let (mut all_spans, mut key_tiles) = (Vec::new(), Vec::new());
        for sequence in sequences {
            let spans: Vec<Span<'_>> = tiles(sequence, tile).collect();
            for keys in tiles(sequence, tile) {
                let seeing: Vec<Span<'_>> =
                    spans.iter().copied().filter(|span| span.sees_some_of(keys, window)).collect();
                key_tiles.push((keys, seeing));
            }
            all_spans.extend(spans);
        }
        // What takes longest begins first; blocks begin in order.
        all_spans.sort_by_key(|span| std::cmp::Reverse(span.n_keys(window)));
        key_tiles.sort_by_key(|(_, seeing)| std::cmp::Reverse(seeing.len()));
        let mut plan = Self { spans: all_spans.iter().flat_map(|span| span.numbers()).collect(), ..Self::default() };
        for (keys, seeing) in key_tiles {
            let first = plan.seeing.len() / SPAN_NUMBERS;
            let end = first + seeing.len();
            plan.key_tiles.extend([keys.first, keys.n, first, end].map(|x| x as u32));
            plan.seeing.extend(seeing.iter().flat_map(|span| span.numbers()));
        }
        plan
    }

    /// Number of spans.
    #[cfg(feature = "cuda")]
    pub(super) fn n_spans(&self) -> usize {
        self.spans.len() / SPAN_NUMBERS
    }

    /// Number of key tiles.
    #[cfg(feature = "cuda")]
    pub(super) fn n_key_tiles(&self) -> usize {
        self.key_tiles.len() / 4
    }
}

/// A tile of tokens of one segment.
#[derive(Debug, Clone, Copy)]
struct Span<'a> {
    segment: &'a Segment,
    first: usize,
    n: usize,
}

fn tiles(sequence: &Sequence, tile: usize) -> impl Iterator<Item = Span<'_>> {
    sequence.segments.iter().flat_map(move |segment| {
        let end = segment.start + segment.len;
        (segment.start..end).step_by(tile).map(move |first| Span { segment, first, n: tile.min(end - first) })
    })
}

impl Span<'_> {
    fn numbers(self) -> [u32; SPAN_NUMBERS] {
        let prefix = &self.segment.prefix;
        [self.first, self.n, prefix.start, prefix.end, self.segment.start].map(|x| x as u32)
    }

    /// Keys that some query sees.
    fn n_keys(self, window: usize) -> usize {
        let n_all = self.segment.prefix.len() + self.first + self.n - self.segment.start;
        n_all.min(window.saturating_add(self.n - 1))
    }

    /// Whether one of these queries sees one of those keys: the first query sees the furthest back.
    fn sees_some_of(self, keys: Span<'_>, window: usize) -> bool {
        let (prefix, keys_end) = (&self.segment.prefix, keys.first + keys.n);
        let is_own = self.segment.start == keys.segment.start
            && self.first + self.n > keys.first
            && self.first.saturating_sub(keys_end - 1) < window;
        // The prefix and the segment lie side by side for what the queries see.
        let first_query = prefix.end + self.first - self.segment.start;
        let is_shared =
            prefix.start < keys_end && prefix.end > keys.first && first_query - (keys_end.min(prefix.end) - 1) < window;
        is_own || is_shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layout::Packed;

    /// Whether a query of a span sees a key, by the distance along what it sees.
    fn sees(span: &[u32], query: u32, key: u32, window: u32) -> bool {
        let [prefix, own] = [span[2]..span[3], span[4]..query + 1];
        let index = prefix.len() as u32 + query - span[4];
        let in_prefix = prefix.contains(&key) && index - (key - span[2]) < window;
        in_prefix || (own.contains(&key) && query - key < window)
    }

    fn batch() -> Packed {
        let mut batch = Packed::default();
        batch.push(&[1; 9], &[&[1; 5], &[1; 14], &[1; 1]]);
        batch.push(&[1; 1], &[&[1; 4]]);
        batch
    }

    /// What each query sees, nearest last.
    fn seen_keys(batch: &Packed, query: usize, window: Option<usize>) -> Vec<usize> {
        let segments = batch.sequences.iter().flat_map(|s| &s.segments);
        let mut own = segments.filter(|segment| (segment.start..segment.start + segment.len).contains(&query));
        let segment = own.next().expect("every token has a segment");
        let all: Vec<usize> = segment.prefix.clone().chain(segment.start..=query).collect();
        all[all.len() - all.len().min(window.unwrap_or(usize::MAX))..].to_vec()
    }

    #[test]
    fn every_query_meets_every_key_it_sees_once() {
        let batch = batch();
        let n = batch.tokens.len() as u32;
        for (tile, window) in
            [1, 4, 16].into_iter().flat_map(|t| [None, Some(1), Some(3), Some(7), Some(99)].map(|w| (t, w)))
        {
            let plan = Plan::new(&batch.sequences, tile, window);
            let mut met = vec![Vec::new(); n as usize];
            let mut n_queries = 0;
            for span in plan.spans.chunks_exact(SPAN_NUMBERS) {
                assert!(span[1] as usize <= tile && span[1] > 0);
                n_queries += span[1];
            }
            assert_eq!(n_queries, n);
            for keys in plan.key_tiles.chunks_exact(4) {
                let seeing = &plan.seeing[keys[2] as usize * SPAN_NUMBERS..keys[3] as usize * SPAN_NUMBERS];
                for span in seeing.chunks_exact(SPAN_NUMBERS) {
                    let mut is_needed = false;
                    for query in span[0]..span[0] + span[1] {
                        let limit = window.map_or(u32::MAX, |w| w as u32);
                        for key in (keys[0]..keys[0] + keys[1]).filter(|key| sees(span, query, *key, limit)) {
                            met[query as usize].push(key as usize);
                            is_needed = true;
                        }
                    }
                    assert!(is_needed, "tile {tile}, window {window:?}: a span meets keys it does not see");
                }
            }
            for (query, met) in met.iter_mut().enumerate() {
                met.sort_unstable();
                assert_eq!(*met, seen_keys(&batch, query, window), "tile {tile}, window {window:?}, query {query}");
            }
        }
    }
}
