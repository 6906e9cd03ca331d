//! The formats: how each is told, and how a row of it becomes a prompt and two completions.

use serde_json::{Map, Value};

use super::{Message, Prompt, fields::Notes, messages};
use crate::domain::DatasetFormat;

type Row = Map<String, Value>;
type Example = (Prompt, String, String);

const HUMAN: &str = "\n\nHuman:";
const ASSISTANT: &str = "\n\nAssistant:";

/// The format a row is in, by its fields alone.
pub(super) fn detect(row: &Row) -> Option<DatasetFormat> {
    if row.contains_key("input") && (row.contains_key("preferred_output") || row.contains_key("preferred_completion")) {
        return Some(DatasetFormat::OpenaiPreference);
    }
    let (chosen, rejected) = (row.get("chosen")?, row.get("rejected")?);
    let conversational = chosen.is_array() && rejected.is_array();
    Some(match (row.get("prompt"), conversational) {
        (Some(Value::Array(_)), _) | (Some(_), true) => DatasetFormat::TrlConversational,
        (Some(_), false) => DatasetFormat::TrlStandard,
        (None, true) => DatasetFormat::TrlConversationalImplicit,
        (None, false) if [chosen, rejected].iter().all(|v| v.as_str().is_some_and(|t| t.starts_with(HUMAN))) => {
            DatasetFormat::AnthropicHh
        }
        (None, false) => DatasetFormat::TrlStandardImplicit,
    })
}

/// Reads a row in `format`; what is wrong is noted.
pub(super) fn read(row: &Row, format: DatasetFormat, notes: &mut Notes) -> Option<Example> {
    let example = match format {
        DatasetFormat::OpenaiPreference => openai(row, notes),
        DatasetFormat::TrlStandard => {
            let (prompt, chosen) = (notes.text_field(row, "prompt"), notes.text_field(row, "chosen"));
            let rejected = notes.text_field(row, "rejected");
            Some((Prompt::Text(prompt?.to_owned()), chosen?.to_owned(), rejected?.to_owned()))
        }
        DatasetFormat::TrlStandardImplicit => {
            let (chosen, rejected) = (notes.text_field(row, "chosen"), notes.text_field(row, "rejected"));
            let (chosen, rejected) = (chosen?, rejected?);
            let end = shared_text(chosen, rejected);
            Some((Prompt::Text(chosen[..end].to_owned()), chosen[end..].to_owned(), rejected[end..].to_owned()))
        }
        DatasetFormat::TrlConversational => conversational(row, notes),
        DatasetFormat::TrlConversationalImplicit => {
            let chosen = message_field(row, "chosen", notes);
            let (rejected, chosen) = (message_field(row, "rejected", notes)?, chosen?);
            let n = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
            let completions = (
                messages::completion(&chosen[n..], "/chosen", notes),
                messages::completion(&rejected[n..], "/rejected", notes),
            );
            messages::check_prompt(&chosen[..n], "/chosen", notes);
            Some((Prompt::Messages(chosen[..n].to_vec()), completions.0?, completions.1?))
        }
        DatasetFormat::AnthropicHh => {
            let chosen = notes.text_field(row, "chosen");
            let (rejected, chosen) = (notes.text_field(row, "rejected")?, chosen?);
            anthropic(chosen, rejected, notes)
        }
    };
    let (prompt, chosen, rejected) = example?;
    check_sides(&prompt, &chosen, &rejected, notes);
    Some((prompt, chosen, rejected))
}

fn check_sides(prompt: &Prompt, chosen: &str, rejected: &str, notes: &mut Notes) {
    if let Prompt::Text(text) = prompt
        && text.trim().is_empty()
    {
        notes.problem("/prompt", "empty_prompt", "the prompt is empty: a completion needs something to answer");
    }
    for (side, text) in [("chosen", chosen), ("rejected", rejected)] {
        if text.trim().is_empty() {
            notes.problem(
                format!("/{side}"),
                "empty_completion",
                format!("the {side} completion is empty: remove the line"),
            );
        }
    }
    if chosen == rejected {
        notes.problem(
            "",
            "identical_sides",
            "chosen and rejected are the same: there is no preference; remove the line",
        );
    }
}

