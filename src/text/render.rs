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
    fn messages_without_a_template_are_blocks() {
        let messages = Prompt::Messages(vec![message("system", "Be kind."), message("user", "Hi")]);
        assert_eq!(prompt(None, &messages).unwrap(), "system:\nBe kind.\n\nuser:\nHi\n\nassistant:\n");
        assert_eq!(prompt(None, &Prompt::Text(" as is ".into())).unwrap(), " as is ");
    }
}
