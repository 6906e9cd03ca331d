//! Metrics as TensorBoard reads them: event files, which are protocol buffers in TFRecord frames.
//!
//! Of the format only what scalars need is written here, by hand: three fields of an event and two of a value. Each event is one
//! write, so that TensorBoard sees it at once. An attempt has a file of its own; TensorBoard reads them in the order of their names.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    path::Path,
};

use crate::run_dir::RunDir;

/// Reflected polynomial of CRC-32C.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// What TFRecord adds to a checksum that it has rotated.
const MASK_DELTA: u32 = 0xa282_ead8;

/// An open event file.
pub(super) struct EventFile(File);

impl EventFile {
    /// A new file in `directory`, made at `at_ms` (Unix time in milliseconds).
    pub(super) fn create(directory: &Path, at_ms: i64) -> io::Result<Self> {
        fs_err::create_dir_all(directory)?;
        let mut attempt = 0;
        // Two attempts may begin within one second.
        let file = loop {
            let name = format!("{}{:010}.mrpo.{attempt}", RunDir::TENSORBOARD_PREFIX, at_ms.div_euclid(1000));
            match File::options().write(true).create_new(true).open(directory.join(name)) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => attempt += 1,
                other => break other?,
            }
        };
        let mut events = Self(file);
        let mut version = event(at_ms, 0);
        bytes_field(&mut version, 3, b"brain.Event:2");
        events.append(&version)?;
        Ok(events)
    }

    /// Appends the values of a step, under names that begin with `prefix`.
    pub(super) fn scalars(
        &mut self,
        (prefix, values): (&str, &BTreeMap<String, f64>),
        step: u64,
        at_ms: i64,
    ) -> io::Result<()> {
        let mut summary = Vec::new();
        for (name, value) in values {
            let mut scalar = Vec::new();
            bytes_field(&mut scalar, 1, format!("{prefix}{name}").as_bytes());
            scalar.push(2 << 3 | 5); // simple_value, 32 bits
            scalar.extend((*value as f32).to_le_bytes());
            bytes_field(&mut summary, 1, &scalar);
        }
        let mut event = event(at_ms, step);
        bytes_field(&mut event, 5, &summary);
        self.append(&event)
    }

    /// One record: length, its checksum, the bytes, their checksum.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = (bytes.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(bytes.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(bytes);
        record.extend(masked_crc(bytes).to_le_bytes());
        self.0.write_all(&record)
    }
}

/// An event's time and step.
fn event(at_ms: i64, step: u64) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1]; // wall_time, 64 bits
    event.extend((at_ms as f64 / 1e3).to_le_bytes());
    if step > 0 {
        event.push(2 << 3); // step, variable length
        varint(&mut event, step);
    }
    event
}

fn bytes_field(message: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    message.push(number << 3 | 2);
    varint(message, bytes.len() as u64);
    message.extend(bytes);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(MASK_DELTA)
}

/// Bit by bit: a step has a few kilobytes, and a step takes far longer.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc: u32, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_rfc() {
        // RFC 3720, B.4, and the usual check value.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_file_is_what_tensorboards_own_writer_writes() {
        let dir = tempfile::tempdir().expect("temp dir");
        let values = BTreeMap::from([("loss".to_owned(), 0.5)]);
        for _ in 0..2 {
            let mut file = EventFile::create(dir.path(), 1_500).expect("created");
            file.scalars(("train/", &values), 300, 2_500).expect("written");
        }
        let bytes = std::fs::read(dir.path().join("events.out.tfevents.0000000001.mrpo.0")).expect("the first");
        assert_eq!(bytes, std::fs::read(dir.path().join("events.out.tfevents.0000000001.mrpo.1")).expect("the second"));
        let expected = include_bytes!("../../tests/fixtures/events.tfevents");
        assert_eq!(bytes, expected);
    }
}
