//! CSV with a header: every further record is a row whose fields are texts.

use std::{
    collections::HashSet,
    io::{self, BufRead},
};

use csv_core::{ReadRecordResult, Reader};
use serde_json::{Map, Value};

use super::{MAX_ROW_BYTES, RawRow, Wrong, refusal::Refusal};
use crate::dataset::format;

/// The most columns a file may have.
const MAX_COLUMNS: usize = 1024;

/// The records of a CSV file.
#[derive(Debug)]
pub(super) struct Csv<R> {
    reader: R,
    parser: Reader,
    header: Vec<String>,
    record: Vec<u8>,
    ends: Vec<usize>,
    /// That of the last record.
    place: u64,
    /// Blank lines that were passed over: the parser has not seen them.
    n_blank: u64,
}

/// Whether the beginning of a text is the header of a CSV file: a first line that names the fields of a format.
pub(super) fn is_header(beginning: &[u8]) -> bool {
    let mut csv = Csv::new(beginning);
    match csv.read_record() {
        Ok(Some(_)) if csv.ends.len() > 1 => {}
        _ => return false,
    }
    let names = (0..csv.ends.len()).map(|i| String::from_utf8_lossy(csv.field(i)).into_owned());
    format::names_a_format(&names.map(|name| (name, Value::String(String::new()))).collect())
}

impl<R: BufRead> Csv<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            parser: Reader::new(),
            header: Vec::new(),
            record: vec![0; 16 << 10],
            ends: Vec::new(),
            place: 1,
            n_blank: 0,
        }
    }

    /// The next row; its place is the line it begins on.
    pub(super) fn read(&mut self) -> io::Result<Option<RawRow>> {
        if self.header.is_empty() {
            if self.read_record()?.is_none() {
                return Ok(None);
            }
            self.header = self.read_header()?;
        }
        let Some(line) = self.read_record()? else { return Ok(None) };
        // The parser does not count lines that end with a carriage return alone.
        let place = line.max(self.place + 1);
        self.place = place;
        let content = self.row().map_or_else(Into::into, |row| Value::Object(row).into());
        Ok(Some(RawRow { place, content }))
    }

    fn field(&self, i: usize) -> &[u8] {
        let begin = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.record[begin..self.ends[i]]
    }

    fn read_header(&self) -> Result<Vec<String>, Refusal> {
        let mut seen = HashSet::new();
        let mut header = Vec::with_capacity(self.ends.len());
        for i in 0..self.ends.len() {
            let name = std::str::from_utf8(self.field(i)).map_err(|_| {
                Refusal::new(
                    "invalid_utf8",
                    format!("the name of column {} is not UTF-8: save the file as UTF-8", i + 1),
                )
            })?;
            if !seen.insert(name) && format::is_read(name) {
                return Err(Refusal::new("duplicate_column", format!("two columns are named `{name}`: remove one")));
            }
            header.push(name.to_owned());
        }
        Ok(header)
    }

    fn row(&self) -> Result<Map<String, Value>, Wrong> {
        let (n_fields, n_columns) = (self.ends.len(), self.header.len());
        if n_fields != n_columns {
            let message = format!(
                "{n_fields} fields below {n_columns} column names: put texts that hold commas, quotes or line ends in double \
                 quotes, and double the quotes in them"
            );
            return Err(Wrong::new("wrong_number_of_fields", message));
        }
        let mut row = Map::new();
        for (i, name) in self.header.iter().enumerate().filter(|(_, name)| format::is_read(name)) {
            let text = std::str::from_utf8(self.field(i)).map_err(|e| {
                let message =
                    format!("not UTF-8 from byte {} of the field on: save the file as UTF-8", e.valid_up_to() + 1);
                Wrong::new("invalid_utf8", message).at(format!("/{name}"))
            })?;
            // A cell has no type: numbers and lists are those of the fields that are never texts.
            let value = match text {
                "" if format::is_optional(name) => continue,
                text if format::is_never_a_text(name) => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
                text => Value::String(text.to_owned()),
            };
            row.insert(name.clone(), value);
        }
        Ok(row)
    }

    /// Reads a record that is not blank. Its line, or `None` at the end.
    fn read_record(&mut self) -> io::Result<Option<u64>> {
        if !self.skip_blank_lines()? {
            return Ok(None);
        }
        let line = self.parser.line() + self.n_blank;
        let (mut n_bytes, mut n_fields) = (0, 0);
        self.ends.resize(MAX_COLUMNS, 0);
        loop {
            let input = self.reader.fill_buf()?;
            let is_at_end = input.is_empty();
            let (result, n_read, n_written, n_ended) =
                self.parser.read_record(input, &mut self.record[n_bytes..], &mut self.ends[n_fields..]);
            self.reader.consume(n_read);
            (n_bytes, n_fields) = (n_bytes + n_written, n_fields + n_ended);
            match result {
                ReadRecordResult::InputEmpty if !is_at_end => {}
                ReadRecordResult::OutputFull if self.record.len() < MAX_ROW_BYTES => {
                    self.record.resize((self.record.len() * 2).min(MAX_ROW_BYTES), 0);
                }
                ReadRecordResult::OutputFull => return Err(too_long(line).into()),
                ReadRecordResult::OutputEndsFull => {
                    let message = format!("line {line} has more than {MAX_COLUMNS} fields: leave out columns");
                    return Err(Refusal::new("too_many_columns", message).into());
                }
                ReadRecordResult::Record => break,
                ReadRecordResult::InputEmpty | ReadRecordResult::End => {
                    if n_fields == 0 {
                        return Ok(None);
                    }
                    break;
                }
            }
        }
        self.ends.truncate(n_fields);
        Ok(Some(line))
    }

    /// `false` at the end of the file.
    fn skip_blank_lines(&mut self) -> io::Result<bool> {
        loop {
            let available = self.reader.fill_buf()?;
            if available.is_empty() {
                return Ok(false);
            }
            let n_blank = available.iter().take_while(|b| matches!(b, b'\n' | b'\r')).count();
            if n_blank == 0 {
                return Ok(true);
            }
            self.n_blank += available[..n_blank].iter().map(|b| u64::from(*b == b'\n')).sum::<u64>();
            self.reader.consume(n_blank);
        }
    }
}

