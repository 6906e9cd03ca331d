//! A JSON file that holds one list: its items one by one, without holding the list.

use std::io::{self, BufRead};

use super::{MAX_ROW_BYTES, RawRow, json, refusal::Refusal};

/// The list, being read.
#[derive(Debug)]
pub(super) struct JsonArray<R> {
    reader: R,
    item: Vec<u8>,
    n_read: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the `[`.
    Before,
    /// Behind it: an item or the end.
    First,
    /// Behind an item: a comma or the end.
    Behind,
    /// Behind the `]`.
    Ended,
}

impl<R: BufRead> JsonArray<R> {
    /// `reader` stands before the `[`.
    pub(super) fn new(reader: R) -> Self {
        Self { reader, item: Vec::new(), n_read: 0, state: State::Before }
    }

    /// The next item; its place is its number, counted from 1.
    pub(super) fn read(&mut self) -> io::Result<Option<RawRow>> {
        if self.state == State::Ended {
            return Ok(None);
        }
        if self.state == State::Before {
            // Whoever chose this reader has seen the bracket.
            self.next_byte()?;
            self.state = State::First;
        }
        let mut first = self.next_byte()?.ok_or_else(cut_off)?;
        if self.state == State::Behind && first == b',' {
            first = self.next_byte()?.ok_or_else(cut_off)?;
            if first == b']' {
                return Err(self.refused("a comma stands before the end of the list: remove it"));
            }
        } else if first == b']' {
            self.state = State::Ended;
            if self.next_byte()?.is_some() {
                return Err(self.refused(
                    "there is more behind the end of the list: write one list, or JSON Lines, one object per line",
                ));
            }
            return Ok(None);
        } else if self.state == State::Behind {
            return Err(self.refused("a comma is missing between two items: one list holds all pairs"));
        }
        self.n_read += 1;
        self.state = State::Behind;
        let is_whole = self.read_item(first)?;
        Ok(Some(RawRow { place: self.n_read, content: json::parse(is_whole.then_some(&*self.item)) }))
    }

    /// The next byte that is no white space.
    fn next_byte(&mut self) -> io::Result<Option<u8>> {
        loop {
            let available = self.reader.fill_buf()?;
            let Some(&first) = available.first() else { return Ok(None) };
            let n_blank = available.iter().take_while(|b| b.is_ascii_whitespace()).count();
            if n_blank == 0 {
                self.reader.consume(1);
                return Ok(Some(first));
            }
            self.reader.consume(n_blank);
        }
    }

    /// Reads an item that begins with `first`; `false` where it is too long to be kept.
    fn read_item(&mut self, first: u8) -> io::Result<bool> {
        self.item.clear();
        self.item.push(first);
        let mut scan = Scan::default();
        scan.is_inside(first);
        let mut is_whole = true;
        loop {
            let available = self.reader.fill_buf()?;
            if available.is_empty() {
                return Err(cut_off().into());
            }
            let n_item = available.iter().take_while(|b| scan.is_inside(**b)).count();
            let room = MAX_ROW_BYTES.saturating_sub(self.item.len());
            is_whole &= n_item <= room;
            self.item.extend_from_slice(&available[..n_item.min(room)]);
            let is_end = n_item < available.len();
            self.reader.consume(n_item);
            if is_end {
                return Ok(is_whole);
            }
        }
    }

    fn refused(&self, message: &str) -> io::Error {
        Refusal::new("invalid_json", format!("behind item {}: {message}", self.n_read)).into()
    }
}

fn cut_off() -> Refusal {
    Refusal::new("invalid_json", "the list has no end: the file begins with [ and must close with ]")
}

/// Where an item ends: at a comma or bracket outside its own brackets and texts.
#[derive(Debug, Default)]
struct Scan {
    depth: u64,
    is_in_text: bool,
    is_escaped: bool,
}

impl Scan {
    /// Whether the next byte belongs to the item.
    fn is_inside(&mut self, byte: u8) -> bool {
        if self.is_escaped {
            self.is_escaped = false;
            return true;
        }
        if self.is_in_text {
            self.is_escaped = byte == b'\\';
            self.is_in_text = byte != b'"';
            return true;
        }
        match byte {
            b'"' => self.is_in_text = true,
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' if self.depth > 0 => self.depth -= 1,
            b']' | b'}' | b',' if self.depth == 0 => return false,
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::rows::Content;

    fn items(text: &str) -> Result<Vec<Result<String, String>>, String> {
        let mut list = JsonArray::new(io::BufReader::with_capacity(3, text.as_bytes()));
        let mut items = Vec::new();
        while let Some(row) = list.read().map_err(|e| e.to_string())? {
            assert_eq!(row.place, items.len() as u64 + 1);
            items.push(match row.content {
                Content::Value(value) => Ok(value.to_string()),
                Content::Wrong(wrong) => Err(wrong.code.to_owned()),
                Content::Blank => unreachable!("a list has no blank items"),
            });
        }
        Ok(items)
    }

    #[test]
    fn items_are_cut_at_commas_that_are_not_in_them() {
        let found = items(" [ {\"a\": \"],\\\"}\"} ,\n[1, {\"b\": []}],3,\"x\"\n]\n").expect("a list");
        assert_eq!(found, [r#"{"a":"],\"}"}"#, r#"[1,{"b":[]}]"#, "3", "\"x\""].map(|i| Ok(i.to_owned())));
        assert_eq!(items("[]"), Ok(vec![]));
        assert_eq!(items("[{a},1]").expect("a list"), [Err("invalid_json".to_owned()), Ok("1".to_owned())]);
    }

    #[test]
    fn a_list_that_is_none_says_where() {
        let wrong = |text: &str| items(text).expect_err(text);
        assert!(wrong("[1").contains("no end"));
        assert!(wrong("[1,").contains("no end"));
        assert!(wrong("[\"").contains("no end"));
        assert!(wrong("[1,2,]").starts_with("behind item 2: a comma"));
        assert!(wrong("[1]\n[2]").starts_with("behind item 1: there is more"));
        assert!(wrong("[1}2]").starts_with("behind item 1: a comma is missing"));
    }
}
