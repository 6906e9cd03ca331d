//! Names that people give to what they make: what is legal in one.

use crate::domain::Problems;

/// The longest name, in characters.
pub(super) const MAX_CHARS: usize = 128;

/// The name without spaces around it. A problem if it is empty or too long, or has characters that change how what stands around it is
/// shown.
pub(super) fn checked(name: &str, problems: &mut Problems) -> String {
    let name = name.trim();
    if !(1..=MAX_CHARS).contains(&name.chars().count()) {
        problems.at("/name", "out_of_range", format!("a name has 1 to {MAX_CHARS} characters"));
    } else if name.chars().any(|c| c.is_control() || turns_text(c)) {
        let message = "a name has no control characters and none that turn the direction of text: leave them out";
        problems.at("/name", "invalid_value", message);
    }
    name.to_owned()
}

/// Unicode's explicit directional marks, embeddings, overrides and isolates.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_it_looks_like() {
        for (name, is_legal) in [
            (" mine ", true),
            ("\u{645}\u{631}\u{62d}\u{628}\u{627}", true),
            ("", false),
            ("a\nb", false),
            ("a\u{1b}[31m", false),
            ("a\u{202e}b", false),
            (&"x".repeat(129), false),
        ] {
            let mut problems = Problems::default();
            assert_eq!(checked(name, &mut problems), name.trim());
            assert_eq!(problems.is_empty(), is_legal, "{name:?}");
        }
    }
}
