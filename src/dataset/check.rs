//! Reading a whole file: every problem for the service, or the pairs for a run.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, BufRead, BufReader},
    path::Path,
};

use serde_json::Value;

use super::{
    PreferencePair, Prompt,
    fields::{Notes, format_name},
    formats,
    lines::{Lines, MAX_LINE_BYTES},
};
use crate::domain::{DatasetFormat, DatasetReport};

/// Pairs remembered to find repeated ones: 16 bytes each.
const MAX_REMEMBERED: usize = 1 << 20;

/// Why a file cannot be read as pairs.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file itself.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A line of it.
    #[error("line {line}: {message}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong and the way out.
        message: String,
    },
}

/// Checks every line and lists everything that is wrong.
///
/// # Errors
/// If the file cannot be read; bad content is no error but a report.
pub fn check(reader: impl BufRead, format: Option<DatasetFormat>) -> io::Result<DatasetReport> {
    let mut report = DatasetReport { format, ..DatasetReport::default() };
    let mut seen: HashMap<u64, u64> = HashMap::new();
    visit(reader, format, |notes, pair, found| {
        report.format = report.format.or(found);
        let mut notes = notes;
        if let Some(pair) = pair {
            report.n_pairs += 1;
            let digest = digest(&pair);
            if let Some(first) = seen.get(&digest) {
                notes.warning("", "duplicate_pair", format!("the same pair stands in line {first}"));
            } else if seen.len() < MAX_REMEMBERED {
                seen.insert(digest, pair.line);
            }
        }
        notes.problems.into_iter().for_each(|p| report.problems.push(p));
        notes.warnings.into_iter().for_each(|p| report.warnings.push(p));
        true
    })?;
    if report.n_pairs == 0 && report.problems.is_empty() {
        let mut notes = Notes::new(1);
        notes.problem("", "empty_file", "the file is empty: give one preference pair per line");
        notes.problems.into_iter().for_each(|p| report.problems.push(p));
    }
    Ok(report)
}

/// Reads every pair; the first problem is an error.
///
/// # Errors
/// If the file cannot be read, or a line is no preference pair.
pub fn read_pairs(path: &Path, format: Option<DatasetFormat>) -> Result<Vec<PreferencePair>, DatasetError> {
    let (mut pairs, mut failure) = (Vec::new(), None);
    visit(BufReader::new(fs_err::File::open(path)?), format, |notes, pair, _| {
        if let Some(problem) = notes.problems.into_iter().next() {
            failure = Some(DatasetError::Line { line: problem.line.unwrap_or(0), message: problem.message });
        }
        pairs.extend(pair);
        failure.is_none()
    })?;
    match failure {
        Some(failure) => Err(failure),
        None => Ok(pairs),
    }
}

/// Calls `each` for every line with what was noted and the pair, if it is one; until it says to stop.
fn visit(
    reader: impl BufRead,
    mut format: Option<DatasetFormat>,
    mut each: impl FnMut(Notes, Option<PreferencePair>, Option<DatasetFormat>) -> bool,
) -> io::Result<()> {
    let mut lines = Lines::new(reader);
    // Empty lines matter only when something follows them.
    let mut blank = None;
    while let Some(line) = lines.read()? {
        if line.content.is_some_and(|c| c.iter().all(u8::is_ascii_whitespace)) {
            blank = blank.or(Some(line.number));
            continue;
        }
        let mut notes = Notes::new(blank.unwrap_or(line.number));
        if blank.take().is_some() {
            notes.problem("", "blank_line", "the line is empty: remove it");
            if !each(notes, None, format) {
                return Ok(());
            }
            notes = Notes::new(line.number);
        }
        let pair = read_line(line.number, line.content, &mut format, &mut notes);
        let pair = pair.filter(|_| notes.problems.is_empty());
        if !each(notes, pair, format) {
            return Ok(());
        }
    }
    Ok(())
}

