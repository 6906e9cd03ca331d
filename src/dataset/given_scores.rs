//! Scores made elsewhere: JSON Lines with the log-probabilities of a data set's pairs, by line of its file.

use std::{
    collections::{HashMap, hash_map::Entry},
    io::{self, BufRead},
};

use serde_json::{Map, Value};

use super::{
    extra::present,
    fields::{Notes, kind},
    rows::{Content, Lines, Wrong, parse_json},
};
use crate::domain::{DatasetReport, FileId, Problem, ScoresSummary, Sides};

/// The most rows of one file: what names them is held in memory while they are checked.
const MAX_ROWS: usize = 2_000_000;
/// Rounding may lift a probability this much above 1.
const MAX_LOGP: f64 = 1e-6;
const FIELDS: [&str; 6] = ["row", "file", "chosen", "rejected", "chosen_tokens", "rejected_tokens"];

/// What somebody's model says of one pair.
#[derive(Debug, Clone, PartialEq)]
pub struct GivenScore {
    /// The line it stands on in the file of scores, counted from 1.
    pub line: u64,
    /// The data set; absent: the file the job trains on.
    pub file: Option<FileId>,
    /// The pair's line in it, counted from 1.
    pub row: u64,
    /// Sums of the completions' log-probabilities, in nats.
    pub logps: Sides<f64>,
    /// How many tokens the completions have in that model, where it is told.
    pub n_tokens: Option<Sides<f64>>,
}

/// Reads all of `reader`. `each` is given every good row; whatever is wrong with a line stands in the report.
///
/// # Errors
/// The reader's own.
pub fn read_scores(reader: impl BufRead, mut each: impl FnMut(GivenScore)) -> io::Result<DatasetReport> {
    let mut lines = Lines::new(reader);
    let mut report = DatasetReport::default();
    let mut summary = ScoresSummary::default();
    let mut seen = Seen::default();
    let mut blank = None;
    while let Some(line) = lines.read()? {
        let mut notes = Notes::new(line.number);
        if line.content.is_some_and(|content| content.trim_ascii().is_empty()) {
            blank.get_or_insert(line.number);
            continue;
        }
        if let Some(number) = blank.take() {
            report.problems.push(blank_line(number));
        }
        let score = parse(line.content, &mut notes);
        match score.filter(|score| notes.problems.is_empty() && seen.is_new(score, &mut notes)) {
            Some(score) => {
                report.n_pairs += 1;
                count(&mut summary, &score);
                each(score);
            }
            None => notes.problems.into_iter().for_each(|problem| report.problems.push(problem)),
        }
        if seen.lines.len() == MAX_ROWS {
            let message = format!("a file of scores has at most {MAX_ROWS} rows: split it, one model per file");
            report.problems.push(Problem { line: None, pointer: None, code: "too_many_rows".into(), message });
            break;
        }
    }
    if report.n_pairs == 0 && report.problems.is_empty() {
        let message = "the file is empty: give at least one row".to_owned();
        report.problems.push(Problem { line: None, pointer: None, code: "empty_file".into(), message });
    }
    report.scores = Some(summary);
    Ok(report)
}

fn blank_line(number: u64) -> Problem {
    let mut notes = Notes::new(number);
    notes.problem("", "blank_line", "a blank line between two rows: remove it");
    notes.problems.pop().expect("just noted")
}

fn count(summary: &mut ScoresSummary, score: &GivenScore) {
    match &score.file {
        None => summary.n_of_training_file += 1,
        Some(file) => summary.count_of(file),
    }
    match score.n_tokens {
        Some(_) => summary.n_with_token_counts += 1,
        None => {
            summary.first_line_without_token_counts.get_or_insert(score.line);
        }
    }
}

/// Which pairs have their score, and on which line.
#[derive(Default)]
struct Seen {
    files: HashMap<Option<FileId>, usize>,
    lines: HashMap<(usize, u64), u64>,
}

impl Seen {
    fn is_new(&mut self, score: &GivenScore, notes: &mut Notes) -> bool {
        let next = self.files.len();
        let file = *self.files.entry(score.file.clone()).or_insert(next);
        match self.lines.entry((file, score.row)) {
            Entry::Vacant(free) => {
                free.insert(score.line);
                true
            }
            Entry::Occupied(first) => {
                let message = format!("row {} stands on line {} already: give each row once", score.row, first.get());
                notes.problem("/row", "duplicate_row", message);
                false
            }
        }
    }
}

