//! Checks a whole dataset and reports everything that is wrong with it.

use std::io::{self, BufRead};

use super::{PairReader, field_counts::FieldCounts, statistics::Statistics};
use crate::domain::{Container, DatasetReport, Problem};

/// Reads all of `pairs`. An error is the reader's own; whatever is wrong with the content stands in the report. The memory
/// used does not depend on the file's length.
pub fn check(mut pairs: PairReader<impl BufRead>) -> io::Result<DatasetReport> {
    let mut report = DatasetReport::default();
    let mut fields = FieldCounts::default();
    let mut statistics = Statistics::new();
    while let Some(row) = pairs.read()? {
        let repeats = statistics.count(&row);
        for warning in row.warnings {
            report.warnings.push(warning);
        }
        match row.pair {
            Ok(pair) => {
                report.n_pairs += 1;
                fields.count(&pair);
                let place = pairs.container().unwrap_or(Container::JsonLines).word_for_place();
                if let Some(first) = repeats.row {
                    let message = format!("the same pair as {place} {first}");
                    report.warnings.push(note(Some(row.line), "duplicate_pair", message));
                }
                if let Some(first) = repeats.swapped {
                    let message =
                        format!("the opposite of {place} {first}, same prompt and sides: keep the one that is right");
                    report.warnings.push(note(Some(row.line), "label_conflict", message));
                }
            }
            Err(problems) => problems.into_iter().for_each(|problem| report.problems.push(problem)),
        }
    }
    if report.n_pairs == 0 && report.problems.is_empty() {
        report.problems.push(note(None, "empty_file", "the file is empty: give at least one pair".to_owned()));
    }
    report.format = pairs.format();
    report.container = pairs.container();
    report.compression = pairs.compression();
    report.fields = fields.that_occur();
    report.statistics = Some(statistics.finish());
    Ok(report)
}

fn note(line: Option<u64>, code: &str, message: String) -> Problem {
    Problem { line, pointer: None, code: code.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{DatasetFormat, ExtraField, FieldSummary};

    fn check(text: &str) -> DatasetReport {
        super::check(PairReader::new(text.as_bytes(), None)).expect("readable")
    }

    #[test]
    fn every_problem_and_warning_stands_in_the_report() {
        let good = r#"{"prompt":"p","chosen":"c","rejected":"r"}"#;
        let empty = r#"{"prompt":"","chosen":"","rejected":"r"}"#;
        let report = check(&format!("{good}\n{empty}\n{good}\n{{\n"));
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
        let report = check(&lines.join("\n"));
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
        let report = check(&line.replace('\n', ""));
        assert!(report.problems.is_empty());
        assert_eq!(report.warnings.first[0].code, "ignored_tools");
    }

    #[test]
    fn an_empty_file_is_a_problem() {
        for bytes in ["", "\n", "\u{feff}\r\n\r\n"] {
            let report = check(bytes);
            assert_eq!(report.problems.first[0].code, "empty_file", "{bytes:?}");
        }
    }

    #[test]
    fn pairs_are_counted_and_measured() {
        let line = |prompt: &str, chosen: &str, rejected: &str| {
            format!(r#"{{"prompt":{prompt},"chosen":"{chosen}","rejected":"{rejected}"}}"#)
        };
        let messages = r#"[{"role":"system","content":"Be"},{"role":"user","content":"né"}]"#;
        let long = "x".repeat(300);
        let lines = [
            line(messages, "yes", "no"),
            line(messages, "no", "yes"),
            line(messages, "yes", "no"),
            line(messages, &long, "no"),
            line(messages, " ", "no"),
            line(messages, "same", "same"),
        ];
        let report = check(&lines.join("\n"));
        let warnings: Vec<_> = report.warnings.first.iter().map(|w| (w.line, w.code.as_str())).collect();
        assert_eq!(warnings, [(Some(2), "label_conflict"), (Some(3), "duplicate_pair"), (Some(3), "label_conflict")]);
        let found = report.statistics.expect("statistics");
        assert_eq!((found.n_rows, found.n_empty_sides, found.n_identical_sides), (6, 1, 1));
        assert_eq!((found.n_duplicate_pairs, found.n_label_conflicts, found.n_repeated_prompts), (1, 2, 3));
        assert_eq!((found.n_chosen_longer, found.n_system_prompts, found.n_remembered), (3, 4, 3));
        assert_eq!(found.roles, [("system".to_owned(), 4), ("user".to_owned(), 4)].into());
        assert_eq!((found.turns.min, found.turns.max), (2, 2));
        let lengths = &found.lengths;
        assert_eq!((lengths.prompt.min, lengths.prompt.max), (4, 4));
        assert_eq!((lengths.chosen.min, lengths.chosen.median, lengths.chosen.max), (2, 3, 300));
        assert_eq!(found.samples.len(), 2);
        assert_eq!((found.samples[0].prompt.as_str(), found.samples[0].n_messages), ("né", Some(2)));
    }

    #[test]
    fn a_sample_is_cut() {
        let report = check(&format!(r#"{{"prompt":"p","chosen":"{}","rejected":"r"}}"#, "é".repeat(201)));
        let found = report.statistics.expect("statistics");
        assert_eq!(found.samples[0].chosen, format!("{}…", "é".repeat(200)));
        assert_eq!(found.samples[0].n_messages, None);
    }
}