fn openai(row: &Row, notes: &mut Notes) -> Option<Example> {
    let prompt = match row.get("input").and_then(|input| input.get("messages")) {
        Some(list) => messages::parse(list, "/input/messages", notes),
        None => {
            notes.problem("/input/messages", "missing_field", "the field `input.messages` is missing");
            None
        }
    };
    if let Some(prompt) = &prompt {
        messages::check_prompt(prompt, "/input/messages", notes);
    }
    let mut side = |names: [&str; 2]| {
        let name = if row.contains_key(names[0]) { names[0] } else { names[1] };
        let name = if row.contains_key(name) { name } else { names[0] };
        let list = message_field(row, name, notes)?;
        messages::completion(&list, &format!("/{name}"), notes)
    };
    let chosen = side(["preferred_output", "preferred_completion"]);
    let rejected = side(["non_preferred_output", "non_preferred_completion"]);
    Some((Prompt::Messages(prompt?), chosen?, rejected?))
}

fn conversational(row: &Row, notes: &mut Notes) -> Option<Example> {
    let prompt = match notes.field(row, "prompt") {
        Some(Value::String(text)) => Some(Prompt::Text(text.clone())),
        Some(list) => messages::parse(list, "/prompt", notes).map(|list| {
            messages::check_prompt(&list, "/prompt", notes);
            Prompt::Messages(list)
        }),
        None => None,
    };
    // A completion may be a plain text beside a prompt of messages.
    let mut side = |name: &str| match notes.field(row, name)? {
        Value::String(text) => Some(text.clone()),
        list => {
            let list = messages::parse(list, &format!("/{name}"), notes)?;
            messages::completion(&list, &format!("/{name}"), notes)
        }
    };
    let (chosen, rejected) = (side("chosen"), side("rejected"));
    Some((prompt?, chosen?, rejected?))
}

fn message_field(row: &Row, name: &str, notes: &mut Notes) -> Option<Vec<Message>> {
    let value = notes.field(row, name)?;
    messages::parse(value, &format!("/{name}"), notes)
}

/// Where two texts part: the end of their common beginning, taken back by a space it ends in (as TRL does).
fn shared_text(a: &str, b: &str) -> usize {
    let end = a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y).map_or(a.len().min(b.len()), |((i, _), _)| i);
    if a[..end].ends_with(' ') { end - 1 } else { end }
}

/// Turns of `\n\nHuman:` and `\n\nAssistant:`; the prompt ends at the last of the latter.
fn anthropic(chosen: &str, rejected: &str, notes: &mut Notes) -> Option<Example> {
    let mut split = |text: &str, name: &str| {
        let at = text.rfind(ASSISTANT);
        if at.is_none() {
            notes.problem(
                format!("/{name}"),
                "no_assistant_turn",
                "the text has no turn that begins with '\\n\\nAssistant:'",
            );
        }
        at
    };
    let (c, r) = (split(chosen, "chosen"), split(rejected, "rejected"));
    let (c, r) = (c?, r?);
    if chosen[..c] != rejected[..r] {
        let message =
            "the two sides differ before their last '\\n\\nAssistant:': both must answer the same conversation";
        notes.problem("", "different_prompts", message);
        return None;
    }
    let completion = |text: &str, at: usize| text[at + ASSISTANT.len()..].trim().to_owned();
    let prompt = anthropic_turns(&chosen[..c]);
    messages::check_prompt(&prompt, "/chosen", notes);
    Some((Prompt::Messages(prompt), completion(chosen, c), completion(rejected, r)))
}

fn anthropic_turns(text: &str) -> Vec<Message> {
    let mut turns = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (role, marker) = if rest.starts_with(ASSISTANT) { ("assistant", ASSISTANT) } else { ("user", HUMAN) };
        let body = rest.strip_prefix(marker).unwrap_or(rest);
        let end = [body.find(HUMAN), body.find(ASSISTANT)].into_iter().flatten().min().unwrap_or(body.len());
        turns.push(Message { role: role.to_owned(), content: body[..end].trim().to_owned() });
        rest = &body[end..];
    }
    turns
}
