//! Lists of messages: their shape, and the order their roles may stand in.

use serde_json::Value;

use super::{Message, fields::Notes};

/// Reads a list of messages; what is wrong with each of them is noted.
pub(super) fn parse(value: &Value, pointer: &str, notes: &mut Notes) -> Option<Vec<Message>> {
    let Some(list) = value.as_array() else {
        notes.wrong_type(value, pointer, "a list of messages");
        return None;
    };
    // Every message is looked at, also after one that is wrong.
    let messages: Vec<_> =
        list.iter().enumerate().map(|(i, message)| parse_one(message, &format!("{pointer}/{i}"), notes)).collect();
    messages.into_iter().collect()
}

/// Reads one message.
pub(super) fn parse_one(value: &Value, pointer: &str, notes: &mut Notes) -> Option<Message> {
    let Some(message) = value.as_object() else {
        notes.wrong_type(value, pointer, "a message {\"role\", \"content\"}");
        return None;
    };
    let mut text = |name: &str| {
        let at = format!("{pointer}/{name}");
        if let Some(value) = message.get(name) {
            return notes.text(value, &at);
        }
        notes.problem(at, "missing_field", format!("a message needs `{name}`"));
        None
    };
    let (role, content) = (text("role"), text("content"));
    if let Some(role) = role
        && !Message::ROLES.contains(&role)
    {
        let message = format!("'{}' is no role; the roles are {}", shortened(role), Message::ROLES.join(", "));
        notes.problem(format!("{pointer}/role"), "unknown_role", message);
        return None;
    }
    Some(Message { role: role?.to_owned(), content: content?.to_owned() })
}

/// Checks a prompt: not empty, system and developer messages at its beginning only, user and assistant in turn, and the
/// assistant not last. Chat templates refuse anything else, but only when training has begun.
pub(super) fn check_prompt(messages: &[Message], pointer: &str, notes: &mut Notes) {
    if messages.iter().all(|m| m.content.trim().is_empty()) {
        notes.problem(pointer, "empty_prompt", "the prompt is empty: give at least one message with content");
        return;
    }
    let opening = |m: &Message| matches!(m.role.as_str(), "system" | "developer");
    let n_opening = messages.iter().take_while(|m| opening(m)).count();
    let turns = &messages[n_opening..];
    if turns.is_empty() {
        let message = "the prompt has no user message: after the system message, give what the completions answer";
        notes.problem(pointer, "no_user_message", message);
    }
    for (i, message) in turns.iter().enumerate() {
        let at = || format!("{pointer}/{}/role", n_opening + i);
        let role = message.role.as_str();
        if opening(message) {
            notes.problem(at(), "misplaced_role", format!("a {role} message stands before all others"));
        } else if i == 0 && role != "user" {
            notes.problem(at(), "misplaced_role", format!("a conversation begins with the user, not with '{role}'"));
        } else if i > 0 && matches!(role, "user" | "assistant") && role == turns[i - 1].role {
            notes.problem(at(), "roles_do_not_alternate", format!("two {role} messages in a row: join them into one"));
        }
    }
    if turns.last().is_some_and(|m| m.role == "assistant") {
        let message = "the prompt ends with the assistant: its last turn is what `chosen` and `rejected` are for";
        notes.problem(format!("{pointer}/{}/role", messages.len() - 1), "assistant_is_last", message);
    }
}

/// Checks a prompt whose messages are parts of one text: they have no pointers of their own.
pub(super) fn check_prompt_of_text(messages: &[Message], pointer: &str, notes: &mut Notes) {
    let n_before = notes.problems.len();
    check_prompt(messages, pointer, notes);
    for problem in &mut notes.problems[n_before..] {
        problem.pointer = Some(pointer.to_owned());
    }
}

/// The text of a completion that is one message; its role stands at `pointer`.
pub(super) fn completion_of(message: Message, pointer: &str, notes: &mut Notes) -> Option<String> {
    if message.role == "assistant" {
        return Some(message.content);
    }
    let text = format!("a completion is the assistant's message, not one of '{}'", message.role);
    notes.problem(pointer, "misplaced_role", text);
    None
}

/// The text of a completion that is written as messages: exactly one, the assistant's.
pub(super) fn completion(messages: &[Message], pointer: &str, notes: &mut Notes) -> Option<String> {
    match messages {
        [message] => completion_of(message.clone(), &format!("{pointer}/0/role"), notes),
        [] => {
            notes.problem(pointer, "empty_completion", "the completion is empty: give one assistant message");
            None
        }
        several => {
            let text = format!(
                "a completion is one assistant message, found {}: move what both sides share to the prompt",
                several.len()
            );
            notes.problem(pointer, "too_many_messages", text);
            None
        }
    }
}

/// Enough of a foreign word to recognise it by.
fn shortened(word: &str) -> String {
    const MAX_CHARS: usize = 40;
    match word.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &word[..end]),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn codes(roles: &[&str]) -> Vec<String> {
        let messages: Vec<_> =
            roles.iter().map(|role| Message { role: (*role).to_owned(), content: "x".to_owned() }).collect();
        let mut notes = Notes::new(1);
        check_prompt(&messages, "/prompt", &mut notes);
        notes.problems.into_iter().map(|p| format!("{} {}", p.pointer.unwrap_or_default(), p.code)).collect()
    }

    #[test]
    fn conversations_alternate_after_an_opening() {
        assert!(codes(&["user"]).is_empty());
        assert!(codes(&["system", "user", "assistant", "user"]).is_empty());
        assert!(codes(&["system", "developer", "user", "assistant", "tool", "tool"]).is_empty());
        assert_eq!(codes(&[]), ["/prompt empty_prompt"]);
        assert_eq!(codes(&["system"]), ["/prompt no_user_message"]);
        assert_eq!(codes(&["user", "user"]), ["/prompt/1/role roles_do_not_alternate"]);
        assert_eq!(codes(&["user", "system", "user"]), ["/prompt/1/role misplaced_role"]);
        assert_eq!(codes(&["user", "assistant"]), ["/prompt/1/role assistant_is_last"]);
        assert_eq!(codes(&["tool"]), ["/prompt/0/role misplaced_role"]);
    }

    #[test]
    fn every_wrong_message_is_noted() {
        let mut notes = Notes::new(7);
        let list = json!([{"role": "user"}, 3, {"role": "robot", "content": "x"}, {"role": "user", "content": null}]);
        assert_eq!(parse(&list, "/prompt", &mut notes), None);
        let found: Vec<_> = notes.problems.iter().map(|p| (p.pointer.as_deref(), p.code.as_str())).collect();
        let expected = [
            (Some("/prompt/0/content"), "missing_field"),
            (Some("/prompt/1"), "wrong_type"),
            (Some("/prompt/2/role"), "unknown_role"),
            (Some("/prompt/3/content"), "wrong_type"),
        ];
        assert_eq!(found, expected);
    }
}