fn too_long(line: u64) -> Refusal {
    let message = format!(
        "the row that begins on line {line} is longer than {} MiB: is a double quote in it not closed or not doubled?",
        MAX_ROW_BYTES >> 20
    );
    Refusal::new("line_too_long", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::rows::Content;

    fn rows(text: &str) -> Vec<(u64, Result<String, String>)> {
        // A small buffer, so that records are put together from parts.
        let mut csv = Csv::new(io::BufReader::with_capacity(4, text.as_bytes()));
        let mut rows = Vec::new();
        while let Some(row) = csv.read().expect("readable") {
            rows.push((
                row.place,
                match row.content {
                    Content::Value(value) => Ok(value.to_string()),
                    Content::Wrong(wrong) => Err(wrong.code.to_owned()),
                    Content::Blank => unreachable!("blank lines are passed over"),
                },
            ));
        }
        rows
    }

    #[test]
    fn records_are_rows_by_the_line_they_begin_on() {
        let found = rows("prompt,chosen,rejected,id\r\n\"a \"\"q\"\",\nb\",c,r,1\r\n\r\n\np,,r,2\np,c\n\n");
        let expected = [
            (2, Ok(r#"{"chosen":"c","prompt":"a \"q\",\nb","rejected":"r"}"#)),
            (6, Ok(r#"{"chosen":"","prompt":"p","rejected":"r"}"#)),
            (7, Err("wrong_number_of_fields")),
        ];
        assert_eq!(found, expected.map(|(n, row)| (n, row.map(str::to_owned).map_err(str::to_owned))));
    }

    #[test]
    fn cells_of_numbers_and_lists_are_json_and_empty_ones_absent() {
        let found = rows(
            "chosen,rejected,prompt,chosen_spans,aux_rewards_chosen,dimension\nc,r,3,\"[[0,1]]\",oops,\nc,r,p,,1.5,x\n",
        );
        let expected = [
            r#"{"aux_rewards_chosen":"oops","chosen":"c","chosen_spans":[[0,1]],"prompt":"3","rejected":"r"}"#,
            r#"{"aux_rewards_chosen":1.5,"chosen":"c","dimension":"x","prompt":"p","rejected":"r"}"#,
        ];
        assert_eq!(found.into_iter().map(|(_, row)| row.expect("a row")).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_header_names_the_fields_of_a_format() {
        assert!(is_header(b"id,prompt,chosen,rejected\n"));
        assert!(is_header(b"instruction,chosen_response,rejected_response"));
        for other in ["", "prompt", "prompt,answer", "{\"prompt\":1,\"chosen\":2}", "a,b\nprompt,chosen,rejected"] {
            assert!(!is_header(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_quote_that_is_not_closed_ends_the_reading() {
        let text = format!("prompt,chosen,rejected\na,b,c\na,\"{}", "x\n".repeat(MAX_ROW_BYTES / 2 + 1));
        let mut csv = Csv::new(text.as_bytes());
        assert!(csv.read().expect("readable").is_some());
        let refusal = Refusal::of(csv.read().expect_err("refused")).expect("a refusal");
        assert_eq!(refusal.code, "line_too_long");
        assert!(refusal.message.contains("line 3"), "{refusal}");
    }
}