fn parse(content: Option<&[u8]>, notes: &mut Notes) -> Option<GivenScore> {
    let value = match parse_json(content) {
        Content::Value(value) => value,
        Content::Wrong(Wrong { code, pointer, message }) => {
            notes.problem(pointer, code, message);
            return None;
        }
        Content::Blank => return None,
    };
    let Value::Object(row) = &value else {
        notes.problem("", "not_an_object", format!("expected an object, found {}", kind(&value)));
        return None;
    };
    // A field that is spelt wrongly would else be a field that is not there.
    for name in row.keys().filter(|name| !FIELDS.contains(&name.as_str())) {
        let shown: String = name.chars().take(64).collect();
        let message = format!("there is no field `{shown}`: a row has {}", FIELDS.join(", "));
        notes.problem(format!("/{shown}"), "unknown_field", message);
    }
    let number = |name: &str, notes: &mut Notes| notes.field(row, name).and_then(|value| whole(value, name, notes));
    let line = notes.line();
    let place = number("row", notes);
    let file = file(row, notes);
    let [chosen, rejected] = ["chosen", "rejected"].map(|name| logp(row, name, notes));
    let n_tokens = n_tokens(row, notes);
    Some(GivenScore { line, file, row: place?, logps: Sides { chosen: chosen?, rejected: rejected? }, n_tokens })
}

fn file(row: &Map<String, Value>, notes: &mut Notes) -> Option<FileId> {
    let text = notes.text(present(row, "file")?, "/file")?;
    match text.parse() {
        Ok(id) => Some(id),
        Err(e) => {
            notes.problem("/file", "invalid_value", format!("{e}; leave it out for the file a job trains on"));
            None
        }
    }
}

fn logp(row: &Map<String, Value>, name: &str, notes: &mut Notes) -> Option<f64> {
    let value = notes.field(row, name)?;
    let pointer = format!("/{name}");
    let Some(logp) = value.as_f64() else {
        notes.wrong_type(value, &pointer, "a number");
        return None;
    };
    if logp > MAX_LOGP {
        let message = format!("{logp} is no log-probability: it is 0 or less, in nats, the sum over the tokens");
        notes.problem(pointer, "out_of_range", message);
        return None;
    }
    Some(logp.min(0.0))
}

fn n_tokens(row: &Map<String, Value>, notes: &mut Notes) -> Option<Sides<f64>> {
    let names = ["chosen_tokens", "rejected_tokens"];
    let values = names.map(|name| present(row, name));
    if values == [None, None] {
        return None;
    }
    let [chosen, rejected] = [0, 1].map(|side| {
        let Some(value) = values[side] else {
            let message =
                format!("the field `{}` is missing beside `{}`: give both or neither", names[side], names[1 - side]);
            notes.problem(format!("/{}", names[side]), "missing_field", message);
            return None;
        };
        whole(value, names[side], notes)
    });
    Some(Sides { chosen: chosen? as f64, rejected: rejected? as f64 })
}

