//! One column of a row group: its values and their levels, some rows ahead.

use std::{io, sync::Arc};

use parquet::{
    column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader},
    data_type::{ByteArray, DataType},
    errors::ParquetError,
    schema::types::ColumnDescPtr,
};
use serde_json::Value;

use super::{damaged, pages::Pages};
use crate::dataset::rows::Wrong;

/// How many rows are read ahead.
const N_ROWS_AHEAD: usize = 64;

/// A column that stands at one of its entries.
pub(super) struct Column {
    name: Arc<str>,
    reader: ColumnReader,
    max_definition: i16,
    max_repetition: i16,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
    values: Values,
    n_entries: usize,
    /// The entry it stands at, and the value that comes next.
    at_entry: usize,
    at_value: usize,
    /// Where the entries of the row end.
    end: usize,
}

enum Values {
    Bools(Vec<bool>),
    Integers(Vec<i32>),
    Longs(Vec<i64>),
    Floats(Vec<f32>),
    Doubles(Vec<f64>),
    Texts(Vec<ByteArray>),
}

impl Column {
    /// `None` where values of its type mean nothing here.
    pub(super) fn new(descriptor: ColumnDescPtr, pages: Pages) -> Option<Self> {
        let (max_definition, max_repetition) = (descriptor.max_def_level(), descriptor.max_rep_level());
        let name = descriptor.path().parts().first()?.as_str().into();
        let reader = get_column_reader(descriptor, Box::new(pages));
        let values = match &reader {
            ColumnReader::BoolColumnReader(_) => Values::Bools(Vec::new()),
            ColumnReader::Int32ColumnReader(_) => Values::Integers(Vec::new()),
            ColumnReader::Int64ColumnReader(_) => Values::Longs(Vec::new()),
            ColumnReader::FloatColumnReader(_) => Values::Floats(Vec::new()),
            ColumnReader::DoubleColumnReader(_) => Values::Doubles(Vec::new()),
            ColumnReader::ByteArrayColumnReader(_) => Values::Texts(Vec::new()),
            ColumnReader::Int96ColumnReader(_) | ColumnReader::FixedLenByteArrayColumnReader(_) => return None,
        };
        let (definitions, repetitions) = (Vec::new(), Vec::new());
        let (n_entries, at_entry, at_value, end) = (0, 0, 0, 0);
        Some(Self {
            name,
            reader,
            max_definition,
            max_repetition,
            definitions,
            repetitions,
            values,
            n_entries,
            at_entry,
            at_value,
            end,
        })
    }

    /// Whether the rows that were read ahead are used up.
    pub(super) fn is_used_up(&self) -> bool {
        self.at_entry == self.n_entries
    }

    /// Reads more rows.
    pub(super) fn read_ahead(&mut self) -> io::Result<()> {
        let levels = (&mut self.definitions, &mut self.repetitions);
        let n_values = match (&mut self.reader, &mut self.values) {
            (ColumnReader::BoolColumnReader(reader), Values::Bools(values)) => fill(reader, levels, values),
            (ColumnReader::Int32ColumnReader(reader), Values::Integers(values)) => fill(reader, levels, values),
            (ColumnReader::Int64ColumnReader(reader), Values::Longs(values)) => fill(reader, levels, values),
            (ColumnReader::FloatColumnReader(reader), Values::Floats(values)) => fill(reader, levels, values),
            (ColumnReader::DoubleColumnReader(reader), Values::Doubles(values)) => fill(reader, levels, values),
            (ColumnReader::ByteArrayColumnReader(reader), Values::Texts(values)) => fill(reader, levels, values),
            _ => unreachable!("the values were made for the reader"),
        };
        self.n_entries = n_values.map_err(of_parquet)?;
        (self.at_entry, self.at_value) = (0, 0);
        Ok(())
    }

    /// Begins the row it stands at. The number of its entries.
    pub(super) fn begin_row(&mut self) -> io::Result<usize> {
        if self.is_used_up() {
            return Err(damaged().into());
        }
        self.end = self.at_entry + 1;
        while self.end < self.n_entries && self.max_repetition > 0 && self.repetitions[self.end] > 0 {
            self.end += 1;
        }
        Ok(self.end - self.at_entry)
    }

    /// Goes to the end of the row.
    pub(super) fn end_row(&mut self) -> io::Result<()> {
        while self.at_entry < self.end {
            self.pass()?;
        }
        Ok(())
    }

    /// Whether the row has no further entry.
    pub(super) fn is_at_end_of_row(&self) -> bool {
        self.at_entry == self.end
    }

    /// How much of the path to its value is there.
    pub(super) fn definition(&self) -> io::Result<i16> {
        if self.is_at_end_of_row() {
            return Err(damaged().into());
        }
        Ok(if self.max_definition == 0 { 0 } else { self.definitions[self.at_entry] })
    }

    /// The list that the entry it stands at goes on with; 0 where the row has ended.
    pub(super) fn repetition(&self) -> i16 {
        if self.is_at_end_of_row() || self.max_repetition == 0 { 0 } else { self.repetitions[self.at_entry] }
    }

    /// Passes over an entry; where it has a value, its number.
    pub(super) fn pass(&mut self) -> io::Result<Option<usize>> {
        let has_value = self.definition()? == self.max_definition;
        self.at_entry += 1;
        self.at_value += usize::from(has_value);
        Ok(has_value.then(|| self.at_value - 1))
    }

    /// The value at this entry, and the bytes of its text.
    pub(super) fn take(&mut self) -> io::Result<Result<(Value, usize), Wrong>> {
        let Some(i) = self.pass()? else { return Ok(Ok((Value::Null, 0))) };
        let value = match &self.values {
            Values::Bools(values) => values.get(i).map(|value| Value::from(*value)),
            Values::Integers(values) => values.get(i).map(|value| Value::from(*value)),
            Values::Longs(values) => values.get(i).map(|value| Value::from(*value)),
            Values::Floats(values) => values.get(i).map(|value| Value::from(*value)),
            Values::Doubles(values) => values.get(i).map(|value| Value::from(*value)),
            Values::Texts(values) => {
                let bytes = values.get(i).ok_or_else(damaged)?.data();
                return Ok(match std::str::from_utf8(bytes) {
                    Ok(text) => Ok((Value::from(text), text.len())),
                    Err(_) => {
                        let message = "the value is no text in UTF-8: write the column as strings";
                        Err(Wrong::new("invalid_utf8", message).at(format!("/{}", self.name)))
                    }
                });
            }
        };
        Ok(Ok((value.ok_or_else(damaged)?, 0)))
    }
}

/// Reads some rows into emptied buffers. The number of entries.
fn fill<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    (definitions, repetitions): (&mut Vec<i16>, &mut Vec<i16>),
    values: &mut Vec<T::T>,
) -> Result<usize, ParquetError> {
    definitions.clear();
    repetitions.clear();
    values.clear();
    let (_, _, n_entries) = reader.read_records(N_ROWS_AHEAD, Some(definitions), Some(repetitions), values)?;
    Ok(n_entries)
}

/// An error of the crate; ours, where it came from the pages.
fn of_parquet(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => crate::dataset::rows::refusal::of_decoder(*error, "the Parquet file"),
            Err(_) => damaged().into(),
        },
        _ => damaged().into(),
    }
}
