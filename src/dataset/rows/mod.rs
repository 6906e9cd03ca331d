//! The rows of a file, whatever it is kept in and packed with; told from its first bytes, never from its name.
//!
//! Memory does not grow with the file: text is read row by row, Parquet page by page.

mod budget;
mod csv;
mod json;
mod json_array;
mod lines;
mod parquet;
mod refusal;
mod unpack;

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read, Seek, SeekFrom};

use serde_json::Value;

pub use self::lines::MAX_ROW_BYTES;
use self::{csv::Csv, json_array::JsonArray, parquet::ParquetRows};
pub(super) use self::{json::parse as parse_json, lines::Lines, refusal::Refusal};
use crate::domain::{Compression, Container};

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// How much of a text is looked at to tell what it is: a CSV file's header stands in it.
const N_LOOKED_AT: u64 = 64 << 10;

/// A row before anybody asks what it means.
#[derive(Debug)]
pub(super) struct RawRow {
    /// In JSON Lines and CSV the line it begins on, else its number; counted from 1.
    pub(super) place: u64,
    pub(super) content: Content,
}

/// What stands there.
#[derive(Debug)]
pub(super) enum Content {
    /// Nothing.
    Blank,
    /// A value, which a pair needs to be an object.
    Value(Value),
    /// Something that cannot be read.
    Wrong(Wrong),
}

/// Why a row cannot be read.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) code: &'static str,
    pub(super) pointer: String,
    pub(super) message: String,
}

impl Wrong {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, pointer: String::new(), message: message.into() }
    }

    fn at(self, pointer: String) -> Self {
        Self { pointer, ..self }
    }
}

impl From<Wrong> for Content {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

impl From<Value> for Content {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}

/// A file whose bytes can be read from anywhere.
pub(super) trait Source: Read + Seek + Send {}

impl<S: Read + Seek + Send> Source for S {}

/// A text whose first part has been looked at.
type Text<R> = Chain<Cursor<Vec<u8>>, R>;

/// The rows of a file. It is told at the first read what it is.
pub(super) struct Rows<R> {
    state: State<R>,
    container: Option<Container>,
    compression: Option<Compression>,
}

enum State<R> {
    UnreadText(R),
    UnreadParquet(Box<dyn Source>),
    Lines(Lines<Text<R>>),
    Array(JsonArray<Text<R>>),
    Csv(Box<Csv<Text<R>>>),
    Parquet(Box<ParquetRows>),
    Ended,
}

impl<R> std::fmt::Debug for Rows<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("container", &self.container).finish_non_exhaustive()
    }
}

impl Rows<Box<dyn BufRead + Send>> {
    /// Those of a file.
    pub(super) fn open(mut source: impl Source + 'static) -> io::Result<Self> {
        let mut head = Vec::new();
        source.by_ref().take(8).read_to_end(&mut head)?;
        source.rewind()?;
        if parquet::is_parquet(&head) {
            let state = State::UnreadParquet(Box::new(source));
            return Ok(Self { state, container: Some(Container::Parquet), compression: None });
        }
        let compression = unpack::compression_of(&head);
        let n_bytes = source.seek(SeekFrom::End(0))?;
        source.rewind()?;
        let source = BufReader::with_capacity(64 << 10, source);
        let text: Box<dyn BufRead + Send> = match compression {
            Some(compression) => unpack::unpack(source, compression, n_bytes),
            None => Box::new(source),
        };
        Ok(Self { state: State::UnreadText(text), container: None, compression })
    }
}

impl<R: BufRead> Rows<R> {
    /// Those of a text.
    pub(super) fn of_text(reader: R) -> Self {
        Self { state: State::UnreadText(reader), container: None, compression: None }
    }

    /// What the rows are kept in, once it is known.
    pub(super) fn container(&self) -> Option<Container> {
        self.container
    }

    /// What the file is packed with.
    pub(super) fn compression(&self) -> Option<Compression> {
        self.compression
    }

    /// The next row, or `None` at the end. After an error there is nothing more.
    pub(super) fn read(&mut self) -> io::Result<Option<RawRow>> {
        let result = self.read_next();
        if result.is_err() {
            self.state = State::Ended;
        }
        result
    }

    fn read_next(&mut self) -> io::Result<Option<RawRow>> {
        loop {
            match &mut self.state {
                State::Lines(lines) => return Ok(lines.read()?.map(of_line)),
                State::Array(list) => return list.read(),
                State::Csv(csv) => return csv.read(),
                State::Parquet(rows) => return rows.read(),
                State::Ended => return Ok(None),
                State::UnreadText(_) | State::UnreadParquet(_) => {}
            }
            self.state = match std::mem::replace(&mut self.state, State::Ended) {
                State::UnreadText(reader) => self.begin_text(reader)?,
                State::UnreadParquet(source) => State::Parquet(Box::new(ParquetRows::open(source)?)),
                begun => begun,
            };
        }
    }

    fn begin_text(&mut self, mut reader: R) -> io::Result<State<R>> {
        let mut beginning = Vec::new();
        reader.by_ref().take(N_LOOKED_AT).read_to_end(&mut beginning)?;
        if beginning.starts_with(BYTE_ORDER_MARK) {
            beginning.drain(..BYTE_ORDER_MARK.len());
        }
        if self.compression.is_some() {
            refuse_packed_twice(&beginning)?;
        }
        let is_list = beginning.trim_ascii_start().first() == Some(&b'[');
        let is_csv = !is_list && csv::is_header(&beginning);
        let text = Cursor::new(beginning).chain(reader);
        let (container, state) = if is_list {
            (Container::JsonArray, State::Array(JsonArray::new(text)))
        } else if is_csv {
            (Container::Csv, State::Csv(Box::new(Csv::new(text))))
        } else {
            (Container::JsonLines, State::Lines(Lines::new(text)))
        };
        self.container = Some(container);
        Ok(state)
    }
}

fn refuse_packed_twice(beginning: &[u8]) -> Result<(), Refusal> {
    if parquet::is_parquet(beginning) {
        return Err(Refusal::new(
            "packed_twice",
            "a packed Parquet file: Parquet packs its pages itself, upload it as it is",
        ));
    }
    if unpack::compression_of(beginning).is_some() {
        return Err(Refusal::new("packed_twice", "the file is packed twice: unpack it once"));
    }
    Ok(())
}

fn of_line(line: lines::Line<'_>) -> RawRow {
    let is_blank = line.content.is_some_and(|content| content.trim_ascii().is_empty());
    let content = if is_blank { Content::Blank } else { json::parse(line.content) };
    RawRow { place: line.number, content }
}
