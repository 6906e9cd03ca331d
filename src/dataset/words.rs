//! Where words begin and end.

/// Whether a character makes up words with its neighbours. Scripts that write without spaces can be cut anywhere.
pub(super) fn is_of_a_word(c: char) -> bool {
    const FIRST_OF_EAST_ASIAN_SCRIPTS: char = '\u{2E80}';
    c.is_alphanumeric() && c < FIRST_OF_EAST_ASIAN_SCRIPTS
}

/// A text cut into words, runs of white space, and all other characters one by one; nothing is lost.
pub(super) fn words(text: &str) -> Vec<&str> {
    #[derive(PartialEq, Clone, Copy)]
    enum Kind {
        Word,
        Space,
        Single,
    }
    let kind = |c: char| match c {
        c if c.is_whitespace() => Kind::Space,
        c if is_of_a_word(c) => Kind::Word,
        _ => Kind::Single,
    };
    let mut words = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let this = kind(c);
        let goes_on = this != Kind::Single && chars.peek().is_some_and(|(_, next)| kind(*next) == this);
        if !goes_on {
            let end = at + c.len_utf8();
            words.push(&text[start..end]);
            start = end;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_without_loss() {
        assert_eq!(words("Déjà vu!?\n 12"), ["Déjà", " ", "vu", "!", "?", "\n ", "12"]);
        assert_eq!(words("天空🙂"), ["天", "空", "🙂"]);
        assert_eq!(words(""), [""; 0]);
    }
}