/// A whole number from 1 on.
fn whole(value: &Value, name: &str, notes: &mut Notes) -> Option<u64> {
    let pointer = format!("/{name}");
    if !value.is_number() {
        notes.wrong_type(value, &pointer, "a number");
        return None;
    }
    let number = value.as_u64().filter(|n| *n > 0);
    if number.is_none() {
        notes.problem(pointer, "out_of_range", format!("{name} is a whole number from 1 on, found {value}"));
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<GivenScore>, DatasetReport) {
        let mut scores = Vec::new();
        let report = read_scores(text.as_bytes(), |score| scores.push(score)).expect("readable");
        (scores, report)
    }

    #[test]
    fn rows_are_read_and_summed_up() {
        let file = FileId::new();
        let text = format!(
            "{}\n{}\n{}\n\n",
            r#"{"row": 2, "chosen": -3.5, "rejected": 1e-7, "chosen_tokens": 4, "rejected_tokens": 5}"#,
            r#"{"row": 1, "chosen": -1, "rejected": -2, "file": null}"#,
            format_args!(r#"{{"row": 1, "chosen": -1, "rejected": -2, "file": "{file}"}}"#),
        );
        let (scores, report) = read(&text);
        assert!(report.problems.is_empty(), "{report:?}");
        assert_eq!((report.n_pairs, scores[0].line, scores[0].row), (3, 1, 2));
        assert_eq!(scores[0].logps, Sides { chosen: -3.5, rejected: 0.0 });
        assert_eq!(scores[0].n_tokens, Some(Sides { chosen: 4.0, rejected: 5.0 }));
        assert_eq!((&scores[1].file, scores[2].file.as_ref(), scores[1].n_tokens), (&None, Some(&file), None));
        let summary = report.scores.expect("scores");
        assert_eq!((summary.n_of_training_file, summary.files[&file]), (2, 1));
        assert_eq!((summary.n_with_token_counts, summary.first_line_without_token_counts), (1, Some(2)));
    }

    #[test]
    fn what_is_wrong_is_named_by_line_place_and_reason() {
        let row = |fields: &str| format!(r#"{{"row": 1, "chosen": -1, "rejected": -2{fields}}}"#);
        let cases = [
            ("{", "", "invalid_json", "broken JSON"),
            ("[1]", "", "not_an_object", "found a list"),
            (r#"{"chosen": -1, "rejected": -2}"#, "/row", "missing_field", "`row` is missing"),
            (r#"{"row": 0, "chosen": -1, "rejected": -2}"#, "/row", "out_of_range", "from 1 on, found 0"),
            (r#"{"row": 1.5, "chosen": -1, "rejected": -2}"#, "/row", "out_of_range", "found 1.5"),
            (r#"{"row": "1", "chosen": -1, "rejected": -2}"#, "/row", "wrong_type", "found a text"),
            (r#"{"row": 1, "rejected": -2}"#, "/chosen", "missing_field", "`chosen` is missing"),
            (r#"{"row": 1, "chosen": -1, "rejected": 2e-6}"#, "/rejected", "out_of_range", "no log-probability"),
            (r#"{"row": 1, "chosen": null, "rejected": -2}"#, "/chosen", "wrong_type", "found null"),
            (r#"{"row": 1, "chosen": -1e999, "rejected": -2}"#, "", "invalid_json", "out of range"),
            (r#"{"row": 1, "chosen": NaN, "rejected": -2}"#, "", "invalid_json", "broken JSON"),
            (&row(r#", "chosen_tokens": 3"#), "/rejected_tokens", "missing_field", "give both or neither"),
            (&row(r#", "chosen_tokens": 3, "rejected_tokens": 0"#), "/rejected_tokens", "out_of_range", "found 0"),
            (&row(r#", "file": "pairs.jsonl""#), "/file", "invalid_value", "leave it out"),
            (&row(r#", "chosen_token": 3"#), "/chosen_token", "unknown_field", "no field `chosen_token`"),
        ];
        for (text, pointer, code, why) in cases {
            let good = r#"{"row": 9, "chosen": -1, "rejected": -2}"#;
            let (scores, report) = read(&format!("{good}\n{text}\n"));
            assert_eq!((scores.len(), report.problems.n_total), (1, 1), "{text}: {report:?}");
            let problem = &report.problems.first[0];
            let found = (problem.line, problem.pointer.as_deref().unwrap_or_default(), problem.code.as_str());
            assert_eq!(found, (Some(2), pointer, code), "{text}");
            assert!(problem.message.contains(why), "{text}: {}", problem.message);
        }
    }

    #[test]
    fn a_row_stands_once_and_blank_lines_only_at_the_end() {
        let row = |n: u64| format!(r#"{{"row": {n}, "chosen": -1, "rejected": -2}}"#);
        let (_, report) = read(&format!("{}\n\n{}\n{}\n\n", row(1), row(2), row(1)));
        let found: Vec<_> = report.problems.first.iter().map(|p| (p.line, p.code.as_str())).collect();
        assert_eq!(found, [(Some(2), "blank_line"), (Some(4), "duplicate_row")]);
        assert!(report.problems.first[1].message.contains("line 1 already"));
        assert_eq!(read("\n").1.problems.first[0].code, "empty_file");
    }
}
