//! The pages of one column of a row group, unpacked within limits.
//!
//! The crate's own page reader believes what a page says of its size, and so a file of some kilobytes could ask for all memory.
//! This one looks at every size first; values and levels are then decoded by the crate.

use std::{
    io::{Read, SeekFrom},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use parquet::{
    basic::{CompressionCodec, Encoding},
    column::page::{Page, PageMetadata, PageReader},
    errors::{ParquetError, Result},
};

use super::{codec, damaged, thrift::Thrift};
use crate::dataset::rows::{Source, budget::Budget, refusal::Refusal};

/// The most bytes of one page, packed or not.
const MAX_PAGE_BYTES: usize = 128 << 20;
/// The most values of one page: a page that repeats one value has as many as it says.
const MAX_PAGE_VALUES: u32 = 4 << 20;
/// The most bytes that the pages of a file hold in memory at a time, and those of its rows that are read ahead.
const MAX_HELD_BYTES: usize = 512 << 20;
/// What a value takes beside its bytes: its place in its page, and its levels.
const VALUE_BYTES: usize = 36;
/// The most bytes of a page's header, which holds the least and the greatest value.
const MAX_HEADER_BYTES: u64 = 64 << 10;

/// What the columns of a file share.
pub(super) struct Shared {
    pub(super) source: Box<dyn Source>,
    pub(super) budget: Budget,
    /// What each column holds.
    pub(super) held: Vec<Held>,
}

/// The bytes that a column's pages take.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Held {
    dictionary: usize,
    current: usize,
    /// Those of the pages before the current one that rows read ahead still need.
    before: usize,
}

impl Held {
    /// Rows that were read ahead are gone.
    pub(super) fn let_go(&mut self) {
        self.before = 0;
    }
}

impl Shared {
    fn hold(&mut self, column: usize, header: &Header) -> std::result::Result<(), Refusal> {
        let n_bytes = header.n_unpacked + header.n_values as usize * VALUE_BYTES;
        let held = &mut self.held[column];
        if header.is_dictionary() {
            held.dictionary += n_bytes;
        } else {
            held.before += held.current;
            held.current = n_bytes;
        }
        let sum: usize = self.held.iter().map(|h| h.dictionary + h.current + h.before).sum();
        if sum > MAX_HELD_BYTES {
            let message = format!(
                "the Parquet pages that are read together take more than {} MiB: write it with smaller pages \
                 (data_page_size of 1 MiB) or smaller row groups",
                MAX_HELD_BYTES >> 20
            );
            return Err(Refusal::new("pages_too_large", message));
        }
        Ok(())
    }

