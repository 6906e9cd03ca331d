//! The parts of the completions that count: `chosen_spans` and `rejected_spans`, lists of `[start, end]`.

use std::ops::Range;

use serde_json::{Map, Value};

use super::{extra::present, fields::Notes};
use crate::domain::Sides;

/// Chosen's, rejected's.
pub(super) const FIELDS: [&str; 2] = ["chosen_spans", "rejected_spans"];

/// Reads the spans of both sides, a missing one as no spans. Without the completions, where these are wrong, their lengths
/// are not looked at.
pub(super) fn parse(
    row: &Map<String, Value>,
    completions: Option<Sides<&str>>,
    notes: &mut Notes,
) -> Option<Sides<Vec<Range<usize>>>> {
    let values = FIELDS.map(|name| present(row, name));
    let first_name = FIELDS.into_iter().zip(values).find_map(|(name, value)| value.map(|_| name))?;
    let texts = completions.map(|c| [c.chosen, c.rejected]);
    let [chosen, rejected] = [0, 1].map(|side| match values[side] {
        Some(value) => list(value, FIELDS[side], texts.map(|texts| texts[side].chars().count()), notes),
        None => Some(Vec::new()),
    });
    let (chosen, rejected) = (chosen?, rejected?);
    if chosen.is_empty() && rejected.is_empty() {
        let message = "neither completion has a span: mark at least one or remove the fields";
        notes.problem(format!("/{first_name}"), "empty_list", message);
        return None;
    }
    Some(Sides { chosen, rejected })
}

/// One side's spans. Of a list only the first mistake is noted: the others tend to follow from it.
fn list(value: &Value, name: &str, n_chars: Option<usize>, notes: &mut Notes) -> Option<Vec<Range<usize>>> {
    let Some(list) = value.as_array() else {
        notes.wrong_type(value, &format!("/{name}"), "a list of spans [start, end]");
        return None;
    };
    let mut spans: Vec<Range<usize>> = Vec::with_capacity(list.len());
    for value in list {
        let pointer = format!("/{name}/{}", spans.len());
        let Some([start, end]) = two_numbers(value) else {
            notes.problem(pointer, "wrong_type", "a span is [start, end], two whole numbers from 0 on");
            return None;
        };
        if let Some((code, message)) = mistake(start, end, n_chars, spans.last()) {
            notes.problem(pointer, code, message);
            return None;
        }
        spans.push(start..end);
    }
    Some(spans)
}

fn two_numbers(value: &Value) -> Option<[usize; 2]> {
    let [start, end] = value.as_array()?.as_slice() else { return None };
    let number = |value: &Value| usize::try_from(value.as_u64()?).ok();
    Some([number(start)?, number(end)?])
}

/// Code and message of what is wrong with a span that follows `before`.
fn mistake(
    start: usize,
    end: usize,
    n_chars: Option<usize>,
    before: Option<&Range<usize>>,
) -> Option<(&'static str, String)> {
    if start >= end {
        let message =
            format!("the span [{start}, {end}] is empty: start comes before end, one past the last character");
        return Some(("out_of_range", message));
    }
    if let Some(n) = n_chars.filter(|n| end > *n) {
        let message =
            format!("the span ends at {end}, but the completion has {n} characters: count characters, not bytes");
        return Some(("out_of_range", message));
    }
    let before = before.filter(|before| start < before.end)?;
    let message = format!(
        "the span [{start}, {end}] begins before the end of [{}, {}]: write spans in order and join those that overlap",
        before.start, before.end
    );
    Some(("overlapping_spans", message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COMPLETIONS: Sides<&str> = Sides { chosen: "héllo 🙂", rejected: "no" };

    type Spans = Sides<Vec<Range<usize>>>;

    fn parse_row(row: &Value) -> Result<Option<Spans>, Vec<String>> {
        let mut notes = Notes::new(1);
        let spans = parse(row.as_object().expect("an object"), Some(COMPLETIONS), &mut notes);
        let problems: Vec<_> =
            notes.problems.into_iter().map(|p| format!("{} {}", p.pointer.unwrap_or_default(), p.code)).collect();
        if problems.is_empty() { Ok(spans) } else { Err(problems) }
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "lists of one span")]
    fn spans_are_counted_in_characters_and_may_touch() {
        let row = json!({"chosen_spans": [[0, 2], [2, 3], [6, 7]], "rejected_spans": null});
        assert_eq!(parse_row(&row), Ok(Some(Sides { chosen: vec![0..2, 2..3, 6..7], rejected: vec![] })));
        let row = json!({"chosen_spans": [], "rejected_spans": [[1, 2]]});
        assert_eq!(parse_row(&row), Ok(Some(Sides { chosen: vec![], rejected: vec![1..2] })));
        assert_eq!(parse_row(&json!({"chosen_spans": null})), Ok(None));
    }

    #[test]
    fn everything_wrong_with_spans_is_named() {
        let found = |chosen: Value, rejected: Value| {
            parse_row(&json!({"chosen_spans": chosen, "rejected_spans": rejected})).expect_err("problems")
        };
        assert_eq!(found(json!("0-2"), json!({})), ["/chosen_spans wrong_type", "/rejected_spans wrong_type"]);
        for no_span in [json!(3), json!([1]), json!([1, 2, 3]), json!([-1, 2]), json!([0, 1.5]), json!([0, "1"])] {
            assert_eq!(found(json!([[0, 1], no_span]), json!([])), ["/chosen_spans/1 wrong_type"]);
        }
        assert_eq!(
            found(json!([[2, 2]]), json!([[2, 1]])),
            ["/chosen_spans/0 out_of_range", "/rejected_spans/0 out_of_range"]
        );
        assert_eq!(
            found(json!([[0, 8]]), json!([[0, 3]])),
            ["/chosen_spans/0 out_of_range", "/rejected_spans/0 out_of_range"]
        );
        assert_eq!(found(json!([[0, 2], [1, 3], [0, 9]]), json!([])), ["/chosen_spans/1 overlapping_spans"]);
        assert_eq!(found(json!([[3, 4], [0, 1]]), json!([])), ["/chosen_spans/1 overlapping_spans"]);
        assert_eq!(found(json!([]), json!([])), ["/chosen_spans empty_list"]);
        assert_eq!(found(json!(null), json!([])), ["/rejected_spans empty_list"]);
    }

    #[test]
    fn a_span_that_is_no_span_says_what_one_is() {
        let message = |end: usize| mistake(0, end, Some(7), None).map(|(_, message)| message);
        assert_eq!(message(7), None);
        let expected = "the span ends at 8, but the completion has 7 characters: count characters, not bytes";
        assert_eq!(message(8).as_deref(), Some(expected));
    }
}
