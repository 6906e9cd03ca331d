//! Tables for people say what the document says, and the document's names are each of one thing.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use crate::{DOCUMENT, read};

/// The rows of a table as docs/api.md has to have them.
fn table(head: &str, rows: impl Iterator<Item = String>) -> String {
    rows.fold(head.to_owned(), |mut text, row| {
        let _ = writeln!(text, "{row}");
        text
    })
}

fn stands_in_the_docs(table: &str) {
    assert!(read("docs/api.md").contains(table), "docs/api.md must have this table:\n\n{table}");
}

#[test]
fn the_docs_have_every_limit() {
    let limits = DOCUMENT["x-limits"].as_object().expect("limits");
    let row = |(name, limit): (&String, &serde_json::Value)| {
        let text = |field: &str| limit[field].as_str().expect("a text");
        format!("| `{name}` | {} {} | {} |", limit["value"], text("unit"), text("description"))
    };
    stands_in_the_docs(&table("| limit | | of |\n|---|---|---|\n", limits.iter().map(row)));
}

#[test]
fn the_docs_have_every_error_code() {
    let codes = DOCUMENT["x-error-codes"].as_object().expect("codes");
    let row = |(code, about): (&String, &serde_json::Value)| {
        format!("| `{code}` | {} | {} |", about["status"], about["title"].as_str().expect("a title"))
    };
    stands_in_the_docs(&table("| code | status | |\n|---|---|---|\n", codes.iter().map(row)));
}

/// Two types of one name would be one in the document: whichever came last.
#[test]
fn no_two_types_have_one_name_in_the_document() {
    let mut places = BTreeMap::<String, Vec<String>>::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|e| e == "rs") {
                for name in described_types(&std::fs::read_to_string(&entry).expect("a source")) {
                    places.entry(name).or_default().push(entry.display().to_string());
                }
            }
        }
    }
    assert!(places.len() > 50, "{places:?}");
    let doubled: Vec<_> = places.iter().filter(|(_, files)| files.len() > 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
}

/// The types that derive `ToSchema`: the name behind the next `struct` or `enum`.
fn described_types(source: &str) -> Vec<String> {
    let name = |rest: &str| {
        let line = rest.lines().find(|line| line.contains("struct ") || line.contains("enum "))?;
        let name = line.split("struct ").nth(1).or(line.split("enum ").nth(1))?;
        Some(name.split(|c: char| !c.is_alphanumeric() && c != '_').next()?.to_owned())
    };
    let derives = source.split("#[derive(").skip(1);
    let described = derives.filter(|rest| rest.split(')').next().is_some_and(|list| list.contains("ToSchema")));
    described.filter_map(name).filter(|name| !name.is_empty()).collect()
}
