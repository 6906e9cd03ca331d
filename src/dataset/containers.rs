//! The same pairs come out of whatever keeps and packs them; what is damaged or out of bounds is refused with the way out.

use std::io::{Cursor, Write};

use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::{PairReader, PreferencePair, Row, check};
use crate::domain::{Compression, Container, DatasetReport};

pub(super) const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/datasets");
const NAMES: [&str; 4] = ["trl_standard", "ultrafeedback_binarized", "openai_preference", "nemo_rl"];

pub(super) fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{DIRECTORY}/{name}")).expect(name)
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// The lines of JSON Lines as one list, over several lines.
pub(super) fn list(lines: &[u8]) -> Vec<u8> {
    let rows = lines.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    [b"[\n".to_vec(), rows.collect::<Vec<_>>().join(b",\n".as_slice()), b"\n]\n".to_vec()].concat()
}

fn open(bytes: &[u8]) -> PairReader<Box<dyn std::io::BufRead + Send>> {
    PairReader::open(Cursor::new(bytes.to_vec()), None).expect("memory")
}

fn report(bytes: &[u8]) -> DatasetReport {
    check(open(bytes)).expect("memory")
}

/// Every pair, numbered as it comes; all rows must be good.
fn pairs(bytes: &[u8]) -> Vec<PreferencePair> {
    let mut reader = open(bytes);
    let mut pairs = Vec::new();
    while let Some(Row { pair, .. }) = reader.read().expect("memory") {
        let mut pair = pair.unwrap_or_else(|problems| panic!("{problems:?}"));
        pair.line = pairs.len() as u64 + 1;
        pairs.push(pair);
    }
    pairs
}

/// Line and code of the only problem, and its message.
fn problem(bytes: &[u8]) -> (Option<u64>, String, String) {
    let report = report(bytes);
    assert_eq!(report.problems.n_total, 1, "{:?}", report.problems.first);
    let problem = report.problems.first.into_iter().next().expect("one");
    (problem.line, problem.code, problem.message)
}

#[test]
fn parquet_gives_the_pairs_of_json_lines() {
    let mut n_files = 0;
    for name in NAMES {
        let expected = pairs(&fixture(&format!("{name}.jsonl")));
        assert_eq!(expected.len(), 20, "{name}");
        for entry in std::fs::read_dir(DIRECTORY).expect("fixtures") {
            let file = entry.expect("entry").file_name().into_string().expect("UTF-8");
            if !(file.starts_with(name) && file.ends_with(".parquet")) {
                continue;
            }
            n_files += 1;
            let bytes = fixture(&file);
            let found = report(&bytes);
            assert_eq!(found.problems.first, [], "{file}");
            assert_eq!(found.format.expect("a format").as_str(), name);
            assert_eq!(found.container, Some(Container::Parquet));
            assert_eq!(pairs(&bytes), expected, "{file}");
        }
    }
    assert_eq!(n_files, 21);
}

#[test]
fn lists_and_packed_files_give_the_pairs_of_json_lines() {
    for name in NAMES {
        let lines = fixture(&format!("{name}.jsonl"));
        let expected = pairs(&lines);
        let half = lines.len() / 2;
        let members = [gzip(&lines[..half]), gzip(&lines[half..])].concat();
        // A frame to be skipped stands between two frames.
        let frames = [zstd(&lines[..half]), b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(&lines[half..])].concat();
        let with_mark = [b"\xEF\xBB\xBF  ".to_vec(), list(&lines)].concat();
        for (bytes, container, compression) in [
            (list(&lines), Container::JsonArray, None),
            (with_mark, Container::JsonArray, None),
            (gzip(&lines), Container::JsonLines, Some(Compression::Gzip)),
            (members, Container::JsonLines, Some(Compression::Gzip)),
            (zstd(&list(&lines)), Container::JsonArray, Some(Compression::Zstd)),
            (frames, Container::JsonLines, Some(Compression::Zstd)),
        ] {
            let found = report(&bytes);
            assert_eq!((found.container, found.compression), (Some(container), compression));
            assert_eq!(pairs(&bytes), expected, "{name}, {container:?}, {compression:?}");
        }
    }
}

#[test]
fn csv_gives_texts_and_lists() {
    let text = "\u{feff}id,prompt,chosen,rejected,aux_rewards_chosen,aux_rewards_rejected\n\
        1,\"two\nlines\",\"a \"\"b\"\"\",c,\"[1, 2]\",\"[3, 4]\"\n2,p,\" c \",r,,\n";
    for bytes in [text.as_bytes().to_vec(), gzip(text.replace('\n', "\r\n").replace("two\r\n", "two\n").as_bytes())] {
        let found = pairs(&bytes);
        assert_eq!(found[0].prompt, super::Prompt::Text("two\nlines".into()));
        assert_eq!((found[0].chosen.as_str(), found[1].chosen.as_str()), ("a \"b\"", " c "));
        assert_eq!(found[0].extra.aux_rewards.as_ref().expect("rewards").chosen, [1.0, 2.0]);
        assert_eq!(found[1].extra, super::ExtraFields::default());
    }
    let report = report(format!("{text}3,p,c,c,,\n").as_bytes());
    let found = &report.problems.first[0];
    assert_eq!((found.line, found.code.as_str()), (Some(5), "identical_completions"));
    assert_eq!((report.container, report.n_pairs), (Some(Container::Csv), 2));
}

#[test]
fn what_unpacks_to_too_much_is_refused() {
    let bomb = vec![b' '; 65 << 20];
    for (packed, line) in [(gzip(&bomb), 1), (zstd(&bomb), 1)] {
        assert!(packed.len() < 100 << 10);
        let (at, code, message) = problem(&packed);
        assert_eq!((at, code.as_str()), (Some(line), "unpacks_to_too_much"));
        assert!(message.contains("64 MiB") && message.contains("split it"), "{message}");
    }
}

#[test]
fn what_is_cut_off_is_refused_behind_what_was_read() {
    let lines = fixture("trl_standard.jsonl");
    for packed in [gzip(&lines.repeat(30)), zstd(&lines.repeat(30))] {
        let found = report(&packed[..packed.len() - 9]);
        assert_eq!(found.problems.n_total, 1);
        let (line, code) = (found.problems.first[0].line, found.problems.first[0].code.as_str());
        assert_eq!((line, code), (Some(found.n_pairs + 1), "damaged_file"));
    }
    let parquet = fixture("trl_standard.snappy.parquet");
    assert_eq!(problem(&parquet[..parquet.len() - 1]).1, "damaged_file");
    assert_eq!(problem(&parquet[..6]).1, "damaged_file");
    let list = list(&lines);
    let found = report(&list[..list.len() - 3]);
    assert_eq!((found.n_pairs, found.problems.first[0].line, found.problems.n_total), (19, Some(20), 1));
}

#[test]
fn what_is_packed_twice_is_refused() {
    let lines = fixture("trl_standard.jsonl");
    for bytes in [gzip(&gzip(&lines)), zstd(&gzip(&lines)), gzip(&fixture("nemo_rl.zstd.parquet"))] {
        assert_eq!(problem(&bytes).1, "packed_twice");
    }
}

#[test]
fn damage_within_a_packed_file_is_found() {
    let mut packed = zstd(&fixture("trl_standard.jsonl"));
    let middle = packed.len() / 2;
    packed[middle] ^= 1;
    assert!(!report(&packed).problems.is_empty());
}
