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
    fields::{Notes, kind},
    format,
    rows::{Content, RawRow, Refusal, Rows, Source, Wrong},
};
use crate::domain::{Compression, Container, DatasetFormat, Problem};

/// What reading one row gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The line it begins on in JSON Lines and CSV, else its number; counted from 1.
    pub line: u64,
    /// The pair, or everything that is wrong with the row (never empty).
    pub pair: Result<PreferencePair, Vec<Problem>>,
    /// What is odd about it but allowed.
    pub warnings: Vec<Problem>,
}

/// A dataset being read. Blank lines at its end are no rows; a blank line before another row is a problem, for it is where
/// something was cut out or off.
#[derive(Debug)]
pub struct PairReader<R> {
    rows: Rows<R>,
    same: Same,
    /// The place of the last row.
    place: u64,
    /// Blank lines passed, while it is not known whether anything follows: the first, and how many.
    blank: Option<(u64, u64)>,
    /// A row read while its blank lines were not yet reported.
    waiting: Option<Row>,
}

/// What is the same on every row, as far as it is known.
#[derive(Debug)]
struct Same {
    format: Option<DatasetFormat>,
    lengths: ListLengths,
}

impl PairReader<Box<dyn BufRead + Send>> {
    /// Reads a file, whatever keeps its rows and packs it, in `format` or in that of the first row that fits one.
    #[expect(private_bounds, reason = "what can be read and sought in; the trait only puts the two together")]
    pub fn open(source: impl Source + 'static, format: Option<DatasetFormat>) -> io::Result<Self> {
        Ok(Self::of(Rows::open(source)?, format))
    }
}

impl<R: BufRead> PairReader<R> {
    /// Reads a text that is not packed, in `format` or in that of the first row that fits one.
    pub fn new(reader: R, format: Option<DatasetFormat>) -> Self {
        Self::of(Rows::of_text(reader), format)
    }

    fn of(rows: Rows<R>, format: Option<DatasetFormat>) -> Self {
        let same = Same { format, lengths: ListLengths::default() };
        Self { rows, same, place: 0, blank: None, waiting: None }
    }

    /// The format, once it is known.
    pub fn format(&self) -> Option<DatasetFormat> {
        self.same.format
    }

    /// What keeps the rows, once it is known.
    pub fn container(&self) -> Option<Container> {
        self.rows.container()
    }

