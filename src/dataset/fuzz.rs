//! Damaged files of every kind: never a panic, never more than the limits, and always a row or a clear refusal.
//!
//! `PROPTEST_CASES=100000 cargo test --release fuzz` tries more of them.

use std::io::Cursor;

use proptest::{collection::vec, prelude::*};

use super::{
    PairReader, check,
    containers::{DIRECTORY, fixture, gzip, list, zstd},
};
use crate::domain::DatasetFormat;

/// One change of a file's bytes; places are parts of its length.
#[derive(Debug, Clone)]
enum Mutation {
    Set(f64, u8),
    Flip(f64, u8),
    Insert(f64, Vec<u8>),
    Remove(f64, usize),
    Repeat(f64, usize),
    CutOff(f64),
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    // Most of what makes a file what it is stands near its ends.
    let place = prop_oneof![3 => 0.0..1.0_f64, 1 => 0.95..1.0_f64, 1 => 0.0..0.02_f64];
    prop_oneof![
        4 => (place.clone(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        4 => (place.clone(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        1 => (place.clone(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        1 => (place.clone(), 1..40_usize).prop_map(|(at, n)| Mutation::Remove(at, n)),
        1 => (place.clone(), 1..40_usize).prop_map(|(at, n)| Mutation::Repeat(at, n)),
        1 => place.prop_map(Mutation::CutOff),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let place = |at: f64| (at * bytes.len() as f64) as usize;
    match mutation {
        _ if bytes.is_empty() => {}
        Mutation::Set(at, byte) => {
            let at = place(*at);
            bytes[at] = *byte;
        }
        Mutation::Flip(at, bit) => {
            let at = place(*at);
            bytes[at] ^= 1 << bit;
        }
        Mutation::Insert(at, inserted) => {
            let at = place(*at);
            bytes.splice(at..at, inserted.iter().copied());
        }
        Mutation::Remove(at, n) => {
            let at = place(*at);
            bytes.drain(at..(at + n).min(bytes.len()));
        }
        Mutation::Repeat(at, n) => {
            let at = place(*at);
            let part = bytes[at..(at + n).min(bytes.len())].to_vec();
            bytes.splice(at..at, part);
        }
        Mutation::CutOff(at) => {
            let at = place(*at);
            bytes.truncate(at);
        }
    }
}

fn any_format() -> impl Strategy<Value = Option<DatasetFormat>> {
    proptest::option::weighted(0.2, proptest::sample::select(&DatasetFormat::ALL[..]))
}

/// Reads all of a file and holds what is found to what must hold of any file.
fn read(bytes: Vec<u8>, format: Option<DatasetFormat>) -> Result<(), TestCaseError> {
    let mut reader = PairReader::open(Cursor::new(bytes.clone()), format).expect("memory is readable");
    let mut before = 0;
    while let Some(row) = reader.read().expect("memory is readable") {
        prop_assert!(row.line > before, "row {} behind {before}", row.line);
        before = row.line;
        if let Err(problems) = &row.pair {
            prop_assert!(
                !problems.is_empty() && problems.iter().all(|p| p.line == Some(row.line) && p.message.len() > 9)
            );
        }
    }
    prop_assert!(reader.read().expect("memory is readable").is_none(), "the end is the end");
    let report = check(PairReader::open(Cursor::new(bytes), format).expect("memory is readable")).expect("memory");
    prop_assert!(report.n_pairs > 0 || report.problems.n_total > 0);
    Ok(())
}

/// Texts that are read without a problem.
fn texts() -> Vec<Vec<u8>> {
    let csv = "prompt,chosen,rejected,dimension,chosen_spans\n\"a, b\",c,\"d\n\"\"e\"\"\",x,\"[[0,1]]\"\n\np,c,r,,\n";
    let mut texts = vec![csv.as_bytes().to_vec(), csv.replace('\n', "\r\n").into_bytes()];
    for name in ["trl_standard", "ultrafeedback_binarized", "openai_preference", "nemo_rl"] {
        let lines = fixture(&format!("{name}.jsonl"));
        texts.extend([list(&lines), lines]);
    }
    texts.extend(super::documented::examples().into_iter().map(|row| row.to_string().into_bytes()));
    texts
}

fn parquet_files() -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(DIRECTORY).expect("fixtures");
    let names = entries.map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"));
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".parquet")).collect();
    names.sort();
    names.iter().map(|name| fixture(name)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_texts_are_read_to_the_end(
        text in proptest::sample::select(texts()),
        mutations in vec(any_mutation(), 0..6),
        format in any_format(),
    ) {
        let mut text = text;
        mutations.iter().for_each(|mutation| mutate(&mut text, mutation));
        read(text, format)?;
    }

    #[test]
    fn damaged_packed_files_are_read_to_the_end(
        text in proptest::sample::select(texts()),
        is_gzip in any::<bool>(),
        mutations in vec(any_mutation(), 0..4),
        format in any_format(),
    ) {
        let mut packed = if is_gzip { gzip(&text) } else { zstd(&text) };
        mutations.iter().for_each(|mutation| mutate(&mut packed, mutation));
        read(packed, format)?;
    }

    #[test]
    fn damaged_parquet_files_are_read_to_the_end(
        file in proptest::sample::select(parquet_files()),
        mutations in vec(any_mutation(), 1..4),
        format in any_format(),
    ) {
        let mut file = file;
        mutations.iter().for_each(|mutation| mutate(&mut file, mutation));
        read(file, format)?;
    }

    #[test]
    fn random_bytes_are_read_to_the_end(
        head in proptest::sample::select(vec!["", "PAR1", "\u{1f}\u{8b}\u{8}", "[", "{\"chosen\":", "prompt,chosen,rejected\n"]),
        bytes in vec(any::<u8>(), 0..300),
        is_parquet_end in any::<bool>(),
        format in any_format(),
    ) {
        let mut file = head.as_bytes().to_vec();
        // The magic of gzip and Zstandard is no UTF-8.
        if head.starts_with('\u{1f}') {
            file = vec![0x1f, 0x8b, 8];
        }
        file.extend(bytes);
        if is_parquet_end {
            let n_footer = (file.len() as u32).saturating_sub(4);
            file.extend(n_footer.to_le_bytes());
            file.extend(b"PAR1");
        }
        read(file, format)?;
    }
}
