//! Chat templates against transformers; needs `$MRPO_TEMPLATES`, written by `tests/training/render_templates.py`.

use serde::Deserialize;

use super::ChatTemplate;
use crate::{dataset::Message, text::parts::SpecialToken};

#[derive(Deserialize)]
struct Row {
    name: String,
    case: String,
    template: String,
    messages: Vec<Spoken>,
    add_generation_prompt: bool,
    text: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Spoken {
    role: String,
    content: String,
}

/// What the template makes of the row's messages.
fn render(row: &Row) -> Result<String, String> {
    let token = |text: &str, id| SpecialToken { text: text.into(), id };
    let template = ChatTemplate::new(&row.template, Some(&token("<s>", 1)), Some(&token("</s>", 2)));
    let messages: Vec<Message> =
        row.messages.iter().map(|m| Message { role: m.role.clone(), content: m.content.clone() }).collect();
    template.and_then(|t| t.render(&messages, row.add_generation_prompt)).map_err(|e| e.to_string())
}

/// Python will not walk through None; here it is empty. Templates for tools, which are always None, then write an empty list.
const EXPLAINED: &str = "'NoneType' object is not iterable";

/// The same text; or both refuse, and what the template says by itself is said here too.
fn agree(ours: &Result<String, String>, row: &Row) -> bool {
    match (ours, &row.error) {
        (Ok(text), None) => Some(text) == row.text.as_ref(),
        (Err(said), Some(error)) => error.strip_prefix("TemplateError: ").is_none_or(|reason| said.contains(reason)),
        _ => false,
    }
}

#[test]
fn published_templates_render_as_transformers_renders_them() {
    let Some(path) = std::env::var_os("MRPO_TEMPLATES") else {
        eprintln!("skipped: MRPO_TEMPLATES names no file");
        return;
    };
    let rows: Vec<Row> = serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap();
    let mut n_wrong = 0;
    for row in &rows {
        let ours = render(row);
        let is_explained = row.error.as_ref().is_some_and(|e| e.contains(EXPLAINED));
        if !is_explained && !agree(&ours, row) {
            n_wrong += 1;
            let theirs = row.text.as_ref().or(row.error.as_ref());
            eprintln!("{}, {}:\n  ours   {ours:?}\n  theirs {theirs:?}", row.name, row.case);
        }
    }
    eprintln!("{} of {} agree", rows.len() - n_wrong, rows.len());
    assert_eq!(n_wrong, 0, "renderings that differ");
}
