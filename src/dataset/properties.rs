//! Whatever the bytes are, reading them does not panic and accounts for every line.

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use super::check;
use crate::domain::DatasetFormat;

const FORMATS: [DatasetFormat; 6] = [
    DatasetFormat::OpenaiPreference,
    DatasetFormat::TrlStandard,
    DatasetFormat::TrlStandardImplicit,
    DatasetFormat::TrlConversational,
    DatasetFormat::TrlConversationalImplicit,
    DatasetFormat::AnthropicHh,
];

fn any_format() -> impl Strategy<Value = Option<DatasetFormat>> {
    proptest::option::of(proptest::sample::select(&FORMATS[..]))
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

fn any_row() -> impl Strategy<Value = Value> {
    let names = prop_oneof![
        Just("prompt"),
        Just("chosen"),
        Just("rejected"),
        Just("preferred_output"),
        Just("non_preferred_completion")
    ];
    let nested = any_side().prop_map(|messages| ("input", json!({"messages": messages})));
    vec(prop_oneof![6 => (names, any_side()), 1 => nested], 0..5)
        .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn any_bytes_are_read_to_the_end(bytes in vec(any::<u8>(), 0..200), format in any_format()) {
        let report = check(bytes.as_slice(), format).expect("a slice is readable");
        prop_assert!(report.n_pairs > 0 || report.problems.n_total > 0);
    }

    #[test]
    fn every_row_is_a_pair_or_has_a_problem(rows in vec(any_row(), 1..8), format in any_format()) {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let report = check(text.as_bytes(), format).expect("a slice is readable");
        let lines_with_problems: std::collections::BTreeSet<_> = report.problems.first.iter().map(|p| p.line).collect();
        if report.problems.n_total as usize == report.problems.first.len() {
            prop_assert_eq!(report.n_pairs as usize + lines_with_problems.len(), rows.len());
        }
    }
}