fn read_line(
    line: u64,
    content: Option<&[u8]>,
    format: &mut Option<DatasetFormat>,
    notes: &mut Notes,
) -> Option<PreferencePair> {
    let Some(content) = content else {
        notes.problem("", "line_too_long", format!("the line is longer than {MAX_LINE_BYTES} bytes"));
        return None;
    };
    let Ok(text) = std::str::from_utf8(content) else {
        notes.problem("", "invalid_utf8", "the line is not UTF-8: save the file as UTF-8");
        return None;
    };
    let row = match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(row)) => row,
        Ok(other) => {
            notes.wrong_type(&other, "", "an object with a prompt and two completions");
            return None;
        }
        Err(e) => {
            notes.problem("", "invalid_json", format!("the line is not JSON: {e}"));
            return None;
        }
    };
    let detected = formats::detect(&row);
    let Some(expected) = (*format).or(detected) else {
        let message = "the line is in no known format: give prompt, chosen and rejected (or input, preferred_output and non_preferred_output)";
        notes.problem("", "unknown_format", message);
        return None;
    };
    *format = Some(expected);
    if let Some(detected) = detected.filter(|d| *d != expected && !compatible(expected, *d)) {
        let message = format!(
            "the line is in the format {}, those before it in {}: use one format in a file",
            format_name(detected),
            format_name(expected)
        );
        notes.problem("", "mixed_formats", message);
        return None;
    }
    let (prompt, chosen, rejected) = formats::read(&row, expected, notes)?;
    Some(PreferencePair { line, prompt, chosen, rejected })
}

/// A row with a text prompt reads in the conversational format too; and HH texts are texts.
fn compatible(expected: DatasetFormat, found: DatasetFormat) -> bool {
    use DatasetFormat::{AnthropicHh, TrlStandardImplicit};
    matches!((expected, found), (TrlStandardImplicit, AnthropicHh) | (AnthropicHh, TrlStandardImplicit))
}

fn digest(pair: &PreferencePair) -> u64 {
    let mut hasher = DefaultHasher::new();
    match &pair.prompt {
        Prompt::Text(text) => text.hash(&mut hasher),
        Prompt::Messages(list) => list.hash(&mut hasher),
    }
    (&pair.chosen, &pair.rejected).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report(text: &str) -> DatasetReport {
        check(text.as_bytes(), None).expect("a slice is readable")
    }

    fn codes(text: &str) -> Vec<(u64, String)> {
        report(text).problems.first.into_iter().map(|p| (p.line.expect("lined"), p.code)).collect()
    }

    #[test]
    fn every_format_is_told_and_read() {
        use DatasetFormat as F;
        let rows = [
            (F::TrlStandard, r#"{"prompt":"p","chosen":"c","rejected":"r"}"#),
            (F::TrlStandardImplicit, r#"{"chosen":"the sky is blue","rejected":"the sky is red"}"#),
            (
                F::TrlConversational,
                r#"{"prompt":[{"role":"user","content":"p"}],"chosen":[{"role":"assistant","content":"c"}],"rejected":"r"}"#,
            ),
            (
                F::TrlConversationalImplicit,
                r#"{"chosen":[{"role":"user","content":"p"},{"role":"assistant","content":"c"}],"rejected":[{"role":"user","content":"p"},{"role":"assistant","content":"r"}]}"#,
            ),
            (F::AnthropicHh, r#"{"chosen":"\n\nHuman: p\n\nAssistant: c","rejected":"\n\nHuman: p\n\nAssistant: r"}"#),
            (
                F::OpenaiPreference,
                r#"{"input":{"messages":[{"role":"user","content":"p"}]},"preferred_output":[{"role":"assistant","content":"c"}],"non_preferred_output":[{"role":"assistant","content":"r"}]}"#,
            ),
        ];
        for (format, row) in rows {
            let report = report(row);
            assert_eq!((report.format, report.n_pairs), (Some(format), 1), "{row}: {:?}", report.problems);
        }
    }

    #[test]
    fn every_bad_line_is_named() {
        let text = concat!(
            "{\"prompt\":\"p\",\"chosen\":\"c\",\"rejected\":\"r\"}\n",
            "{\"prompt\":\n",
            "{\"prompt\":\"p\",\"chosen\":\" \",\"rejected\":\"r\"}\n",
            "{\"prompt\":\"p\",\"chosen\":\"c\",\"rejected\":\"c\"}\n",
            "{\"prompt\":\"p\",\"chosen\":3,\"rejected\":\"r\"}\n",
            "[]\n\n"
        );
        let expected = [
            (2, "invalid_json"),
            (3, "empty_completion"),
            (4, "identical_sides"),
            (5, "wrong_type"),
            (6, "wrong_type"),
        ];
        assert_eq!(codes(text), expected.map(|(l, c)| (l, c.to_owned())));
        assert_eq!(codes(""), [(1, "empty_file".to_owned())]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = check(bytes.as_slice(), None);
        }
    }
}
