//! Chat templates: Jinja as `transformers` runs it (`ImmutableSandboxedEnvironment`, `trim_blocks`, `lstrip_blocks`).

mod clock;
mod generation;
mod json;
#[cfg(test)]
mod parity;
mod python;

use minijinja::{Environment, Error, ErrorKind, Value, context, syntax::SyntaxConfig};

use super::{error::TextError, parts::SpecialToken};
use crate::dataset::Message;

/// A compiled chat template.
#[derive(Debug)]
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

impl ChatTemplate {
    const NAME: &'static str = "chat_template";

    /// Compiles `source`.
    pub(super) fn new(source: &str, bos: Option<&SpecialToken>, eos: Option<&SpecialToken>) -> Result<Self, TextError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the default delimiters are valid"));
        python::add_to(&mut environment);
        environment.add_filter("tojson", json::tojson);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", clock::strftime_now);
        environment
            .add_template_owned(Self::NAME, generation::as_scopes(source))
            .map_err(|e| TextError::Unsupported(format!("the chat template does not compile: {e}")))?;
        Ok(Self {
            environment,
            source: source.to_owned(),
            bos_token: bos.map(|t| t.text.clone()),
            eos_token: eos.map(|t| t.text.clone()),
        })
    }

    /// The template's text.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation; with `add_generation_prompt`, up to where the assistant begins to speak.
    pub(super) fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TextError> {
        let messages: Vec<Value> =
            messages.iter().map(|m| context! { role => m.role.as_str(), content => m.content.as_str() }).collect();
        // `tools` and `documents` are given as None, as transformers does: templates ask `tools is not none`, and an
        // undefined name would pass that test.
        let context = context! {
            messages,
            add_generation_prompt,
            tools => Value::from(()),
            documents => Value::from(()),
            bos_token => self.bos_token.as_deref().unwrap_or(""),
            eos_token => self.eos_token.as_deref().unwrap_or(""),
        };
        let template = self.environment.get_template(Self::NAME).map_err(|e| TextError::Template(e.to_string()))?;
        template
            .render(context)
            .map_err(|e| TextError::Template(e.detail().map_or_else(|| e.to_string(), str::to_owned)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: &str, content: &str) -> Message {
        Message { role: role.into(), content: content.into() }
    }

    fn render(source: &str, messages: &[Message]) -> Result<String, TextError> {
        let bos = SpecialToken { text: "<s>".into(), id: 1 };
        ChatTemplate::new(source, Some(&bos), None)?.render(messages, true)
    }

    #[test]
    fn blocks_leave_no_white_space_behind() {
        let source = "{{ bos_token }}\n{% for m in messages %}\n    {% if m.role == 'user' %}\n[{{ m['content'].strip() }}]\n    {% endif %}\n{% endfor %}\n";
        let text = render(source, &[message("user", " a "), message("assistant", "b")]).unwrap();
        assert_eq!(text, "<s>\n[a]\n");
    }

    #[test]
    fn absent_tools_are_none() {
        let source = "{% if tools is not none %}tools{% else %}none{% endif %}";
        assert_eq!(render(source, &[]).unwrap(), "none");
    }

    #[test]
    fn a_template_that_refuses_says_why() {
        let error = render("{{ raise_exception('roles must alternate') }}", &[]).unwrap_err();
        assert!(error.to_string().contains("roles must alternate"), "{error}");
    }

    #[test]
    fn what_the_assistant_says_may_be_marked() {
        let source = "{% for m in messages %}\n{%- generation -%}\n {{ m.content }}{% set seen = true %}\n\
                      {%- endgeneration %}{% endfor %}{{ seen is defined }}";
        assert_eq!(render(source, &[message("assistant", "a"), message("assistant", "b")]).unwrap(), "abFalse");
    }

    #[test]
    fn a_message_that_is_not_there_is_an_error_in_words() {
        let error = render("{{ messages[3].role }}", &[]).unwrap_err().to_string();
        assert!(error.contains("undefined"), "{error}");
        let error = render("{{ 'a' | nofilter }}", &[]).unwrap_err().to_string();
        assert!(error.contains("nofilter"), "{error}");
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let text = render("{{ messages | tojson }}", &[message("user", "é <b>")]).unwrap();
        assert_eq!(text, r#"[{"role": "user", "content": "é <b>"}]"#);
        let text = render("{{ [1, {}, {'a': []}] | tojson(indent=2) }}", &[]).unwrap();
        assert_eq!(text, "[\n  1,\n  {},\n  {\n    \"a\": []\n  }\n]");
        let text = render("{{ {'a': ['é🙂', 1]} | tojson(ensure_ascii=true, separators=(',', ':')) }}", &[]).unwrap();
        assert_eq!(text, r#"{"a":["\u00e9\ud83d\ude42",1]}"#);
        let text = render("{{ {'b': 1, 'a': {'d': 1, 'c': 2}} | tojson(sort_keys=true) }}", &[]).unwrap();
        assert_eq!(text, r#"{"a": {"c": 2, "d": 1}, "b": 1}"#);
    }

    #[test]
    fn the_date_stands_still() {
        assert_eq!(render("{{ strftime_now('%d %b %Y') }}", &[]).unwrap(), "26 Jul 2024");
        assert_eq!(render("{{ strftime_now('%-d/%-m/%y %-I %p') }}", &[]).unwrap(), "26/7/24 12 AM");
        assert!(render("{{ strftime_now('%Q') }}", &[]).is_err());
    }

    #[test]
    fn a_template_that_does_not_compile_is_refused() {
        assert!(matches!(render("{% if %}", &[]), Err(TextError::Unsupported(_))));
    }
}
