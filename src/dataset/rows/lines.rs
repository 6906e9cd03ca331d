//! The lines of a file: numbered, of limited length, whatever its line ends and its bytes are.

use std::io::{self, BufRead};

/// The longest line that is read, in bytes. A pair of more has more tokens than any `max_length` allows.
pub const MAX_ROW_BYTES: usize = 4 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Reads one line after the other into the same buffer.
#[derive(Debug)]
pub(in crate::dataset) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    number: u64,
    max_bytes: usize,
}

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::dataset) struct Line<'a> {
    /// Counted from 1.
    pub(in crate::dataset) number: u64,
    /// Its content, or `None` where it is longer than the limit.
    pub(in crate::dataset) content: Option<&'a [u8]>,
}

impl<R: BufRead> Lines<R> {
    pub(in crate::dataset) fn new(reader: R) -> Self {
        Self::with_limit(reader, MAX_ROW_BYTES)
    }

    fn with_limit(reader: R, max_bytes: usize) -> Self {
        Self { reader, buffer: Vec::new(), number: 0, max_bytes }
    }

    /// The next line, or `None` at the end.
    pub(in crate::dataset) fn read(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        let mut n_bytes = 0_u64;
        loop {
            let available = match self.reader.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if available.is_empty() {
                break;
            }
            let end = available.iter().position(|b| *b == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            // One byte over the limit is enough to know that it is over; two more for the line end and the mark.
            let room = (self.max_bytes + BYTE_ORDER_MARK.len() + 2).saturating_sub(self.buffer.len());
            self.buffer.extend_from_slice(&part[..part.len().min(room)]);
            let n_consumed = end.map_or(part.len(), |end| end + 1);
            n_bytes += n_consumed as u64;
            self.reader.consume(n_consumed);
            if end.is_some() {
                break;
            }
        }
        if n_bytes == 0 {
            return Ok(None);
        }
        self.number += 1;
        let mut content = self.buffer.as_slice();
        if self.number == 1 {
            content = content.strip_prefix(BYTE_ORDER_MARK).unwrap_or(content);
        }
        content = content.strip_suffix(b"\r").unwrap_or(content);
        Ok(Some(Line { number: self.number, content: (content.len() <= self.max_bytes).then_some(content) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Read through a buffer of three bytes, so that lines are put together from parts.
    fn lines(bytes: &[u8], max_bytes: usize) -> Vec<(u64, Option<String>)> {
        let mut lines = Lines::with_limit(io::BufReader::with_capacity(3, bytes), max_bytes);
        let mut all = Vec::new();
        while let Some(line) = lines.read().expect("a slice is readable") {
            all.push((line.number, line.content.map(|c| String::from_utf8_lossy(c).into_owned())));
        }
        all
    }

    fn texts(bytes: &[u8]) -> Vec<String> {
        lines(bytes, 100).into_iter().map(|(_, content)| content.expect("short")).collect()
    }

    #[test]
    fn line_ends_and_the_byte_order_mark_are_no_content() {
        assert_eq!(texts(b"\xEF\xBB\xBFone\r\ntwo\n\nfour"), ["one", "two", "", "four"]);
        assert_eq!(texts(b"one\n"), ["one"]);
        assert_eq!(texts(b""), [""; 0]);
        assert_eq!(texts(b"a\0b\n"), ["a\0b"]);
    }

    #[test]
    fn a_long_line_is_left_out_and_the_next_is_read() {
        let found = lines(b"12345\n123456\r\n1234567890\nend", 5);
        let expected = [(1, Some("12345")), (2, None), (3, None), (4, Some("end"))];
        assert_eq!(found, expected.map(|(n, c)| (n, c.map(str::to_owned))));
    }
}