    fn bytes(&mut self, at: u64, n_bytes: u64) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.source.seek(SeekFrom::Start(at))?;
        self.source.by_ref().take(n_bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The pages of one column.
pub(super) struct Pages {
    pub(super) shared: Arc<Mutex<Shared>>,
    /// Its number in [`Shared::held`].
    pub(super) column: usize,
    pub(super) codec: CompressionCodec,
    pub(super) at: u64,
    pub(super) end: u64,
    pub(super) n_values_left: i64,
}

/// What stands before a page.
#[derive(Debug, Default)]
struct Header {
    kind: i64,
    n_packed: usize,
    n_unpacked: usize,
    n_values: u32,
    encoding: i64,
    definition_encoding: i64,
    repetition_encoding: i64,
    n_nulls: u32,
    n_rows: u32,
    n_definition_bytes: u32,
    n_repetition_bytes: u32,
    is_packed: bool,
}

const DATA: i64 = 0;
const DICTIONARY: i64 = 2;
const DATA_V2: i64 = 3;

impl Header {
    fn is_dictionary(&self) -> bool {
        self.kind == DICTIONARY
    }

    /// Parses a header; also how many bytes it has.
    fn parse(bytes: &[u8]) -> std::result::Result<(Self, usize), Refusal> {
        let mut header = Self { is_packed: true, ..Self::default() };
        let mut thrift = Thrift::new(bytes);
        thrift.fields(|thrift, number, kind| match number {
            1 => thrift.integer().map(|n| header.kind = n),
            2 => thrift.integer().and_then(size).map(|n| header.n_unpacked = n),
            3 => thrift.integer().and_then(size).map(|n| header.n_packed = n),
            5 => thrift.fields(|thrift, number, kind| match number {
                1 => thrift.integer().and_then(count).map(|n| header.n_values = n),
                2 => thrift.integer().map(|n| header.encoding = n),
                3 => thrift.integer().map(|n| header.definition_encoding = n),
                4 => thrift.integer().map(|n| header.repetition_encoding = n),
                _ => thrift.skip(kind),
            }),
            7 => thrift.fields(|thrift, number, kind| match number {
                1 => thrift.integer().and_then(count).map(|n| header.n_values = n),
                2 => thrift.integer().map(|n| header.encoding = n),
                _ => thrift.skip(kind),
            }),
            8 => thrift.fields(|thrift, number, kind| match (number, kind) {
                (1, _) => thrift.integer().and_then(count).map(|n| header.n_values = n),
                (2, _) => thrift.integer().and_then(count).map(|n| header.n_nulls = n),
                (3, _) => thrift.integer().and_then(count).map(|n| header.n_rows = n),
                (4, _) => thrift.integer().map(|n| header.encoding = n),
                (5, _) => thrift.integer().and_then(size).map(|n| header.n_definition_bytes = n as u32),
                (6, _) => thrift.integer().and_then(size).map(|n| header.n_repetition_bytes = n as u32),
                (7, super::thrift::Kind::Bool(is_packed)) => {
                    header.is_packed = is_packed;
                    Ok(())
                }
                _ => thrift.skip(kind),
            }),
            _ => thrift.skip(kind),
        })?;
        // A dictionary has its values in its bytes, one at least for each.
        if header.is_dictionary() && header.n_values as usize > header.n_unpacked {
            return Err(damaged());
        }
        Ok((header, thrift.n_read()))
    }
}

fn size(n: i64) -> std::result::Result<usize, Refusal> {
    let n = usize::try_from(n).map_err(|_| damaged())?;
    if n > MAX_PAGE_BYTES {
        let message = format!(
            "a Parquet page of {} MiB; at most {} MiB are read: write it with smaller pages (data_page_size of 1 MiB)",
            n >> 20,
            MAX_PAGE_BYTES >> 20
        );
        return Err(Refusal::new("pages_too_large", message));
    }
    Ok(n)
}

fn count(n: i64) -> std::result::Result<u32, Refusal> {
    let n = u32::try_from(n).map_err(|_| damaged())?;
    if n > MAX_PAGE_VALUES {
        let message =
            format!("a Parquet page of {n} values; at most {MAX_PAGE_VALUES} are read: write smaller row groups");
        return Err(Refusal::new("pages_too_large", message));
    }
    Ok(n)
}

fn encoding(n: i64) -> std::result::Result<Encoding, Refusal> {
    Ok(match n {
        0 => Encoding::PLAIN,
        2 => Encoding::PLAIN_DICTIONARY,
        3 => Encoding::RLE,
        5 => Encoding::DELTA_BINARY_PACKED,
        6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        8 => Encoding::RLE_DICTIONARY,
        9 => Encoding::BYTE_STREAM_SPLIT,
        // Each value may repeat all of the one before: no size that is told bounds what it takes.
        7 => {
            let message = "a Parquet column is encoded as DELTA_BYTE_ARRAY, which is not read here: write it with plain or \
                dictionary encoding";
            return Err(Refusal::new("unsupported_encoding", message));
        }
        _ => return Err(damaged()),
    })
}

impl Pages {
    fn next_page(&mut self) -> std::io::Result<Option<Page>> {
        // The lock is poisoned only where decoding panicked, and then nothing is read any more.
        let mut shared = self.shared.lock().map_err(|_| damaged())?;
        while self.n_values_left > 0 && self.at < self.end {
            let (header, n_read) = Header::parse(&shared.bytes(self.at, MAX_HEADER_BYTES.min(self.end - self.at))?)?;
            self.at += n_read as u64;
            if header.n_packed as u64 > self.end - self.at {
                return Err(damaged().into());
            }
            let at = self.at;
            self.at += header.n_packed as u64;
            if !matches!(header.kind, DATA | DICTIONARY | DATA_V2) {
                continue;
            }
            shared.hold(self.column, &header)?;
            shared.budget.spend(header.n_unpacked as u64)?;
            let packed = shared.bytes(at, header.n_packed as u64)?;
            if packed.len() < header.n_packed {
                return Err(damaged().into());
            }
            if !header.is_dictionary() {
                self.n_values_left -= i64::from(header.n_values);
            }
            return Ok(Some(self.page(&header, packed)?));
        }
        Ok(None)
    }

    fn page(&self, header: &Header, packed: Vec<u8>) -> std::io::Result<Page> {
        // The levels of a second-version page stand before what is packed.
        let n_levels = (header.n_definition_bytes + header.n_repetition_bytes) as usize;
        let is_packed = header.kind != DATA_V2 || header.is_packed;
        let buf = if is_packed {
            Bytes::from(codec::unpack(self.codec, packed, n_levels, header.n_unpacked)?)
        } else {
            Bytes::from(packed)
        };
        if n_levels > buf.len() {
            return Err(damaged().into());
        }
        let (num_values, encoding_of_values) = (header.n_values, encoding(header.encoding)?);
        Ok(match header.kind {
            DICTIONARY => Page::DictionaryPage { buf, num_values, encoding: encoding_of_values, is_sorted: false },
            DATA => Page::DataPage {
                buf,
                num_values,
                encoding: encoding_of_values,
                def_level_encoding: encoding(header.definition_encoding)?,
                rep_level_encoding: encoding(header.repetition_encoding)?,
                statistics: None,
            },
            _ => Page::DataPageV2 {
                buf,
                num_values,
                encoding: encoding_of_values,
                num_nulls: header.n_nulls,
                num_rows: header.n_rows,
                def_levels_byte_len: header.n_definition_bytes,
                rep_levels_byte_len: header.n_repetition_bytes,
                is_compressed: false,
                statistics: None,
            },
        })
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.next_page().map_err(|e| ParquetError::External(Box::new(e)))
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        Ok(self.n_values_left <= 0)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        Err(ParquetError::General("pages are read one after the other".to_owned()))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        Err(ParquetError::General("pages are read one after the other".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field 1 of a header (the kind of page), then these bytes, then its end.
    fn refused(kind: u8, fields: &[u8]) -> &'static str {
        let bytes = [&[0x15, kind << 1], fields, &[0]].concat();
        Header::parse(&bytes).expect_err("refused").code
    }

    #[test]
    fn what_a_page_says_of_its_size_is_held_to_limits() {
        // 2^28 bytes unpacked, packed; 2^23 values.
        assert_eq!(refused(0, &[0x15, 0x80, 0x80, 0x80, 0x80, 2]), "pages_too_large");
        assert_eq!(refused(0, &[0x25, 0x80, 0x80, 0x80, 0x80, 2]), "pages_too_large");
        assert_eq!(refused(0, &[0x4c, 0x15, 0x80, 0x80, 0x80, 8, 0]), "pages_too_large");
        // Less than nothing; and a dictionary of three values in two bytes.
        assert_eq!(refused(0, &[0x15, 1]), "damaged_file");
        assert_eq!(refused(2, &[0x15, 4, 0x5c, 0x15, 6, 0]), "damaged_file");
    }

    #[test]
    fn a_header_is_read() {
        let bytes = [0x15, 0, 0x15, 20, 0x15, 10, 0x2c, 0x15, 6, 0x15, 16, 0x15, 6, 0x15, 6, 0, 0, 99];
        let (header, n_read) = Header::parse(&bytes).expect("a header");
        assert_eq!((header.kind, header.n_unpacked, header.n_packed, header.n_values), (DATA, 10, 5, 3));
        assert_eq!((header.encoding, header.definition_encoding, header.repetition_encoding), (8, 3, 3));
        assert_eq!(n_read, bytes.len() - 1);
    }
}
