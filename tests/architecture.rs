//! Holds the import rules between the rooms of `src`: who may use whom, and which crates a room never sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A room of `src`: the rooms it may import besides itself, and the crates it must not name.
struct Rule {
    room: &'static str,
    may_import: &'static [&'static str],
    never_sees: &'static [&'static str],
}

const fn rule(room: &'static str, may_import: &'static [&'static str], never_sees: &'static [&'static str]) -> Rule {
    Rule { room, may_import, never_sees }
}

const SERVICE_CRATES: &[&str] = &["tokio", "sqlx", "axum"];

/// `main.rs` and `commands` put everything together and have no rule; `lib.rs` only names the rooms.
const FREE: [&str; 3] = ["main", "lib", "commands"];

const RULES: &[Rule] = &[
    rule("domain", &[], &["tokio", "sqlx", "candle_core", "axum"]),
    rule("run_dir", &["domain"], &["tokio", "sqlx", "candle_core", "axum"]),
    rule("objective", &["domain"], &["candle_core", "fs_err", "tokio", "sqlx", "axum"]),
    // Wider than the table of ARCHITECTURE.md, which gives `model` nothing: its weights are named by records of `domain`,
    // and `weights.rs` reads its JSON files with `run_dir::read_json`.
    rule("model", &["domain", "run_dir"], SERVICE_CRATES),
    rule("dataset", &["domain"], &["tokenizers", "candle_core", "tokio", "sqlx", "axum"]),
    rule("text", &["domain", "dataset"], SERVICE_CRATES),
    rule("score", &["domain", "text", "model"], SERVICE_CRATES),
    rule("train", &["domain", "objective", "model", "text"], SERVICE_CRATES),
    rule("eval", &["domain", "dataset", "text", "model", "score"], SERVICE_CRATES),
    rule(
        "run",
        &["domain", "dataset", "run_dir", "fetch", "objective", "model", "text", "score", "train", "eval"],
        SERVICE_CRATES,
    ),
    rule("fetch", &["domain"], &["sqlx", "axum", "candle_core"]),
    rule("store", &["domain"], &["candle_core", "axum"]),
    rule("launch", &["domain", "run_dir"], &["candle_core", "axum", "sqlx"]),
    rule("worker", &["domain", "run_dir", "store", "launch"], &["candle_core", "axum"]),
    rule("http", &["domain", "dataset", "run_dir", "store", "objective"], &["candle_core"]),
    rule("demo", &["domain"], &["candle_core", "axum", "sqlx"]),
    rule("config", &["domain"], &["candle_core", "axum", "sqlx"]),
];

/// Every Rust file of `src`, by the room it belongs to.
fn files_by_room() -> BTreeMap<String, Vec<PathBuf>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut rooms = BTreeMap::<String, Vec<PathBuf>>::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let inside = path.strip_prefix(&src).expect("a path of src").with_extension("");
                let room = inside.iter().next().expect("a name").to_string_lossy().into_owned();
                rooms.entry(room).or_default().push(path);
            }
        }
    }
    rooms
}

/// The code without its line comments, which may name anything.
fn code_of(text: &str) -> String {
    text.lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .fold(String::new(), |code, line| code + line + "\n")
}

/// Whether a name may contain `c`.
fn in_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn first_name(text: &str) -> &str {
    let text = text.trim_start();
    text.split(|c| !in_name(c)).next().unwrap_or_default()
}

/// The rooms that `crate::room` and `use crate::{room::.., ..}` name.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, path) in code.match_indices("crate::") {
        if code[..at].ends_with(in_name) {
            continue;
        }
        let rest = &code[at + path.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.insert(first_name(rest).to_owned());
            continue;
        };
        found.insert(first_name(list).to_owned());
        let mut depth = 1;
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => _ = found.insert(first_name(&list[i + 1..]).to_owned()),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found.remove("");
    found
}

/// Whether `code` names the crate `name` in a path.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = &code[..at];
        !before.ends_with(in_name) && !before.ends_with("::")
    })
}

#[test]
fn every_room_imports_only_what_it_may() {
    let rooms = files_by_room();
    let mut violations = Vec::new();
    for (room, files) in &rooms {
        if FREE.contains(&room.as_str()) {
            continue;
        }
        let Some(rule) = RULES.iter().find(|rule| rule.room == room) else {
            violations.push(format!("src/{room} has no rule: add one to this test and to ARCHITECTURE.md"));
            continue;
        };
        for file in files {
            let code = code_of(&fs::read_to_string(file).expect("a readable file"));
            let foreign = imports(&code).into_iter().filter(|i| i != room && !rule.may_import.contains(&i.as_str()));
            violations.extend(foreign.map(|import| format!("{}: {room} may not import {import}", file.display())));
            let seen = rule.never_sees.iter().filter(|name| names_crate(&code, name));
            violations.extend(seen.map(|name| format!("{}: {room} must never see {name}", file.display())));
        }
    }
    assert!(rooms.len() > 3, "src was not read");
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn imports_are_found_however_they_are_written() {
    let code = code_of(
        "use crate::domain::{Job, Model};\nuse crate::{\n    store::{Store, jobs::{A, B}},\n    text::codec,\n};\n\
         // crate::comment\nfn f() -> crate::http::Error { mycrate::other() }",
    );
    let expected = ["domain", "http", "store", "text"].map(str::to_owned);
    assert_eq!(imports(&code), BTreeSet::from(expected));
    assert!(names_crate("use axum::Router;", "axum"));
    assert!(!names_crate("use myaxum::Router; crate::axum::X", "axum"));
}
