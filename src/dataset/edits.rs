//! What an edit has changed: the words it inserted and those it deleted, as spans of characters.

use std::ops::Range;

use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::{PreferencePair, words::words};
use crate::domain::Sides;

/// Up to this many words on each side, less those that both begin and end with, words are compared; above it everything
/// between the first and the last change counts as changed. Comparing takes at worst the square of it.
const MAX_WORDS_COMPARED: usize = 2048;

/// The characters that an edit of `rejected` has deleted from it (side `rejected`) and inserted in `edited` (side `chosen`),
/// by whole words. A pure insertion deletes nothing, and the other way round: only equal texts leave both sides empty.
pub fn spans_of_edit(rejected: &str, edited: &str) -> Sides<Vec<Range<usize>>> {
    let (old, new) = (words(rejected), words(edited));
    let n_first = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[n_first..], &new[n_first..]);
    let n_last = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let old_middle = &old_rest[..old_rest.len() - n_last];
    let new_middle = &new_rest[..new_rest.len() - n_last];
    let mut changed: Sides<Vec<Range<usize>>> = Sides::default();
    if old_middle.len().max(new_middle.len()) > MAX_WORDS_COMPARED {
        changed.rejected.push(0..old_middle.len());
        changed.chosen.push(0..new_middle.len());
    } else {
        for op in capture_diff_slices(Algorithm::Myers, old_middle, new_middle) {
            if !matches!(op, DiffOp::Equal { .. }) {
                changed.rejected.push(op.old_range());
                changed.chosen.push(op.new_range());
            }
        }
    }
    Sides { chosen: in_chars(&new, n_first, &changed.chosen), rejected: in_chars(&old, n_first, &changed.rejected) }
}

impl PreferencePair {
    /// Where the row has an edited response: the pair of this response over the rejected one, with what the edit has changed
    /// as its spans (the use of minimal edits in arXiv 2406.02756; the row's own chosen completion is left out). Any other
    /// pair as it is.
    #[must_use]
    pub fn with_edit_as_spans(mut self) -> Self {
        if let Some(edited) = self.extra.edited_response.take() {
            self.extra.spans = Some(spans_of_edit(&self.rejected, &edited));
            self.chosen = edited;
        }
        self
    }
}

/// Spans of words as spans of characters: the empty ones left out, those that touch joined.
fn in_chars(words: &[&str], first: usize, spans: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut starts = Vec::with_capacity(words.len() + 1);
    starts.push(0);
    for word in words {
        starts.push(starts[starts.len() - 1] + word.chars().count());
    }
    let mut joined: Vec<Range<usize>> = Vec::new();
    for span in spans.iter().filter(|span| !span.is_empty()) {
        let (start, end) = (starts[first + span.start], starts[first + span.end]);
        match joined.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => joined.push(start..end),
        }
    }
    joined
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of one span")]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::dataset::{ExtraFields, Prompt};

    /// The changed parts of either side, as texts: deleted, inserted.
    fn changes<'a>(rejected: &'a str, edited: &'a str) -> [Vec<String>; 2] {
        let spans = spans_of_edit(rejected, edited);
        let texts = |text: &str, spans: &[Range<usize>]| {
            spans.iter().map(|s| text.chars().skip(s.start).take(s.len()).collect()).collect()
        };
        [texts(rejected, &spans.rejected), texts(edited, &spans.chosen)]
    }

    #[test]
    fn an_edit_is_the_words_it_changes() {
        assert_eq!(changes("You are wrong, sir.", "You are mistaken, sir."), [["wrong"], ["mistaken"]]);
        assert_eq!(changes("Go away!", "Please go away!"), [vec!["Go"], vec!["Please go"]]);
        assert_eq!(changes("Thé est chaud", "Thé est très chaud"), [vec![], vec!["très "]]);
        assert_eq!(changes("no, no, never 🙂", "no, never 🙂"), [vec!["no, "], vec![]]);
        assert_eq!(changes("天空是绿色", "天空是蓝色"), [["绿"], ["蓝"]]);
        assert_eq!(changes("one two three four", "1 two 3 four"), [["one", "three"], ["1", "3"]]);
        assert_eq!(changes("a  b", "a b"), [["  "], [" "]], "white space counts too");
        assert_eq!(changes("", "all new"), [vec![], vec!["all new"]]);
        assert_eq!(changes("same", "same"), [[""; 0], [""; 0]]);
    }

    #[test]
    fn beyond_a_size_all_between_the_first_and_the_last_change_counts() {
        let text = |word: &str| format!("first {} last", vec![word; MAX_WORDS_COMPARED].join(" "));
        let n_chars = 4 * MAX_WORDS_COMPARED - 1;
        let spans = spans_of_edit(&text("yes"), &text("nay"));
        assert_eq!((&spans.chosen[..], &spans.rejected[..]), (&[6..6 + n_chars][..], &[6..6 + n_chars][..]));
        let one_more = format!("{} word", text("yes"));
        assert_eq!(changes(&text("yes"), &one_more)[1], [" word"], "what both sides share is not counted");
    }

    #[test]
    fn an_edited_response_takes_the_place_of_the_chosen_one() {
        let pair = |edited: Option<&str>| PreferencePair {
            line: 1,
            prompt: Prompt::Text("p".into()),
            chosen: "c".into(),
            rejected: "no way".into(),
            extra: ExtraFields { edited_response: edited.map(Into::into), ..ExtraFields::default() },
        };
        assert_eq!(pair(None).with_edit_as_spans(), pair(None));
        let edited = pair(Some("one way")).with_edit_as_spans();
        assert_eq!((edited.chosen.as_str(), edited.rejected.as_str()), ("one way", "no way"));
        let spans = Sides { chosen: vec![0..3], rejected: vec![0..2] };
        assert_eq!(edited.extra, ExtraFields { spans: Some(spans), ..ExtraFields::default() });
    }

    fn any_text() -> impl Strategy<Value = String> {
        let part = proptest::sample::select(&["a", "bc", "é", "語", "😀", " ", "  ", "\n", ".", "e\u{301}"][..]);
        vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

        /// What is left after the changes is the same text, and the spans are what a row may hold.
        #[test]
        fn outside_the_spans_the_texts_are_equal(rejected in any_text(), edited in any_text()) {
            let spans = spans_of_edit(&rejected, &edited);
            let left = |text: &str, spans: &[Range<usize>]| -> String {
                text.chars().enumerate().filter(|(i, _)| !spans.iter().any(|s| s.contains(i))).map(|(_, c)| c).collect()
            };
            prop_assert_eq!(left(&rejected, &spans.rejected), left(&edited, &spans.chosen));
            prop_assert_eq!(rejected == edited, spans.chosen.is_empty() && spans.rejected.is_empty());
            for (text, spans) in [(&rejected, &spans.rejected), (&edited, &spans.chosen)] {
                prop_assert!(spans.iter().all(|s| s.start < s.end && s.end <= text.chars().count()));
                prop_assert!(spans.windows(2).all(|two| two[0].end < two[1].start));
            }
        }
    }
}
