//! Holds the import table: which room of `src/` may import which, and what a room must never see.
//!
//! Reads the sources as text. A room is a folder or a file directly below `src/`; paths are found wherever they stand
//! (`use` or inline), test modules included, comments and literals left out.

use std::path::{Path, PathBuf};

/// One row of the table.
struct Room {
    name: &'static str,
    /// Other rooms it may import.
    may_import: &'static [&'static str],
    /// Names that never stand in it: crates by their name, or paths.
    never: &'static [&'static str],
}

/// The leaves know nothing of databases, tensors, HTTP or asynchrony.
const LEAF: &[&str] = &["tokio", "sqlx", "candle_core", "axum", "ureq", "tower_http"];
/// The training half knows nothing of the service's tools.
const TRAINING: &[&str] = &["tokio", "sqlx", "axum", "tower_http"];
/// The service half holds no tensors and no tokenizers: what needs them runs in a process of its own.
const SERVICE: &[&str] = &["candle_core", "tokenizers", "safetensors", "gemm"];

/// What a room may import, and what it must never see. A new room needs a row here, and a reason in ARCHITECTURE.md.
const TABLE: &[Room] = &[
    Room { name: "domain", may_import: &[], never: LEAF },
    Room { name: "run_dir", may_import: &["domain"], never: LEAF },
    Room {
        name: "dataset",
        may_import: &["domain"],
        never: &["tokio", "sqlx", "candle_core", "axum", "ureq", "tower_http", "tokenizers"],
    },
    Room {
        name: "objective",
        may_import: &["domain"],
        never: &["tokio", "sqlx", "candle_core", "axum", "std::fs", "std::io", "std::path", "fs_err", "serde_json"],
    },
    Room { name: "model", may_import: &["domain"], never: TRAINING },
    Room { name: "fetch", may_import: &["domain"], never: &["tokio", "sqlx", "axum", "tower_http", "candle_core"] },
    Room { name: "export", may_import: &["domain", "model", "text"], never: TRAINING },
    Room { name: "text", may_import: &["domain", "dataset"], never: TRAINING },
    Room { name: "score", may_import: &["domain", "text", "model"], never: TRAINING },
    Room {
        name: "train",
        may_import: &["domain", "objective", "model", "text"],
        // A run is a function of its directory and its seed: no clock, no environment.
        never: &["tokio", "sqlx", "axum", "tower_http", "std::env", "env::var", "Instant", "SystemTime"],
    },
    // The device's own bench: nothing of jobs, files or objectives.
    Room { name: "device_check", may_import: &["domain", "model", "train"], never: TRAINING },
    Room { name: "eval", may_import: &["domain", "dataset", "text", "model", "score"], never: TRAINING },
    Room {
        name: "run",
        may_import: &[
            "domain",
            "dataset",
            "run_dir",
            "train",
            "objective",
            "model",
            "text",
            "score",
            "eval",
            "fetch",
            "export",
        ],
        never: TRAINING,
    },
    Room {
        name: "store",
        may_import: &["domain"],
        never: &["candle_core", "tokenizers", "safetensors", "gemm", "axum"],
    },
    Room {
        name: "launch",
        may_import: &["domain", "run_dir"],
        never: &["candle_core", "tokenizers", "safetensors", "gemm", "sqlx"],
    },
    // A client of other people's servers: of ours it knows nothing.
    Room {
        name: "deliver",
        may_import: &["domain"],
        never: &["candle_core", "tokenizers", "safetensors", "gemm", "tokio", "sqlx", "axum", "tower_http"],
    },
    Room {
        name: "worker",
        may_import: &["domain", "run_dir", "store", "launch", "deliver"],
        never: &["candle_core", "tokenizers", "safetensors", "gemm", "axum", "sqlx"],
    },
    Room { name: "http", may_import: &["domain", "dataset", "run_dir", "store", "objective"], never: SERVICE },
    // An HTTP client: it uses nothing that a client cannot use.
    Room { name: "demo", may_import: &["domain"], never: &["candle_core", "tokenizers", "sqlx", "axum"] },
];

/// What puts the rooms together and may import all of them.
const ROOF: [&str; 4] = ["lib", "main", "config", "commands"];

