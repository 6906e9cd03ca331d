//! Holds `docs/datasets.md` to what is read and answered.

use serde_json::{Map, Value};

use super::{PairReader, PreferencePair, Prompt};
use crate::domain::{DatasetFormat, Problem};

const DOCUMENT: &str = include_str!("../../docs/datasets.md");
/// The two lines that the document speaks of.
const FIRST: &str =
    r#"{"prompt":"p","chosen":"c","rejected":"r","margin_rewards_chosen":[1,2],"margin_rewards_rejected":[3,4]}"#;
const PAIR: &str = r#"{"prompt": "2+2?", "chosen": "4, of course", "rejected": "5, surely"}"#;

/// The cells of the rows of every table below a heading.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let section = DOCUMENT.split("\n## ").find(|section| section.starts_with(heading)).expect("the section");
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// The rows that show the formats.
pub(super) fn examples() -> Vec<Value> {
    rows("Formats").iter().map(|row| serde_json::from_str(row[2].trim_matches('`')).expect(row[2])).collect()
}

/// The second line of a file, made of the pair and the fields of a cell.
fn read(cell: &str) -> Result<PreferencePair, Vec<Problem>> {
    let fields: Map<String, Value> = serde_json::from_str(cell.trim_matches('`')).expect(cell);
    let mut row: Map<String, Value> = serde_json::from_str(PAIR).expect("a pair");
    row.extend(fields);
    let text = format!("{FIRST}\n{}", Value::Object(row));
    let mut reader = PairReader::new(text.as_bytes(), None);
    assert!(reader.read().expect("readable").expect("a row").pair.is_ok());
    reader.read().expect("readable").expect("a row").pair
}

#[test]
fn every_format_has_an_example_that_is_read_in_it() {
    let rows = rows("Formats");
    for (row, example) in rows.iter().zip(examples()) {
        let text = example.to_string();
        let mut reader = PairReader::new(text.as_bytes(), None);
        let pair = reader.read().expect("readable").expect("a row").pair;
        let pair = pair.unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
        assert_eq!(format!("`{}`", reader.format().expect("a format")), row[0]);
        assert_eq!((pair.chosen.trim(), pair.rejected.trim()), ("4", "5"), "{text}");
        let prompt = match &pair.prompt {
            Prompt::Text(text) => text,
            Prompt::Messages(messages) => &messages.last().expect("a message").content,
        };
        assert!(prompt.contains("2+2"), "{text}");
    }
    for format in DatasetFormat::ALL {
        assert!(rows.iter().any(|row| row[0] == format!("`{format}`")), "{format}");
    }
}

#[test]
fn the_examples_are_read() {
    let rows = rows("Extra fields");
    assert_eq!(rows.len(), 6);
    for row in rows {
        let pair = read(row[2]).unwrap_or_else(|problems| panic!("{}: {problems:?}", row[2]));
        assert_ne!(pair.extra, super::ExtraFields::default(), "{}", row[2]);
    }
}

#[test]
fn the_answers_are_those_in_the_document() {
    assert!(DOCUMENT.contains(&format!("`{PAIR}`")));
    let rows = rows("What is answered to a wrong extra field");
    assert!(rows.len() > 20, "{}", rows.len());
    let mut wrong = String::new();
    for row in &rows {
        let problems = read(row[0]).expect_err(row[0]);
        let [problem] = problems.as_slice() else { panic!("one problem of {}: {problems:?}", row[0]) };
        let pointer = problem.pointer.as_deref().unwrap_or_default();
        let expected = format!("| {} | `{pointer}` | `{}` | {} |\n", row[0], problem.code, problem.message);
        if format!("| {} |\n", row.join(" | ")) != expected {
            wrong += &expected;
        }
    }
    assert!(wrong.is_empty(), "docs/datasets.md should say\n{wrong}");
}
