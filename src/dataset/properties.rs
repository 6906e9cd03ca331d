//! Whatever the bytes are, reading them does not panic and accounts for every line.

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use super::{PairReader, check};
use crate::domain::DatasetFormat;

fn any_format() -> impl Strategy<Value = Option<DatasetFormat>> {
    proptest::option::of(proptest::sample::select(&DatasetFormat::ALL[..]))
}

/// Texts that come near what the formats look for, cut at odd places and with characters of every length.
fn any_text() -> impl Strategy<Value = String> {
    vec(
        prop_oneof![
            Just("\n\nHuman:"),
            Just("\n\nAssistant:"),
            Just(" a"),
            Just("é"),
            Just("語"),
            Just("😀"),
            Just("\0")
        ],
        0..6,
    )
    .prop_map(|parts| parts.concat())
}

fn any_message() -> impl Strategy<Value = Value> {
    let role = prop_oneof![Just("user"), Just("assistant"), Just("system"), Just("robot")];
    prop_oneof![
        8 => (role, any_text()).prop_map(|(role, content)| json!({"role": role, "content": content})),
        1 => Just(json!({"role": "user"})),
        1 => Just(json!(3)),
    ]
}

fn any_side() -> impl Strategy<Value = Value> {
    prop_oneof![any_text().prop_map(Value::from), vec(any_message(), 0..4).prop_map(Value::from), Just(Value::Null)]
}

/// Extra fields, right and wrong in every way that comes to mind.
fn any_extra() -> impl Strategy<Value = (&'static str, Value)> {
    let names = proptest::sample::select(
        &[
            "margin_rewards_chosen",
            "margin_rewards_rejected",
            "aux_rewards_chosen",
            "aux_rewards_rejected",
            "dimension",
            "reference_response",
            "chosen_spans",
            "rejected_spans",
            "edited_response",
        ][..],
    );
    let number = prop_oneof![any::<f64>().prop_map(Value::from), (-1..4).prop_map(Value::from), Just(Value::Null)];
    let span = vec(-1..9_i64, 1..4).prop_map(Value::from);
    let value = prop_oneof![any_side(), number.clone(), vec(prop_oneof![number, span], 0..4).prop_map(Value::from)];
    (names, value)
}

fn any_row() -> impl Strategy<Value = Value> {
    let names = prop_oneof![
        Just("prompt"),
        Just("chosen"),
        Just("rejected"),
        Just("preferred_output"),
        Just("non_preferred_completion")
    ];
    let nested = any_side().prop_map(|messages| ("input", json!({"messages": messages})));
    vec(prop_oneof![6 => (names, any_side()), 1 => nested, 3 => any_extra()], 0..7)
        .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn any_bytes_are_read_to_the_end(bytes in vec(any::<u8>(), 0..200), format in any_format()) {
        let report = check(PairReader::new(bytes.as_slice(), format)).expect("a slice is readable");
        prop_assert!(report.n_pairs > 0 || report.problems.n_total > 0);
    }

    /// Rows whose pair is right, so that it is the extra fields that decide.
    #[test]
    fn every_row_with_extra_fields_is_a_pair_or_has_a_problem(extras in vec(vec(any_extra(), 0..4), 1..8)) {
        let text: String = extras
            .into_iter()
            .map(|extra| {
                let mut row = json!({"prompt": "p", "chosen": "é😀語 a", "rejected": "b é"});
                row.as_object_mut().expect("an object").extend(extra.into_iter().map(|(k, v)| (k.to_owned(), v)));
                format!("{row}\n")
            })
            .collect();
        let mut reader = PairReader::new(text.as_bytes(), None);
        while let Some(row) = reader.read().expect("a slice is readable") {
            match row.pair {
                Err(problems) => prop_assert!(!problems.is_empty()),
                Ok(pair) => {
                    for (text, spans) in pair.extra.spans.iter().flat_map(|s| [(&pair.chosen, &s.chosen), (&pair.rejected, &s.rejected)]) {
                        prop_assert!(spans.iter().all(|s| s.start < s.end && s.end <= text.chars().count()));
                        prop_assert!(spans.windows(2).all(|two| two[0].end <= two[1].start));
                    }
                    for rewards in [&pair.extra.margin_rewards, &pair.extra.aux_rewards].into_iter().flatten() {
                        prop_assert_eq!(rewards.chosen.len(), rewards.rejected.len());
                    }
                }
            }
        }
    }

    #[test]
    fn every_row_is_a_pair_or_has_a_problem(rows in vec(any_row(), 1..8), format in any_format()) {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let report = check(PairReader::new(text.as_bytes(), format)).expect("a slice is readable");
        let lines_with_problems: std::collections::BTreeSet<_> = report.problems.first.iter().map(|p| p.line).collect();
        if report.problems.n_total as usize == report.problems.first.len() {
            prop_assert_eq!(report.n_pairs as usize + lines_with_problems.len(), rows.len());
        }
    }
}
