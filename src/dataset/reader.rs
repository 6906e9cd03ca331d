//! Reads a dataset row by row: the pair of a line, or what is wrong with it.

use std::{
    io::{self, BufRead},
    path::{Path, PathBuf},
};

use fs_err as fs;
use serde_json::Value;

use super::{
    Example, PreferencePair,
    extra::{self, ListLengths},
    fields::{Notes, format_name, kind},
    format,
    lines::{Lines, MAX_LINE_BYTES},
};
use crate::domain::{DatasetFormat, Problem};

/// How a file packed with gzip begins.
const GZIP_MAGIC: &[u8] = b"\x1f\x8b";

/// What reading one line gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The line, counted from 1.
    pub line: u64,
    /// The pair, or everything that is wrong with the line (never empty).
    pub pair: Result<PreferencePair, Vec<Problem>>,
    /// What is odd about it but allowed.
    pub warnings: Vec<Problem>,
}

/// A dataset being read. Blank lines at its end are no rows; a blank line before another row is a problem, for it is where
/// something was cut out or off.
#[derive(Debug)]
pub struct PairReader<R> {
    lines: Lines<R>,
    same: Same,
    /// Blank lines passed, while it is not known whether anything follows: the first, and how many.
    blank: Option<(u64, u64)>,
    /// A row read while its blank lines were not yet reported.
    waiting: Option<Row>,
}

/// What is the same on every line, as far as it is known.
#[derive(Debug)]
struct Same {
    format: Option<DatasetFormat>,
    lengths: ListLengths,
}

impl<R: BufRead> PairReader<R> {
    /// Reads `reader`, in `format` or in that of the first line that fits one.
    pub fn new(reader: R, format: Option<DatasetFormat>) -> Self {
        let same = Same { format, lengths: ListLengths::default() };
        Self { lines: Lines::new(reader), same, blank: None, waiting: None }
    }

    /// The format, once it is known.
    pub fn format(&self) -> Option<DatasetFormat> {
        self.same.format
    }

    /// The next row, or `None` at the end.
    pub fn read(&mut self) -> io::Result<Option<Row>> {
        loop {
            if let Some(row) = self.next_blank() {
                return Ok(Some(row));
            }
            if let Some(row) = self.waiting.take() {
                return Ok(Some(row));
            }
            let Some(line) = self.lines.read()? else { return Ok(None) };
            if line.content.is_some_and(|content| content.trim_ascii().is_empty()) {
                let (first, n) = self.blank.unwrap_or((line.number, 0));
                self.blank = Some((first, n + 1));
                continue;
            }
            let mut notes = Notes::new(line.number);
            let pair = parse_line(line.content, line.number, &mut self.same, &mut notes);
            let pair = pair.filter(|_| notes.problems.is_empty()).ok_or(notes.problems);
            self.waiting = Some(Row { line: line.number, pair, warnings: notes.warnings });
        }
    }

    /// One of the blank lines before the waiting row.
    fn next_blank(&mut self) -> Option<Row> {
        self.waiting.as_ref()?;
        let (line, n) = self.blank?;
        self.blank = (n > 1).then_some((line + 1, n - 1));
        let mut notes = Notes::new(line);
        notes.problem("", "blank_line", "a blank line between two pairs: remove it");
        Some(Row { line, pair: Err(notes.problems), warnings: Vec::new() })
    }
}

/// Reads one line; where there is no pair, `notes` has a problem.
fn parse_line(content: Option<&[u8]>, line: u64, same: &mut Same, notes: &mut Notes) -> Option<PreferencePair> {
    let value = parse_json(content, notes)?;
    let Value::Object(row) = &value else {
        let mut message = format!("expected an object, found {}", kind(&value));
        if value.is_array() {
            message += ": write JSON Lines, one object per line and no list around them";
        }
        notes.problem("", "not_an_object", message);
        return None;
    };
    let looks_like = format::detect(row);
    let Some(format) = same.format.or(looks_like) else {
        notes.problem("", "unknown_format", format!("the fields fit no format we read: {}", format::SHAPES));
        return None;
    };
    same.format = Some(format);
    let example = format::parse(format, row, notes);
    if let Some(other) = looks_like.filter(|other| format::is_another_family(format, *other))
        && !notes.problems.is_empty()
    {
        notes.problems.clear();
        let (here, file) = (format_name(other), format_name(format));
        let message = format!("the line looks like {here}, but the file is read as {file}: one file is in one format");
        notes.problem("", "mixed_formats", message);
        return None;
    }
    let extra = extra::parse(row, format, example.as_ref(), &mut same.lengths, notes);
    let Example { prompt, chosen, rejected } = example?;
    notes.problems.is_empty().then_some(PreferencePair { line, prompt, chosen, rejected, extra })
}

