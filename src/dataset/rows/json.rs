//! One row written as JSON.

use super::{Content, MAX_ROW_BYTES, Wrong};

/// What a row's bytes say; `None` where there were too many of them.
pub(in crate::dataset) fn parse(bytes: Option<&[u8]>) -> Content {
    let Some(bytes) = bytes else {
        let message =
            format!("the row is longer than {} MiB: write one pair per row, and shorter", MAX_ROW_BYTES >> 20);
        return Wrong::new("line_too_long", message).into();
    };
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => {
            let message = format!("not UTF-8 from byte {} of the row on: save the file as UTF-8", e.valid_up_to() + 1);
            return Wrong::new("invalid_utf8", message).into();
        }
    };
    match serde_json::from_str(text) {
        Ok(value) => Content::Value(value),
        Err(e) => {
            // serde_json counts lines within what it was given: in a list an item may have several.
            let cause = e.to_string();
            let cause = cause.split(" at line ").next().unwrap_or(&cause);
            let line = if e.line() > 1 { format!("line {} of the row, ", e.line()) } else { String::new() };
            let mut message = format!("broken JSON at {line}column {}: {cause}", e.column());
            if e.is_eof() {
                message += "; a pair stands on one line, whole";
            }
            Wrong::new("invalid_json", message).into()
        }
    }
}
