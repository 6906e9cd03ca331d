//! Chat templates: Jinja as `transformers` runs it (`ImmutableSandboxedEnvironment`, `trim_blocks`, `lstrip_blocks`).

use minijinja::{Environment, Error, ErrorKind, Value, context, syntax::SyntaxConfig, value::Kwargs};
use serde::Serialize;

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
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", python_json);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", strftime_fixed);
        environment
            .add_template_owned(Self::NAME, source.to_owned())
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

/// `tojson` as transformers defines it: Python's `json.dumps(x, ensure_ascii=False, indent=...)`, nothing escaped for HTML.
#[expect(clippy::needless_pass_by_value, reason = "the signature a filter has")]
fn python_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let failed = |e: serde_json::Error| Error::new(ErrorKind::BadSerialization, e.to_string());
    let mut text = Vec::new();
    match indent {
        Some(n) => {
            let spaces = " ".repeat(n.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter)).map_err(failed)?;
        }
        None => {
            value
                .serialize(&mut serde_json::Serializer::with_formatter(&mut text, PythonSeparators))
                .map_err(failed)?;
        }
    }
    options.assert_all_used()?;
    let text = String::from_utf8(text).expect("serde_json writes UTF-8");
    Ok(Value::from_safe_string(text))
}

/// JSON with `", "` and `": "`, as Python writes it on one line.
struct PythonSeparators;

impl serde_json::ser::Formatter for PythonSeparators {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

/// `strftime_now`, with time standing still at Friday, 26 July 2024, 00:00.
///
/// A template that writes today's date would give a resumed run, and a reference scored yesterday, another text.
/// The date is the one Llama 3's templates fall back to where there is no clock.
#[expect(clippy::needless_pass_by_value, reason = "the signature a template function has")]
fn strftime_fixed(format: String) -> Result<String, Error> {
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        text.push_str(match chars.next() {
            Some('d' | 'e') => "26",
            Some('m') => "07",
            Some('b' | 'h') => "Jul",
            Some('B') => "July",
            Some('Y') => "2024",
            Some('y') => "24",
            Some('a') => "Fri",
            Some('A') => "Friday",
            Some('j') => "208",
            Some('H' | 'M' | 'S') => "00",
            Some('I') => "12",
            Some('p') => "AM",
            Some('F') => "2024-07-26",
            Some('T') => "00:00:00",
            Some('%') => "%",
            other => {
                let name = other.map(String::from).unwrap_or_default();
                return Err(Error::new(ErrorKind::InvalidOperation, format!("strftime_now does not know %{name}")));
            }
        });
    }
    Ok(text)
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
    fn json_is_written_as_python_writes_it() {
        let text = render("{{ messages | tojson }}", &[message("user", "é <b>")]).unwrap();
        assert_eq!(text, r#"[{"role": "user", "content": "é <b>"}]"#);
        let text = render("{{ [1] | tojson(indent=2) }}", &[]).unwrap();
        assert_eq!(text, "[\n  1\n]");
    }

    #[test]
    fn the_date_stands_still() {
        assert_eq!(render("{{ strftime_now('%d %b %Y') }}", &[]).unwrap(), "26 Jul 2024");
        assert!(render("{{ strftime_now('%Q') }}", &[]).is_err());
    }

    #[test]
    fn a_template_that_does_not_compile_is_refused() {
        assert!(matches!(render("{% if %}", &[]), Err(TextError::Unsupported(_))));
    }
}