pub(super) fn parse_json(content: Option<&[u8]>, notes: &mut Notes) -> Option<Value> {
    let Some(content) = content else {
        let message = format!("the line is longer than {} MiB: one pair per line, and shorter", MAX_LINE_BYTES >> 20);
        notes.problem("", "line_too_long", message);
        return None;
    };
    let text = match std::str::from_utf8(content) {
        Ok(text) => text,
        Err(e) => {
            let way_out =
                if content.starts_with(GZIP_MAGIC) { "unpack the file first" } else { "save the file as UTF-8" };
            let message = format!("not UTF-8 from byte {} of the line on: {way_out}", e.valid_up_to() + 1);
            notes.problem("", "invalid_utf8", message);
            return None;
        }
    };
    match serde_json::from_str(text) {
        Ok(value) => Some(value),
        Err(e) => {
            // serde_json counts lines within what it was given, which is always line 1: only the column tells something.
            let cause = e.to_string();
            let cause = cause.split(" at line ").next().unwrap_or(&cause);
            let mut message = format!("broken JSON at column {}: {cause}", e.column());
            if e.is_eof() {
                message += "; a pair stands on one line, whole";
            }
            notes.problem("", "invalid_json", message);
            None
        }
    }
}

/// Why a dataset cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file could not be read; the error names it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A line is no pair.
    #[error("{}, line {line}{}: {reason}", path.display(), pointer.as_ref().map(|p| format!(", {p}")).unwrap_or_default())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// Where in the line, as a JSON pointer.
        pointer: Option<String>,
        /// What is wrong and the way out.
        reason: String,
    },
    /// There is no pair in it.
    #[error("{}: the file is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Reads all pairs of a file, or says what is wrong with the first line that is none.
pub fn read_pairs(path: &Path, format: Option<DatasetFormat>) -> Result<Vec<PreferencePair>, DatasetError> {
    let mut reader = PairReader::new(io::BufReader::new(fs::File::open(path)?), format);
    let mut pairs = Vec::new();
    while let Some(row) = reader.read()? {
        pairs.push(row.pair.map_err(|problems| line_error(path, row.line, problems))?);
    }
    if pairs.is_empty() { Err(DatasetError::Empty { path: path.to_owned() }) } else { Ok(pairs) }
}

