//! docs/api.md, done: every command in it is run as it stands there, and every answer beside one is compared with what comes.
//!
//! A block of `sh` is run by bash in one folder; the block of `json` or `text` behind it is the answer to its last command, shortened:
//! fields may be missing, and `…` in a text stands for what the server made up. Letters behind it (`file-…a1`) are a label: they stand for
//! the same here and in every command after it. Numbers are compared by their type only. What looks at something is asked again until it is as the document has it.
#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::server::Server;

/// How long something may take to become as the document has it, and how long apart it is asked.
const PATIENCE: Duration = Duration::from_mins(2);
const PAUSE: Duration = Duration::from_millis(100);

/// What the document gets from the internet, and what stands in for it.
const DOWNLOADED: &str = "hf:HuggingFaceTB/SmolLM2-135M-Instruct";
const STAND_IN: &str = "tests/fixtures/models/llama/model.gguf";

/// Commands, and the answer shown to the last of them.
struct Step {
    commands: String,
    answer: Option<String>,
}

#[test]
fn every_command_of_the_document_does_what_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let server = Server::start();
    let key = server.first_key("ana");
    let folder = tempfile::tempdir().unwrap();
    let mut known = BTreeMap::from([(DOWNLOADED.to_owned(), format!("path:{}", root.join(STAND_IN).display()))]);
    let steps = steps(&std::fs::read_to_string(root.join("docs/api.md")).unwrap());
    assert!(steps.len() > 30, "{} blocks", steps.len());
    for step in &steps {
        let began = Instant::now();
        // Making something twice would make two.
        let may_repeat = !["--json", "-F ", "-X "].iter().any(|word| step.commands.contains(word));
        loop {
            let commands = with_real_names(&step.commands, &known);
            let output = Command::new("bash")
                .args(["-e", "-o", "pipefail", "-c", &format!("curl() {{ command curl -sS \"$@\"; }}\nAUTH=(-H \"Authorization: Bearer $MRPO_KEY\")\n{commands}")])
                .env("MRPO", format!("http://{}", server.address()))
                .env("MRPO_KEY", &key)
                .env("no_proxy", "*")
                .current_dir(folder.path())
                .output()
                .unwrap();
            let (text, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{commands}\n{text}{log}");
            let mut found = BTreeMap::new();
            let Some(Err(why)) = step.answer.as_ref().map(|expected| compare(expected, &text, &known, &mut found))
            else {
                known.extend(found);
                break;
            };
            assert!(may_repeat && began.elapsed() < PATIENCE, "{commands}\n{why}\nthe answer was {text}");
            std::thread::sleep(PAUSE);
        }
    }
}

/// The blocks of the document, in its order.
fn steps(document: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut blocks = document.split("\n```").skip(1);
    while let (Some(block), _) = (blocks.next(), blocks.next()) {
        let (kind, content) = block.split_once('\n').unwrap();
        match kind {
            "sh" => steps.push(Step { commands: content.to_owned(), answer: None }),
            "json" | "text" => {
                let last = steps.last_mut().unwrap_or_else(|| panic!("no command before the answer {content}"));
                assert!(last.answer.replace(content.to_owned()).is_none(), "two answers: {content}");
            }
            "console" | "python" => {}
            other => panic!("a block of '{other}'"),
        }
    }
    steps
}

/// Names that the document has shortened, as the server has made them. Long ones first: one may begin another.
fn with_real_names(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut names: Vec<_> = known.iter().collect();
    names.sort_by_key(|(short, _)| std::cmp::Reverse(short.len()));
    names.iter().fold(text.to_owned(), |text, (short, real)| text.replace(*short, real))
}

fn compare(
    expected: &str,
    text: &str,
    known: &BTreeMap<String, String>,
    found: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    let Ok(expected) = serde_json::from_str::<Value>(expected) else {
        // Not JSON: its lines come, in this order; one that ends with … begins so.
        let mut lines = text.lines();
        for line in expected.trim().lines() {
            let fits = |real: &str| line.split_once('…').map_or(real == line, |(start, _)| real.starts_with(start));
            if !lines.any(fits) {
                return Err(format!("no line '{line}'"));
            }
        }
        return Ok(());
    };
    // Each command has its answer; it is the last one's that is shown.
    let answers = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let real = answers.last().ok_or("there is no answer")?.map_err(|e| e.to_string())?;
    holds(&expected, &real, "", (known, found))
}

fn holds(
    expected: &Value,
    real: &Value,
    at: &str,
    (known, found): (&BTreeMap<String, String>, &mut BTreeMap<String, String>),
) -> Result<(), String> {
    let differs = || Err(format!("{at}: the document has {expected}, and it is {real}"));
    match (expected, real) {
        (Value::Object(fields), Value::Object(all)) => {
            for (name, field) in fields {
                let name = with_real_names(name, known);
                let Some(real) = all.get(&name) else { return Err(format!("{at}/{name} is missing")) };
                holds(field, real, &format!("{at}/{name}"), (known, &mut *found))?;
            }
            Ok(())
        }
        (Value::Array(items), Value::Array(all)) if items.len() <= all.len() => {
            for (i, (item, real)) in items.iter().zip(all).enumerate() {
                holds(item, real, &format!("{at}/{i}"), (known, &mut *found))?;
            }
            Ok(())
        }
        (Value::String(short), Value::String(real)) if short.contains('…') => {
            let (start, label) = short.split_once('…').unwrap_or_default();
            let is_same = known.get(short).or(found.get(short)).is_none_or(|before| before == real);
            if !is_same || !real.starts_with(&with_real_names(start, known)) {
                return differs();
            }
            if !label.is_empty() {
                found.insert(short.clone(), real.clone());
            }
            Ok(())
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() == b.is_f64() => Ok(()),
        (a, b)
            if a == b || matches!((a, b), (Value::String(a), Value::String(b)) if with_real_names(a, known) == *b) =>
        {
            Ok(())
        }
        _ => differs(),
    }
}