#[test]
fn rooms_import_only_what_the_table_allows() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    assert!(files.len() > 10, "src/ was not found: {} files", files.len());
    let mut violations = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("readable source");
        let relative = path.strip_prefix(&src).expect("below src").to_string_lossy().into_owned();
        violations.extend(check(&relative, &text));
    }
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("readable directory") {
        let path = entry.expect("readable entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Every violation of one file: where, and which rule.
fn check(relative: &str, text: &str) -> Vec<String> {
    let room_name = relative.split('/').next().unwrap_or(relative).trim_end_matches(".rs");
    if ROOF.contains(&room_name) {
        return Vec::new();
    }
    let Some(room) = TABLE.iter().find(|room| room.name == room_name) else {
        return vec![format!(
            "src/{relative}:1: '{room_name}' is not in the table of tests/architecture.rs: give it a row"
        )];
    };
    let code = tokens(&without_comments_and_literals(text));
    let mut violations = Vec::new();
    for (line, imported) in imported_rooms(&code) {
        let is_a_room = TABLE.iter().any(|other| other.name == imported) || ROOF.contains(&imported.as_str());
        if is_a_room && imported != room.name && !room.may_import.contains(&imported.as_str()) {
            let allowed = if room.may_import.is_empty() { "itself".to_owned() } else { room.may_import.join(", ") };
            violations
                .push(format!("src/{relative}:{line}: {room_name} imports {imported}, but may import only {allowed}"));
        }
    }
    for (line, path) in paths(&code) {
        for name in room.never {
            if stands_in(name, &path) {
                violations.push(format!("src/{relative}:{line}: {room_name} must never see {name}"));
            }
        }
    }
    violations.dedup();
    violations
}

/// Whether `name` (one or more segments) is a run of whole segments of `path`.
fn stands_in(name: &str, path: &str) -> bool {
    format!("::{path}::").contains(&format!("::{name}::"))
}

/// Replaces comments and the insides of literals by spaces; lines stay where they are.
fn without_comments_and_literals(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = skipped_to(&bytes, at);
        if end == at {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(bytes[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends, or `at` itself.
fn skipped_to(text: &[char], at: usize) -> usize {
    let starts = |from: usize, what: &str| what.chars().enumerate().all(|(i, c)| text.get(from + i) == Some(&c));
    let after = |from: usize, what: &str| {
        (from..text.len()).find(|i| starts(*i, what)).map_or(text.len(), |i| i + what.chars().count())
    };
    if starts(at, "//") {
        return (at..text.len()).find(|i| text[*i] == '\n').unwrap_or(text.len());
    }
    if starts(at, "/*") {
        return after(at + 2, "*/");
    }
    let in_a_word = at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_');
    let hashes = text[at + 1..].iter().take_while(|c| **c == '#').count();
    // b"..", br".." and c".." begin with a letter of their own, which then looks like a word before the quote.
    let prefixed = !in_a_word || matches!(text[at - 1], 'b' | 'c');
    if text[at] == 'r' && prefixed && text.get(at + 1 + hashes) == Some(&'"') {
        return after(at + 2 + hashes, &format!("\"{}", "#".repeat(hashes)));
    }
    match text[at] {
        '"' => quoted_to(text, at, '"'),
        // A lifetime has no closing quote where a character has one.
        '\'' if text.get(at + 1) == Some(&'\\') || text.get(at + 2) == Some(&'\'') => quoted_to(text, at, '\''),
        _ => at,
    }
}

fn quoted_to(text: &[char], at: usize, quote: char) -> usize {
    let mut end = at + 1;
    while end < text.len() && text[end] != quote {
        end += if text[end] == '\\' { 2 } else { 1 };
    }
    (end + 1).min(text.len())
}

/// Words, `::` and single other characters, each with its line.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut tokens: Vec<(usize, String)> = Vec::new();
    for (number, line) in (1..).zip(code.lines()) {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let length = match word {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                _ => word,
            };
            if !first.is_whitespace() {
                tokens.push((number, rest[..length].to_owned()));
            }
            rest = &rest[length..];
        }
    }
    tokens
}

/// Every path that stands in the code, `a::{b, c::d}` taken apart, with the line of its last segment.
fn paths(tokens: &[(usize, String)]) -> Vec<(usize, String)> {
    let is_word =
        |i: usize| tokens.get(i).is_some_and(|(_, t)| t.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_'));
    let is = |i: usize, what: &str| tokens.get(i).is_some_and(|(_, t)| t == what);
    let mut found = Vec::new();
    // What stands before each open brace: the path it belongs to, or nothing where it opens a block.
    let mut prefixes: Vec<String> = Vec::new();
    let mut path = String::new();
    let mut i = 0;
    while i < tokens.len() {
        if is_word(i) {
            if path.is_empty() {
                path = prefixes.last().cloned().unwrap_or_default();
            }
            path += &tokens[i].1;
            if is(i + 1, "::") && is(i + 2, "{") {
                prefixes.push(format!("{path}::"));
                path.clear();
                i += 3;
                continue;
            }
            if is(i + 1, "::") && is_word(i + 2) {
                path += "::";
                i += 2;
                continue;
            }
            found.push((tokens[i].0, std::mem::take(&mut path)));
        } else if is(i, "{") {
            prefixes.push(String::new());
        } else if is(i, "}") {
            prefixes.pop();
        }
        i += 1;
    }
    found
}

/// The first segment after `crate` (or `mrpo`) of every path.
fn imported_rooms(code: &[(usize, String)]) -> Vec<(usize, String)> {
    paths(code)
        .into_iter()
        .filter_map(|(line, path)| {
            let inside = path.strip_prefix("crate::").or_else(|| path.strip_prefix("mrpo::"))?;
            Some((line, inside.split("::").next().unwrap_or(inside).to_owned()))
        })
        .collect()
}

#[test]
fn an_import_outside_the_table_is_named_with_file_line_and_rule() {
    let text = "//! crate::http\nuse crate::domain::Job;\n\nuse crate::{\n    domain::metric,\n    store::{Store, Error},\n};\n";
    let expected = "src/objective/mix.rs:6: objective imports store, but may import only domain";
    assert_eq!(check("objective/mix.rs", text), [expected]);
    assert_eq!(check("objective.rs", text), [expected.replace("objective/mix.rs", "objective.rs")]);
    let inline = "fn f() -> f64 { let x = crate::train::step(); x }";
    assert_eq!(
        check("store/jobs.rs", inline),
        ["src/store/jobs.rs:1: store imports train, but may import only domain"]
    );
    assert!(check("domain/job.rs", inline)[0].ends_with("domain imports train, but may import only itself"));
}

#[test]
fn what_a_room_must_never_see_is_found_in_any_form() {
    let never = |file: &str, text: &str| {
        check(file, text).into_iter().map(|v| v.rsplit(' ').next().unwrap_or("").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(never("domain/job.rs", "use tokio::sync::mpsc;"), ["tokio"]);
    assert_eq!(never("domain/job.rs", "#[derive(sqlx::FromRow)]\nstruct A;"), ["sqlx"]);
    assert_eq!(never("train/step.rs", "use std::{time::Instant, fmt};"), ["Instant"]);
    assert_eq!(never("train/step.rs", "use std::{\n    env,\n    fmt,\n};"), ["std::env"]);
    assert_eq!(never("http/jobs.rs", "fn f(t: &candle_core::Tensor) {}"), ["candle_core"]);
    assert!(
        never(
            "train/step.rs",
            "// tokio\nlet s = \"sqlx::x\"; let r = r#\"axum \"axum::\" \"#; let c = '\"'; fn f<'a>() {}"
        )
        .is_empty()
    );
    assert!(never("train/step.rs", "let instants = 3; let tokio_like = 1;").is_empty());
}

#[test]
fn a_room_without_a_row_is_refused() {
    assert!(check("managers/mod.rs", "")[0].contains("'managers' is not in the table"));
    assert!(check("commands/serve.rs", "use mrpo::http;").is_empty());
}

#[test]
fn the_two_halves_never_import_each_other() {
    let service = ["http", "store", "worker", "launch", "deliver", "demo"];
    let training = ["run", "train", "model", "text", "score", "eval", "fetch", "export"];
    for room in TABLE {
        let others: &[&str] = if service.contains(&room.name) {
            &training
        } else if training.contains(&room.name) {
            &service
        } else {
            continue;
        };
        let crossing: Vec<_> = room.may_import.iter().filter(|name| others.contains(name)).collect();
        assert!(crossing.is_empty(), "{} may import {crossing:?}", room.name);
    }
}