fn line_error(path: &Path, line: u64, problems: Vec<Problem>) -> DatasetError {
    let first = problems.into_iter().next().expect("a row without a pair has a problem");
    DatasetError::Line { path: path.to_owned(), line, pointer: first.pointer, reason: first.message }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"prompt":"p","chosen":"c","rejected":"r"}"#;

    /// Line and code of each row; an empty code for a pair.
    fn rows(bytes: impl AsRef<[u8]>, format: Option<DatasetFormat>) -> Vec<(u64, String)> {
        let mut reader = PairReader::new(bytes.as_ref(), format);
        let mut rows = Vec::new();
        while let Some(row) = reader.read().expect("a slice is readable") {
            rows.push((row.line, row.pair.map_or_else(|problems| problems[0].code.clone(), |_| String::new())));
        }
        rows
    }

    fn codes(text: &str) -> Vec<String> {
        rows(text, None).into_iter().map(|(_, code)| code).collect()
    }

    #[test]
    fn line_ends_a_byte_order_mark_and_blank_lines_at_the_end_are_fine() {
        assert_eq!(codes(&format!("\u{feff}{GOOD}\r\n{GOOD}\r\n\r\n  \n")), ["", ""]);
        assert_eq!(codes(GOOD), [""]);
    }

    #[test]
    fn blank_lines_between_pairs_are_problems_in_order() {
        let found = rows(format!("\n{GOOD}\n \n\n{GOOD}\n\n"), None);
        let expected = [(1, "blank_line"), (2, ""), (3, "blank_line"), (4, "blank_line"), (5, "")];
        assert_eq!(found, expected.map(|(n, code)| (n, code.to_owned())));
    }

    #[test]
    fn what_is_no_row_is_named() {
        assert_eq!(
            codes("[\n{\n3\nnull\n{}\n"),
            ["invalid_json", "invalid_json", "not_an_object", "not_an_object", "unknown_format"]
        );
        assert_eq!(rows(b"\xff\xfe{\0", None), [(1, "invalid_utf8".to_owned())]);
        assert_eq!(codes(&"[".repeat(10_000)), ["invalid_json"]);
        assert_eq!(codes(&format!("{}\n{GOOD}", " x".repeat(MAX_LINE_BYTES))), ["line_too_long", ""]);
    }

    #[test]
    fn what_cannot_be_parsed_tells_where_and_the_way_out() {
        let first_message = |bytes: &[u8]| {
            let row = PairReader::new(bytes, None).read().expect("readable").expect("a row");
            row.pair.expect_err("a problem")[0].message.clone()
        };
        assert_eq!(first_message(b"{\"prompt\": oops}"), "broken JSON at column 12: expected value");
        let cut_off = "broken JSON at column 1: EOF while parsing a list; a pair stands on one line, whole";
        assert_eq!(first_message(b"[\n{}\n]"), cut_off);
        assert_eq!(first_message(b"\x1f\x8b\x08"), "not UTF-8 from byte 2 of the line on: unpack the file first");
    }

    #[test]
    fn the_first_line_that_fits_sets_the_format() {
        let implicit = r#"{"chosen":"The sky is blue","rejected":"The sky is green"}"#;
        let messages = r#"{"prompt":[{"role":"user","content":"p"}],"chosen":"c","rejected":"r"}"#;
        let text = format!("oops\n{GOOD}\n{implicit}\n{messages}\n");
        assert_eq!(codes(&text), ["invalid_json", "", "missing_field", "mixed_formats"]);
        assert_eq!(codes(&format!("{messages}\n{GOOD}")), ["", "mixed_formats"]);
    }

    #[test]
    fn every_line_has_as_many_rewards_as_the_first() {
        let line = |chosen: &str, rejected: &str| {
            GOOD.replace('}', &format!(r#","aux_rewards_chosen":{chosen},"aux_rewards_rejected":{rejected}}}"#))
        };
        let lines =
            [line("[1]", "[1,2]"), line("[1,2]", "[3,4]"), GOOD.to_owned(), line("1", "2"), line("[0,0]", "[0,0]")];
        assert_eq!(codes(&lines.join("\n")), ["inconsistent_length", "", "", "inconsistent_length", ""]);
        // A number that is too large for f64, and what Python writes for one that is none.
        assert_eq!(codes(&line("1e999", "1")), ["invalid_json"]);
        assert_eq!(codes(&line("NaN", "1")), ["invalid_json"]);
    }

    #[test]
    fn a_line_of_another_format_is_told_of_nothing_else() {
        let openai = r#"{"input":{},"preferred_output":[],"dimension":3}"#;
        let mut reader = PairReader::new(openai.as_bytes(), Some(DatasetFormat::TrlStandard));
        let problems = reader.read().expect("readable").expect("a row").pair.expect_err("problems");
        assert_eq!(problems.iter().map(|p| p.code.as_str()).collect::<Vec<_>>(), ["mixed_formats"]);
    }

    #[test]
    fn a_given_format_overrides_what_a_line_looks_like() {
        let dialogue = r#"{"chosen":"\n\nHuman: a\n\nAssistant: b","rejected":"\n\nHuman: a\n\nAssistant: c"}"#;
        let mut reader = PairReader::new(dialogue.as_bytes(), Some(DatasetFormat::TrlStandardImplicit));
        let pair = reader.read().expect("readable").expect("a row").pair.expect("a pair");
        assert_eq!(pair.chosen, " b");
        assert_eq!(rows(GOOD, Some(DatasetFormat::OpenaiPreference)), [(1, "mixed_formats".to_owned())]);
    }

    #[test]
    fn reading_all_pairs_stops_at_the_first_problem() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("pairs.jsonl");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("writable");
            read_pairs(&path, None)
        };
        assert_eq!(
            read(&format!("{GOOD}\n{GOOD}\n")).expect("pairs").iter().map(|p| p.line).collect::<Vec<_>>(),
            [1, 2]
        );
        let error =
            read(&format!("{GOOD}\n{{\"prompt\":\"p\",\"chosen\":\"\",\"rejected\":\"r\"}}\n")).expect_err("refused");
        let shown = error.to_string();
        assert!(
            shown.ends_with("pairs.jsonl, line 2, /chosen: the completion is empty: give its text or remove the line"),
            "{shown}"
        );
        assert!(matches!(read(""), Err(DatasetError::Empty { .. })));
        assert!(read_pairs(&dir.path().join("none"), None).expect_err("missing").to_string().contains("none"));
    }
}
