//! The configuration file: the flags of `mrpo serve` under their own names, as TOML.
//!
//! What is typed goes before the environment, that before the file, and that before the default. A file's entries become flags that
//! stand before what was typed, so that there is one list of names, one set of checks, and one place where a default is written.

use std::ffi::{OsStr, OsString};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Arg, ArgAction, Args, Command};
use toml::{Table, Value};

use super::ServeArgs;

/// The flag that names the file.
const FLAG: &str = "--config";
/// Names the file where no flag does.
const VARIABLE: &str = "MRPO_CONFIG";

/// What was typed, with what the file says in front of it.
///
/// # Errors
/// If the file cannot be read, or says what no flag does.
pub(crate) fn with_file(typed: Vec<OsString>, variable: impl Fn(&str) -> Option<OsString>) -> Result<Vec<OsString>> {
    let takes_a_file =
        typed.get(1).is_some_and(|command| ["serve", "config", "doctor"].iter().any(|takes| command == takes));
    let Some(path) = named(&typed).or_else(|| variable(VARIABLE)).filter(|_| takes_a_file) else { return Ok(typed) };
    let shown = path.to_string_lossy().into_owned();
    let text = fs_err::read_to_string(&path).context("the configuration file")?;
    let table: Table = text.parse().map_err(|e| anyhow!("the configuration file {shown}: {e}"))?;
    let flags = flags(&table, &typed, variable).with_context(|| format!("the configuration file {shown}"))?;
    // Behind the command's name: `mrpo serve FLAGS…`, `mrpo config check FLAGS…`.
    let n_words = if typed[1] == "config" { 3.min(typed.len()) } else { 2 };
    let mut all = typed;
    let rest = all.split_off(n_words);
    all.extend(flags);
    all.extend(rest);
    Ok(all)
}

/// The file that was named by the flag.
fn named(typed: &[OsString]) -> Option<OsString> {
    let mut words = typed.iter();
    while let Some(word) = words.next() {
        if word == FLAG {
            return words.next().cloned();
        }
        if let Some(path) = word.to_str().and_then(|word| word.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    None
}

fn flags(table: &Table, typed: &[OsString], variable: impl Fn(&str) -> Option<OsString>) -> Result<Vec<OsString>> {
    let command = ServeArgs::augment_args(Command::new("serve"));
    let names: Vec<&str> = command.get_arguments().filter_map(Arg::get_long).filter(|name| *name != "config").collect();
    let mut flags = Vec::new();
    for (name, value) in table {
        let arg = command.get_arguments().find(|arg| arg.get_long() == Some(name) && name != "config");
        let Some(arg) = arg else { bail!("there is no '{name}': expected one of {}", names.join(", ")) };
        let flag = format!("--{name}");
        let is_typed = typed
            .iter()
            .filter_map(|word| word.to_str())
            .any(|word| word.strip_prefix(flag.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')));
        let is_in_environment = arg.get_env().and_then(OsStr::to_str).is_some_and(|name| variable(name).is_some());
        if !is_typed && !is_in_environment {
            flags.extend(flag_of(&flag, arg, value)?);
        }
    }
    Ok(flags)
}

fn flag_of(flag: &str, arg: &Arg, value: &Value) -> Result<Vec<OsString>> {
    let takes_none = matches!(arg.get_action(), ArgAction::SetTrue);
    Ok(match value {
        Value::Boolean(is_on) if takes_none => is_on.then(|| flag.into()).into_iter().collect(),
        _ if takes_none => bail!("{flag} is true or false, not {}", a(value)),
        Value::Array(values) if matches!(arg.get_action(), ArgAction::Append) => {
            values.iter().map(|value| Ok(format!("{flag}={}", text(flag, value)?).into())).collect::<Result<_>>()?
        }
        value => vec![format!("{flag}={}", text(flag, value)?).into()],
    })
}

fn text(flag: &str, value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(is_on) => Ok(is_on.to_string()),
        other => bail!("{flag} is a text, a whole number, true or false, not {}", a(other)),
    }
}

/// A value's type, in words.
fn a(value: &Value) -> String {
    format!("a {}", value.type_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, typed: &[&str], environment: &[&str]) -> Result<String, String> {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("mrpo.toml");
        std::fs::write(&path, file).expect("written");
        let flag = format!("--config={}", path.display());
        let words = typed.iter().map(OsString::from).chain([flag.clone().into()]).collect();
        let variable = |name: &str| environment.contains(&name).then(|| OsString::from("x"));
        let all = with_file(words, variable).map_err(|e| format!("{e:#}"))?;
        let words: Vec<&str> = all.iter().filter_map(|word| word.to_str()).filter(|word| *word != flag).collect();
        Ok(words.join(" "))
    }

    #[test]
    fn what_a_file_says_stands_before_what_was_typed() {
        let file =
            "slots = 2\nlisten = \"127.0.0.1:9\"\nallow-remote = [\"a\", \"b:2\"]\nallow-unauthenticated = true\n";
        assert_eq!(
            read(file, &["mrpo", "serve", "--data-dir", "x"], &[]).as_deref(),
            Ok(
                "mrpo serve --allow-remote=a --allow-remote=b:2 --allow-unauthenticated --listen=127.0.0.1:9 --slots=2 \
                --data-dir x"
            )
        );
        assert_eq!(read("slots = 2", &["mrpo", "config", "check"], &[]).as_deref(), Ok("mrpo config check --slots=2"));
        // Another command has flags of its own.
        assert_eq!(read("slots = 2", &["mrpo", "models"], &[]).as_deref(), Ok("mrpo models"));
    }

    #[test]
    fn what_is_typed_or_in_the_environment_goes_before_the_file() {
        assert_eq!(read("slots = 2", &["mrpo", "serve", "--slots=3"], &[]).as_deref(), Ok("mrpo serve --slots=3"));
        assert_eq!(read("slots = 2", &["mrpo", "serve", "--slots", "3"], &[]).as_deref(), Ok("mrpo serve --slots 3"));
        assert_eq!(read("slots = 2", &["mrpo", "serve"], &["MRPO_SLOTS"]).as_deref(), Ok("mrpo serve"));
    }

    #[test]
    fn what_no_flag_says_is_refused_by_name() {
        let refused = |file: &str| read(file, &["mrpo", "serve"], &[]).expect_err("refused");
        let unknown = refused("slot = 2");
        assert!(unknown.contains("'slot'") && unknown.contains("slots") && unknown.contains("mrpo.toml"), "{unknown}");
        assert!(refused("slots = [1]").contains("--slots"), "{}", refused("slots = [1]"));
        assert!(refused("allow-unauthenticated = 1").contains("true or false"));
        assert!(refused("slots 2").contains("mrpo.toml"));
        assert!(refused("config = \"x\"").contains("'config'"));
    }
}
