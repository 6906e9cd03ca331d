//! The date that templates write.

use minijinja::{Error, ErrorKind};

/// `strftime_now`, with time standing still at Friday, 26 July 2024, 00:00.
///
/// A template that writes today's date would give a resumed run, and a reference scored yesterday, another text.
/// The date is the one Llama 3's templates fall back to where there is no clock.
#[expect(clippy::needless_pass_by_value, reason = "the signature a template function has")]
pub(super) fn strftime_now(format: String) -> Result<String, Error> {
    let mut text = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        // `%-m`: without a zero in front.
        let is_bare = chars.next_if_eq(&'-').is_some();
        let field = match chars.next() {
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
        };
        text.push_str(if is_bare && field.len() == 2 { field.strip_prefix('0').unwrap_or(field) } else { field });
    }
    Ok(text)
}
