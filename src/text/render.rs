//! Prompts as text: through the model's chat template, or in the plain format of models without one.

use super::{error::TextError, template::ChatTemplate};
use crate::dataset::{Message, Prompt};

/// The prompt in the plain format of models without a template.
pub fn plain_prompt(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Messages(messages) => plain(messages),
    }
}

/// The prompt up to where the assistant begins to speak; see [`super::Codec::render_prompt`].
pub(super) fn prompt(template: Option<&ChatTemplate>, prompt: &Prompt) -> Result<String, TextError> {
    match (template, prompt) {
        (Some(template), Prompt::Text(text)) => template.render(&[message("user", text)], true),
        (Some(template), Prompt::Messages(messages)) => template.render(messages, true),
        (None, prompt) => Ok(plain_prompt(prompt)),
    }
}

/// One question and its answer, complete.
pub(super) fn exchange(template: &ChatTemplate, question: &str, answer: &str) -> Result<String, TextError> {
    template.render(&[message("user", question), message("assistant", answer)], false)
}

/// Whether the template takes anything at all; see [`super::Codec::check_template`].
pub(super) fn check(template: &ChatTemplate) -> Result<(), TextError> {
    let (question, answer) = (message("user", "Hello?"), message("assistant", "Hello!"));
    let Err(error) = template.render(std::slice::from_ref(&question), true) else { return Ok(()) };
    let others = [vec![message("system", "Be kind."), question.clone()], vec![question.clone(), answer, question]];
    if others.iter().any(|messages| template.render(messages, true).is_ok()) { Ok(()) } else { Err(error) }
}

/// Line ends around every message, so that neither a role nor a completion is glued to other text.
fn plain(messages: &[Message]) -> String {
    let mut text = String::new();
    for message in messages {
        text.push_str(&message.role);
        text.push_str(":\n");
        text.push_str(&message.content);
        text.push_str("\n\n");
    }
    text.push_str("assistant:\n");
    text
}

fn message(role: &str, content: &str) -> Message {
    Message { role: role.to_owned(), content: content.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_refused_only_if_it_refuses_everything() {
        let check = |source: &str| check(&ChatTemplate::new(source, None, None).unwrap());
        assert!(check("{{ messages[0].content }}").is_ok());
        assert!(check("{% if messages|length == 1 %}{{ raise_exception('too short') }}{% endif %}").is_ok());
        let system_first = "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}";
        assert!(check(system_first).is_ok());
        let error = check("{{ raise_exception('never') }}").unwrap_err().to_string();
        assert!(error.contains("never"), "{error}");
    }

    #[test]
    fn messages_without_a_template_are_blocks() {
        let messages = Prompt::Messages(vec![message("system", "Be kind."), message("user", "Hi")]);
        assert_eq!(prompt(None, &messages).unwrap(), "system:\nBe kind.\n\nuser:\nHi\n\nassistant:\n");
        assert_eq!(prompt(None, &Prompt::Text(" as is ".into())).unwrap(), " as is ");
    }
}
