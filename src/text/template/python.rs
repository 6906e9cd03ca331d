//! What templates take for granted because their Jinja is Python's: tests of a value's type, and methods of texts.

use minijinja::{
    Environment, Error, ErrorKind, State, Value,
    value::{ValueKind, from_args},
};
use minijinja_contrib::pycompat;

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(method);
    // Templates ask `tools is iterable` before they take its length: None is neither in Python.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_test("sequence", |value: &Value| {
        let kind = value.kind();
        matches!(kind, ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map)
    });
}

/// A method that a value does not have by itself.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match value.as_str().map(|text| text_method(text, name, args)) {
        Some(Err(e)) if e.kind() != ErrorKind::UnknownMethod => Err(e),
        Some(Ok(result)) => Ok(result),
        _ => pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// Methods of Python's `str` that pycompat lacks.
fn text_method(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let three = |a: &str, b: &str, c: &str| Value::from([a, b, c].map(Value::from).to_vec());
    match name {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(text.strip_prefix(prefix).unwrap_or(text).into())
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(text.strip_suffix(suffix).unwrap_or(text).into())
        }
        "partition" => {
            let (at,): (&str,) = from_args(args)?;
            Ok(text.split_once(at).map_or_else(|| three(text, "", ""), |(a, b)| three(a, at, b)))
        }
        "rpartition" => {
            let (at,): (&str,) = from_args(args)?;
            Ok(text.rsplit_once(at).map_or_else(|| three("", "", text), |(a, b)| three(a, at, b)))
        }
        "rsplit" => {
            let (at, n_cuts): (&str, Option<i64>) = from_args(args)?;
            // Below zero there is no limit, as in Python.
            let n_cuts = n_cuts.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX - 1);
            let mut parts: Vec<Value> = text.rsplitn(n_cuts + 1, at).map(Value::from).collect();
            parts.reverse();
            Ok(parts.into())
        }
        "index" => {
            let (part,): (&str,) = from_args(args)?;
            let at = text.find(part).map(|at| text[..at].chars().count());
            at.map(Value::from).ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "substring not found"))
        }
        "isdigit" => {
            let () = from_args(args)?;
            Ok((!text.is_empty() && text.chars().all(|c| c.is_ascii_digit())).into())
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

#[cfg(test)]
mod tests {
    use minijinja::{Environment, context};

    fn value_of(expression: &str) -> String {
        let mut environment = Environment::new();
        super::add_to(&mut environment);
        environment.render_str(&format!("{{{{ {expression} }}}}"), context! {}).unwrap()
    }

    #[test]
    fn types_are_those_of_python() {
        for (expression, expected) in [
            ("none is iterable", "False"),
            ("[] is iterable", "True"),
            ("absent is iterable", "True"),
            ("'a' is iterable", "True"),
            ("1 is iterable", "False"),
            ("none is sequence", "False"),
            ("'a' is sequence", "True"),
            ("{} is sequence", "True"),
        ] {
            assert_eq!(value_of(expression), expected, "{expression}");
        }
    }

    #[test]
    fn texts_have_the_methods_of_python() {
        for (expression, expected) in [
            ("'<x>a'.removeprefix('<x>') ~ 'a.'.removesuffix('.')", "aa"),
            ("'a-b-c'.partition('-') | list", "['a', '-', 'b-c']"),
            ("'abc'.partition('-') | list", "['abc', '', '']"),
            ("'a-b-c'.rpartition('-') | list", "['a-b', '-', 'c']"),
            ("'a-b-c'.rsplit('-', 1)", "['a-b', 'c']"),
            ("'a-b-c'.rsplit('-')", "['a', 'b', 'c']"),
            ("'äb'.index('b')", "1"),
            ("'12'.isdigit()", "True"),
            ("' a '.strip()", "a"),
        ] {
            assert_eq!(value_of(expression), expected, "{expression}");
        }
    }
}
