//! The licence a model's files name, if one does.

use std::{io::Read, path::Path};

use super::gguf;
use crate::domain::{ModelLocation, WeightsFormat};

/// The most that is read of a model card, in bytes: what counts stands at its top.
const MAX_CARD_BYTES: u64 = 64 << 10;
/// The longest name of a licence that is passed on, in characters.
const MAX_CHARS: usize = 100;

/// What the GGUF metadata (`general.license`), the top of the model card (`license:` in `README.md`) or `config.json` name. What cannot be
/// read names none.
pub fn licence(location: &ModelLocation) -> Option<String> {
    let named = match location.format {
        WeightsFormat::Gguf => of_gguf(&location.weights),
        WeightsFormat::Huggingface => of_card(&location.weights).or_else(|| of_config(&location.weights)),
        WeightsFormat::Scores | WeightsFormat::Remote => None,
    }?;
    let named: String = named.trim().chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect();
    Some(named).filter(|named| !named.is_empty())
}

fn of_gguf(path: &Path) -> Option<String> {
    let (content, _) = gguf::read_content(path).ok()?;
    content.metadata.get("general.license")?.to_string().ok().cloned()
}

fn of_card(directory: &Path) -> Option<String> {
    let mut card = Vec::new();
    fs_err::File::open(directory.join("README.md")).ok()?.take(MAX_CARD_BYTES).read_to_end(&mut card).ok()?;
    let card = String::from_utf8_lossy(&card);
    let mut lines = card.lines();
    if lines.next()?.trim_end() != "---" {
        return None;
    }
    // YAML, but a text under a key at the top level is all that is looked for. A licence of its own has a second name.
    let front: Vec<&str> = lines.take_while(|line| line.trim_end() != "---").collect();
    let value = |key: &str| {
        let text = front.iter().find_map(|line| line.strip_prefix(key))?;
        Some(text.trim().trim_matches(['"', '\'']).to_owned()).filter(|text| !text.is_empty())
    };
    match value("license:") {
        Some(other) if other == "other" => value("license_name:").or(Some(other)),
        named => named,
    }
}

fn of_config(directory: &Path) -> Option<String> {
    let text = fs_err::read(directory.join("config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
    config.get("license")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_goes_before_the_configuration() {
        let directory = tempfile::tempdir().expect("a directory");
        let location = ModelLocation {
            format: WeightsFormat::Huggingface,
            weights: directory.path().to_owned(),
            adapters: Vec::new(),
        };
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("written");
        assert_eq!(licence(&location), None);
        write("config.json", r#"{"license": "mit"}"#);
        assert_eq!(licence(&location).as_deref(), Some("mit"));
        write("README.md", "---\nlanguage: en\nlicense: 'apache-2.0'\n---\nlicense: no\n");
        assert_eq!(licence(&location).as_deref(), Some("apache-2.0"));
        write("README.md", "---\nlicense: other\nlicense_name: gemma-research\n---\n");
        assert_eq!(licence(&location).as_deref(), Some("gemma-research"));
        write("README.md", "license: text\n");
        assert_eq!(licence(&location).as_deref(), Some("mit"), "no front matter");
    }
}
