//! Checks a whole dataset and reports everything that is wrong with it.

use std::io::{self, BufRead};

use super::{
    PairReader,
    duplicates::{Duplicates, MAX_REMEMBERED},
    field_counts::FieldCounts,
};
use crate::domain::{DatasetFormat, DatasetReport, Problem};

/// Reads all of `reader`, in `format` or in that of the first line that fits one. An error is the reader's own; whatever is
/// wrong with the content stands in the report. The memory used does not depend on the file's length.
pub fn check(reader: impl BufRead, format: Option<DatasetFormat>) -> io::Result<DatasetReport> {
    let mut pairs = PairReader::new(reader, format);
    let mut report = DatasetReport::default();
    let mut fields = FieldCounts::default();
    let mut duplicates = Duplicates::new(MAX_REMEMBERED);
    while let Some(row) = pairs.read()? {
        for warning in row.warnings {
            report.warnings.push(warning);
        }
        match row.pair {
            Ok(pair) => {
                report.n_pairs += 1;
                fields.count(&pair);
                if let Some(first) = duplicates.first_line(&pair) {
                    report.warnings.push(note(
                        Some(row.line),
                        "duplicate_pair",
                        format!("the same pair as line {first}"),
                    ));
                }
            }
            Err(problems) => problems.into_iter().for_each(|problem| report.problems.push(problem)),
        }
    }
    if report.n_pairs == 0 && report.problems.is_empty() {
        report.problems.push(note(None, "empty_file", "the file is empty: give at least one pair".to_owned()));
    }
    report.format = pairs.format();
    report.fields = fields.that_occur();
    Ok(report)
}

fn note(line: Option<u64>, code: &str, message: String) -> Problem {
    Problem { line, pointer: None, code: code.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ExtraField, FieldSummary};

    #[test]
    fn every_problem_and_warning_stands_in_the_report() {
        let good = r#"{"prompt":"p","chosen":"c","rejected":"r"}"#;
        let empty = r#"{"prompt":"","chosen":"","rejected":"r"}"#;
        let report = check(format!("{good}\n{empty}\n{good}\n{{\n").as_bytes(), None).expect("readable");
        assert_eq!((report.format, report.n_pairs), (Some(DatasetFormat::TrlStandard), 2));
        let found: Vec<_> = report.problems.first.iter().map(|p| (p.line, p.code.as_str())).collect();
        assert_eq!(found, [(Some(2), "empty_prompt"), (Some(2), "empty_completion"), (Some(4), "invalid_json")]);
        assert_eq!(
            report.warnings.first.iter().map(|p| (p.line, p.message.as_str())).collect::<Vec<_>>(),
            [(Some(3), "the same pair as line 1")]
        );
    }

    #[test]
    fn the_extra_fields_that_occur_are_counted() {
        let line = |extra: &str| format!(r#"{{"prompt":"p","chosen":"c","rejected":"r"{extra}}}"#);
        let lines = [
            line(r#","margin_rewards_chosen":[1,2],"margin_rewards_rejected":[0,0],"dimension":"safe""#),
            line(r#","dimension":"kind""#),
            line(r#","dimension":" ""#),
            line(r#","edited_response":"x","dimension":"safe""#),
            line(r#","chosen_spans":[[0,1]],"dimension":"safe""#),
        ];
        let report = check(lines.join("\n").as_bytes(), None).expect("readable");
        assert_eq!((report.n_pairs, report.problems.n_total), (4, 1));
        let summary = |n_pairs, first_line_without| FieldSummary { n_pairs, first_line_without, ..Default::default() };
        let values = [("kind".to_owned(), 1), ("safe".to_owned(), 3)].into();
        let expected = [
            (ExtraField::MarginRewards, FieldSummary { n_values: Some(2), ..summary(1, Some(2)) }),
            (ExtraField::Dimension, FieldSummary { values, ..summary(4, None) }),
            (ExtraField::TokenSpans, summary(2, Some(1))),
        ];
        assert_eq!(report.fields, expected.into());
        assert_eq!(report.lacks(ExtraField::Dimension), None);
        let said = report.lacks(ExtraField::TokenSpans).expect("lacking");
        assert_eq!(said, "token_spans stands on 2 of 4 pairs; the first line without it is 1");
    }

    #[test]
    fn tools_that_will_not_be_rendered_are_a_warning() {
        let line = r#"{"input":{"messages":[{"role":"user","content":"p"}],"tools":[{}]},
            "preferred_output":[{"role":"assistant","content":"c"}],"non_preferred_output":[{"role":"assistant","content":"r"}]}"#;
        let report = check(line.replace('\n', "").as_bytes(), None).expect("readable");
        assert!(report.problems.is_empty());
        assert_eq!(report.warnings.first[0].code, "ignored_tools");
    }

    #[test]
    fn an_empty_file_is_a_problem() {
        for bytes in ["", "\n", "\u{feff}\r\n\r\n"] {
            let report = check(bytes.as_bytes(), None).expect("readable");
            assert_eq!(report.problems.first[0].code, "empty_file", "{bytes:?}");
        }
    }
}