    /// What the file is packed with.
    pub fn compression(&self) -> Option<Compression> {
        self.rows.compression()
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
            let raw = match self.rows.read() {
                Ok(Some(raw)) => raw,
                Ok(None) => return Ok(None),
                // What cannot be read on is a last row with a problem.
                Err(e) => refused(Refusal::of(e)?, self.place + 1),
            };
            self.place = raw.place;
            if let Content::Blank = raw.content {
                let (first, n) = self.blank.unwrap_or((raw.place, 0));
                self.blank = Some((first, n + 1));
                continue;
            }
            let mut notes = Notes::new(raw.place);
            let pair = parse_row(raw.content, raw.place, &mut self.same, &mut notes);
            let pair = pair.filter(|_| notes.problems.is_empty()).ok_or(notes.problems);
            self.waiting = Some(Row { line: raw.place, pair, warnings: notes.warnings });
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

fn refused(refusal: Refusal, place: u64) -> RawRow {
    let Refusal { code, message } = refusal;
    RawRow { place, content: Content::Wrong(Wrong { code, pointer: String::new(), message }) }
}

/// Reads one row; where there is no pair, `notes` has a problem.
fn parse_row(content: Content, place: u64, same: &mut Same, notes: &mut Notes) -> Option<PreferencePair> {
    let value = match content {
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
    let candidates = format::detect(row);
    let looks_like = if let [format] = candidates.as_slice() { Some(*format) } else { None };
    let Some(format) = same.format.or(looks_like) else {
        let (code, message) = match candidates.as_slice() {
            [] => ("unknown_format", format!("the fields fit no format we read: {}", format::SHAPES)),
            several => ("ambiguous_format", ambiguous(several)),
        };
        notes.problem("", code, message);
        return None;
    };
    same.format = Some(format);
    let example = format::parse(format, row, notes);
    if let Some(other) = looks_like.filter(|other| format::is_another_family(format, *other))
        && !notes.problems.is_empty()
    {
        notes.problems.clear();
        let message =
            format!("the row looks like {other}, but the file is read as {format}: one file is in one format");
        notes.problem("", "mixed_formats", message);
        return None;
    }
    let extra = extra::parse(row, format, example.as_ref(), &mut same.lengths, notes);
    let Example { prompt, chosen, rejected } = example?;
    notes.problems.is_empty().then_some(PreferencePair { line: place, prompt, chosen, rejected, extra })
}

fn ambiguous(candidates: &[DatasetFormat]) -> String {
    let names: Vec<_> = candidates.iter().map(|format| format.as_str()).collect();
    format!(
        "the fields fit {}: upload the file with the form field `format`, one of these, or leave out the fields of the other",
        names.join(" and ")
    )
}

/// Why a dataset cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file could not be read; the error names it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A row is no pair.
    #[error("{}, {place} {number}{}: {reason}", path.display(), pointer.as_ref().map(|p| format!(", {p}")).unwrap_or_default())]
    Row {
        /// The file.
        path: PathBuf,
        /// `line` or `row`.
        place: &'static str,
        /// Its number, counted from 1.
        number: u64,
        /// Where in the row, as a JSON pointer.
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

/// Reads all pairs of a file, or says what is wrong with the first row that is none.
pub fn read_pairs(path: &Path, format: Option<DatasetFormat>) -> Result<Vec<PreferencePair>, DatasetError> {
    let mut reader = PairReader::open(fs::File::open(path)?, format)?;
    let mut pairs = Vec::new();
    while let Some(row) = reader.read()? {
        let container = reader.container().unwrap_or(Container::JsonLines);
        pairs.push(row.pair.map_err(|problems| row_error(path, container, row.line, problems))?);
    }
    if pairs.is_empty() { Err(DatasetError::Empty { path: path.to_owned() }) } else { Ok(pairs) }
}

fn row_error(path: &Path, container: Container, number: u64, problems: Vec<Problem>) -> DatasetError {
    let first = problems.into_iter().next().expect("a row without a pair has a problem");
    let (path, place) = (path.to_owned(), container.word_for_place());
    DatasetError::Row { path, place, number, pointer: first.pointer, reason: first.message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::rows::MAX_ROW_BYTES;

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
        assert_eq!(codes("{\n3\nnull\n{}\n"), ["invalid_json", "not_an_object", "not_an_object", "unknown_format"]);
        assert_eq!(rows(b"\xff\xfe{\0", None), [(1, "invalid_utf8".to_owned())]);
        assert_eq!(codes(&"[".repeat(10_000)), ["invalid_json"]);
        assert_eq!(codes(&format!("{}\n{GOOD}", " x".repeat(MAX_ROW_BYTES))), ["line_too_long", ""]);
    }

    #[test]
    fn what_cannot_be_parsed_tells_where_and_the_way_out() {
        let first_message = |bytes: &[u8]| {
            let row = PairReader::new(bytes, None).read().expect("readable").expect("a row");
            row.pair.expect_err("a problem")[0].message.clone()
        };
        assert_eq!(first_message(b"{\"prompt\": oops}"), "broken JSON at column 12: expected value");
        let cut_off = "broken JSON at column 1: EOF while parsing an object; a pair stands on one line, whole";
        assert_eq!(first_message(b"{\n}\n"), cut_off);
        assert_eq!(first_message(b"\xff\xfe"), "not UTF-8 from byte 1 of the row on: save the file as UTF-8");
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
