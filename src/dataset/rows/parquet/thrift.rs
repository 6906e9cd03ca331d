//! As much of Thrift's compact protocol as a Parquet file's pages and a first look at its footer take.
//!
//! Every length is held to the bytes that are there, and nothing here calls itself deeper than [`MAX_DEPTH`].

use super::damaged;
use crate::dataset::rows::refusal::Refusal;

/// How deep values may stand in each other.
const MAX_DEPTH: usize = 16;

/// What stands in a field or list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool(bool),
    Byte,
    Integer,
    Double,
    Bytes,
    List,
    Map,
    Struct,
    Uuid,
}

/// Reads values from a slice.
#[derive(Debug)]
pub(super) struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Thrift<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes have been read.
    pub(super) fn n_read(&self) -> usize {
        self.at
    }

    /// Calls `each` for every field of a struct, with its number; what it leaves unread is for it to [`skip`](Self::skip).
    pub(super) fn fields(
        &mut self,
        mut each: impl FnMut(&mut Self, i64, Kind) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut number = 0;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            let step = i64::from(head >> 4);
            number = if step == 0 { self.integer()? } else { number + step };
            let kind = kind(head & 0x0f, true)?;
            each(self, number, kind)?;
        }
    }

    /// The kind and number of a list's items, which follow.
    pub(super) fn list(&mut self) -> Result<(Kind, usize), Refusal> {
        let head = self.byte()?;
        let n_items = match head >> 4 {
            15 => self.length()?,
            n => usize::from(n),
        };
        // Every item takes a byte at least.
        if n_items > self.bytes.len() - self.at {
            return Err(damaged());
        }
        Ok((if n_items == 0 { Kind::Byte } else { kind(head & 0x0f, false)? }, n_items))
    }

    pub(super) fn integer(&mut self) -> Result<i64, Refusal> {
        let n = self.varint()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    pub(super) fn skip(&mut self, kind: Kind) -> Result<(), Refusal> {
        self.skip_at(kind, 0)
    }

    fn skip_at(&mut self, kind: Kind, depth: usize) -> Result<(), Refusal> {
        if depth == MAX_DEPTH {
            return Err(damaged());
        }
        match kind {
            Kind::Bool(_) => Ok(()),
            Kind::Byte => self.advance(1),
            Kind::Integer => self.varint().map(drop),
            Kind::Double => self.advance(8),
            Kind::Uuid => self.advance(16),
            Kind::Bytes => {
                let n_bytes = self.length()?;
                self.advance(n_bytes)
            }
            Kind::Struct => self.fields(|thrift, _, kind| thrift.skip_at(kind, depth + 1)),
            Kind::List => {
                let (kind, n_items) = self.list()?;
                (0..n_items).try_for_each(|_| self.skip_item(kind, depth + 1))
            }
            Kind::Map => {
                let n_items = self.length()?;
                if n_items == 0 {
                    return Ok(());
                }
                let kinds = self.byte()?;
                let kinds = [kind_of_item(kinds >> 4)?, kind_of_item(kinds & 0x0f)?];
                (0..n_items).try_for_each(|_| kinds.into_iter().try_for_each(|kind| self.skip_item(kind, depth + 1)))
            }
        }
    }

    /// In lists truth takes a byte, in fields it is part of the head.
    fn skip_item(&mut self, kind: Kind, depth: usize) -> Result<(), Refusal> {
        self.skip_at(if let Kind::Bool(_) = kind { Kind::Byte } else { kind }, depth)
    }

    fn length(&mut self) -> Result<usize, Refusal> {
        usize::try_from(self.varint()?).map_err(|_| damaged())
    }

    fn varint(&mut self) -> Result<u64, Refusal> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(damaged())
    }

    fn byte(&mut self) -> Result<u8, Refusal> {
        let byte = *self.bytes.get(self.at).ok_or_else(damaged)?;
        self.at += 1;
        Ok(byte)
    }

    fn advance(&mut self, n_bytes: usize) -> Result<(), Refusal> {
        if n_bytes > self.bytes.len() - self.at {
            return Err(damaged());
        }
        self.at += n_bytes;
        Ok(())
    }
}

fn kind_of_item(nibble: u8) -> Result<Kind, Refusal> {
    kind(nibble, false)
}

fn kind(nibble: u8, is_field: bool) -> Result<Kind, Refusal> {
    Ok(match nibble {
        1 => Kind::Bool(true),
        2 => Kind::Bool(!is_field),
        3 => Kind::Byte,
        4..=6 => Kind::Integer,
        7 => Kind::Double,
        8 => Kind::Bytes,
        9 | 10 => Kind::List,
        11 => Kind::Map,
        12 => Kind::Struct,
        13 => Kind::Uuid,
        _ => return Err(damaged()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_skipped() {
        // 1: i32 -3; 2: text "ab"; 5: list of 2 i32; 6: true; 7: struct {1: false}; 8: map {1: true}.
        let bytes = [0x15, 5, 0x18, 2, b'a', b'b', 0x39, 0x25, 2, 4, 0x11, 0x1c, 0x12, 0, 0x1b, 1, 0x51, 2, 1, 0];
        let mut thrift = Thrift::new(&bytes);
        let mut seen = Vec::new();
        thrift
            .fields(|thrift, number, kind| {
                seen.push((number, kind));
                if number == 1 {
                    assert_eq!(thrift.integer(), Ok(-3));
                    return Ok(());
                }
                thrift.skip(kind)
            })
            .expect("well formed");
        let kinds = [Kind::Integer, Kind::Bytes, Kind::List, Kind::Bool(true), Kind::Struct, Kind::Map];
        assert_eq!(seen, [1, 2, 5, 6, 7, 8].into_iter().zip(kinds).collect::<Vec<_>>());
        assert_eq!(thrift.n_read(), bytes.len());
    }

    #[test]
    fn what_is_too_long_or_too_deep_is_refused() {
        let skip = |bytes: &[u8]| Thrift::new(bytes).skip(Kind::Struct);
        assert!(skip(&[0x18, 3, b'a', b'b', 0]).is_err());
        assert!(skip(&[0x19, 0xf5, 0xff, 0xff, 0xff, 0x7f]).is_err());
        assert!(skip(&[0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]).is_err());
        assert!(skip(&[0x1c].repeat(100_000)).is_err());
        assert!(skip(&[0x19, 0x19].repeat(100_000)).is_err());
        assert!(skip(&[0x1f, 0]).is_err());
    }
}
