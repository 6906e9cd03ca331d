//! The rows of a Parquet file: the columns that are read here, put together row by row.

mod codec;
mod columns;
mod pages;
mod thrift;
mod tree;

use std::{
    collections::BTreeSet,
    io::{self, Read, Seek, SeekFrom},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

use parquet::{
    basic::Type as PhysicalType,
    file::metadata::{ParquetMetaData, ParquetMetaDataReader},
    schema::types::Type,
};
use serde_json::{Map, Value};

use self::{
    columns::Column,
    pages::{Held, Pages, Shared},
    thrift::{Kind, Thrift},
    tree::Node,
};
use super::{Content, RawRow, Source, Wrong, budget::Budget, refusal::Refusal};
use crate::dataset::format;

const MAGIC: &[u8; 4] = b"PAR1";
/// The largest footer: it tells of every column of every row group.
const MAX_FOOTER_BYTES: u64 = 8 << 20;
/// The most parts of a schema, and how deep they may stand in each other.
const MAX_SCHEMA_PARTS: usize = 4096;
const MAX_SCHEMA_DEPTH: usize = 16;
/// The most columns that are read: a field made of messages has one for each of their fields.
const MAX_COLUMNS: usize = 128;
/// The most entries of one column in one row.
const MAX_ENTRIES: usize = 64 << 10;

/// Whether a file that begins with `head` is one.
pub(super) fn is_parquet(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// The file is not what a Parquet file is.
fn damaged() -> Refusal {
    Refusal::damaged("the Parquet file")
}

/// A Parquet file being read.
pub(super) struct ParquetRows {
    metadata: ParquetMetaData,
    shared: Arc<Mutex<Shared>>,
    /// The fields that are read.
    fields: Vec<(String, Node)>,
    /// The numbers of their columns in the file.
    leaves: Vec<usize>,
    columns: Vec<Column>,
    next_group: usize,
    n_rows_left: u64,
    n_read: u64,
    /// What its rows are unpacked to: a page of few bytes may repeat a long text.
    budget: Budget,
}

impl ParquetRows {
    pub(super) fn open(mut source: Box<dyn Source>) -> io::Result<Self> {
        let n_bytes = source.seek(SeekFrom::End(0))?;
        let metadata = guarded(|| read_metadata(&mut source, n_bytes))?;
        let mut fields = Vec::new();
        let mut leaves = Vec::new();
        let schema = metadata.file_metadata().schema();
        let mut n_before = 0;
        for field in schema.get_fields() {
            let n_leaves = count_leaves(field);
            if format::is_read(field.name()) {
                let node = Node::of(field, 0, 0, &mut leaves.len());
                fields.push((field.name().to_owned(), node));
                leaves.extend(n_before..n_before + n_leaves);
            }
            n_before += n_leaves;
        }
        check_columns(schema, &metadata, &leaves)?;
        let shared = Shared { source, budget: Budget::of(n_bytes), held: vec![Held::default(); leaves.len()] };
        Ok(Self {
            metadata,
            shared: Arc::new(Mutex::new(shared)),
            fields,
            leaves,
            columns: Vec::new(),
            next_group: 0,
            n_rows_left: 0,
            n_read: 0,
            budget: Budget::of(n_bytes),
        })
    }

    /// The next row; its place is its number.
    pub(super) fn read(&mut self) -> io::Result<Option<RawRow>> {
        while self.n_rows_left == 0 {
            if self.next_group == self.metadata.num_row_groups() {
                return Ok(None);
            }
            self.begin_group()?;
        }
        self.n_rows_left -= 1;
        self.n_read += 1;
        let content = guarded(|| self.read_row())?;
        Ok(Some(RawRow { place: self.n_read, content }))
    }

    fn begin_group(&mut self) -> io::Result<()> {
        let group = self.metadata.row_group(self.next_group);
        self.next_group += 1;
        self.n_rows_left = u64::try_from(group.num_rows()).map_err(|_| damaged())?;
        self.shared.lock().map_err(|_| damaged())?.held.fill(Held::default());
        self.columns.clear();
        for (i, leaf) in self.leaves.iter().enumerate() {
            let chunk = group.columns().get(*leaf).ok_or_else(damaged)?;
            let begin =
                chunk.dictionary_page_offset().filter(|at| *at > 0).unwrap_or(i64::MAX).min(chunk.data_page_offset());
            let at = u64::try_from(begin).map_err(|_| damaged())?;
            let n_bytes = u64::try_from(chunk.compressed_size()).map_err(|_| damaged())?;
            let pages = Pages {
                shared: self.shared.clone(),
                column: i,
                codec: chunk.compression_codec(),
                at,
                end: at.saturating_add(n_bytes),
                n_values_left: chunk.num_values(),
            };
            let column = Column::new(chunk.column_descr_ptr(), pages).ok_or_else(damaged)?;
            self.columns.push(column);
        }
        Ok(())
    }

    fn read_row(&mut self) -> io::Result<Content> {
        for (i, column) in self.columns.iter_mut().enumerate() {
            if column.is_used_up() {
                self.shared.lock().map_err(|_| damaged())?.held[i].let_go();
                column.read_ahead()?;
            }
        }
        let mut is_too_long = false;
        for column in &mut self.columns {
            is_too_long |= column.begin_row()? > MAX_ENTRIES;
        }
        let mut n_bytes = 0;
        let row = if is_too_long { Err(tree::too_long()) } else { self.take_row(&mut n_bytes)? };
        for column in &mut self.columns {
            if row.is_ok() && !column.is_at_end_of_row() {
                return Err(damaged().into());
            }
            column.end_row()?;
        }
        self.budget.spend(n_bytes as u64)?;
        Ok(row.map_or_else(Into::into, |row| Value::Object(row).into()))
    }

    fn take_row(&mut self, n_bytes: &mut usize) -> io::Result<Result<Map<String, Value>, Wrong>> {
        let mut row = Map::new();
        for (name, node) in &self.fields {
            match node.take(&mut self.columns, n_bytes)? {
                // A table has every field in every row: null is how it leaves one out.
                Ok(Value::Null) => {}
                Ok(value) => {
                    row.insert(name.clone(), value);
                }
                Err(wrong) => return Ok(Err(wrong)),
            }
        }
        Ok(Ok(row))
    }
}

/// Runs what decodes a file that may be damaged: the crate panics at some of what it cannot decode.
fn guarded<T>(decode: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err(damaged().into()))
}

fn read_metadata(source: &mut Box<dyn Source>, n_bytes: u64) -> io::Result<ParquetMetaData> {
    // The magic at both ends, and the length of the footer.
    const ENDS: u64 = 12;
    if n_bytes < ENDS {
        return Err(damaged().into());
    }
    let mut end = [0; 8];
    source.seek(SeekFrom::Start(n_bytes - 8))?;
    source.read_exact(&mut end)?;
    let [length @ .., m0, m1, m2, m3] = end;
    let n_footer = u64::from(u32::from_le_bytes(length));
    if [m0, m1, m2, m3] != *MAGIC || n_footer > n_bytes - ENDS {
        return Err(damaged().into());
    }
    if n_footer > MAX_FOOTER_BYTES {
        let message = format!(
            "the footer of the Parquet file has more than {} MiB: write fewer columns or larger row groups",
            MAX_FOOTER_BYTES >> 20
        );
        return Err(Refusal::new("footer_too_large", message).into());
    }
    let mut footer = vec![0; n_footer as usize];
    source.seek(SeekFrom::Start(n_bytes - 8 - n_footer))?;
    source.read_exact(&mut footer)?;
    check_schema(&footer)?;
    ParquetMetaDataReader::decode_metadata(&footer).map_err(|_| damaged().into())
}

/// Holds a schema to its limits before it is built, part within part.
fn check_schema(footer: &[u8]) -> Result<(), Refusal> {
    const SCHEMA: i64 = 2;
    const N_CHILDREN: i64 = 5;
    let too_deep = || {
        let message = format!(
            "the schema of the Parquet file has more than {MAX_SCHEMA_PARTS} parts, or parts within more than \
             {MAX_SCHEMA_DEPTH} others: write the columns of the pairs alone"
        );
        Refusal::new("schema_too_large", message)
    };
    Thrift::new(footer).fields(|thrift, number, kind| {
        if number != SCHEMA || kind != Kind::List {
            return thrift.skip(kind);
        }
        let (kind, n_parts) = thrift.list()?;
        if kind != Kind::Struct {
            return Err(damaged());
        }
        if n_parts > MAX_SCHEMA_PARTS {
            return Err(too_deep());
        }
        // How many parts are to come at each depth.
        let mut open: Vec<i64> = Vec::new();
        for _ in 0..n_parts {
            let mut n_children = 0;
            thrift.fields(|thrift, number, kind| match number {
                N_CHILDREN => thrift.integer().map(|n| n_children = n),
                _ => thrift.skip(kind),
            })?;
            if !(0..=MAX_SCHEMA_PARTS as i64).contains(&n_children) {
                return Err(damaged());
            }
            if let Some(last) = open.last_mut() {
                *last -= 1;
            }
            open.push(n_children);
            while open.last() == Some(&0) {
                open.pop();
            }
            if open.len() > MAX_SCHEMA_DEPTH {
                return Err(too_deep());
            }
        }
        Ok(())
    })
}

fn check_columns(schema: &Type, metadata: &ParquetMetaData, leaves: &[usize]) -> Result<(), Refusal> {
    if leaves.is_empty() {
        let names: Vec<String> =
            schema.get_fields().iter().take(20).map(|field| field.name().chars().take(40).collect()).collect();
        let message = format!("no column is named as a field we read; there are: {}", names.join(", "));
        return Err(Refusal::new("unknown_format", message));
    }
    if leaves.len() > MAX_COLUMNS {
        let message =
            format!("{} columns below the fields we read, at most {MAX_COLUMNS}: leave some out", leaves.len());
        return Err(Refusal::new("too_many_columns", message));
    }
    let columns = metadata.file_metadata().schema_descr().columns();
    let unread: BTreeSet<&str> = leaves
        .iter()
        .filter_map(|leaf| columns.get(*leaf))
        .filter(|column| matches!(column.physical_type(), PhysicalType::INT96 | PhysicalType::FIXED_LEN_BYTE_ARRAY))
        .filter_map(|column| column.path().parts().first().map(String::as_str))
        .collect();
    if let Some(name) = unread.first() {
        let message =
            format!("the column `{name}` holds neither texts nor numbers: write it as strings, or leave it out");
        return Err(Refusal::new("wrong_type", message));
    }
    Ok(())
}

fn count_leaves(schema: &Type) -> usize {
    if schema.is_primitive() { 1 } else { schema.get_fields().iter().map(|field| count_leaves(field)).sum() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_that_is_too_deep_or_too_wide_is_refused() {
        // Field 2 of a footer: so many parts with one part in each.
        let footer = |n: u16, n_children: u8| {
            let mut bytes = vec![0x29, 0xfc, (n & 0x7f) as u8 | 0x80, (n >> 7) as u8];
            (0..n).for_each(|_| bytes.extend([0x55, n_children << 1, 0]));
            bytes.push(0);
            bytes
        };
        assert_eq!(check_schema(&footer(1000, 1)).expect_err("too deep").code, "schema_too_large");
        assert_eq!(check_schema(&footer(5000, 0)).expect_err("too wide").code, "schema_too_large");
        assert_eq!(check_schema(&footer(10, 1)), Ok(()));
        assert_eq!(check_schema(&[0x29, 0xfc, 0xff]).expect_err("cut off").code, "damaged_file");
    }
}
