//! The name of what a reference is asked: one completion of one prompt.

use sha2::{Digest, Sha256};

/// Digest of one scored row, 64 hexadecimal digits. With a reference's digest it is the key its score is kept under, so it
/// covers all of the text the reference sees, and nothing that depends on a tokenizer.
///
/// `prompt` is the prompt as the reference's own codec renders it, `n_prompt_chars_kept` the cut made for
/// [`cut_prompt_to_chars`](super::cut_prompt_to_chars), `None` where the prompt is whole.
pub fn row_digest(prompt: &str, completion: &str, n_prompt_chars_kept: Option<usize>) -> String {
    let mut hasher = Sha256::new();
    // Raise the number when the meaning of the text changes: old scores must then not be found.
    hasher.update(b"mrpo row 1\0");
    // Lengths before texts: no two rows write the same bytes.
    for text in [prompt, completion] {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    match n_prompt_chars_kept {
        None => hasher.update([0]),
        Some(n) => {
            hasher.update([1]);
            hasher.update((n as u64).to_le_bytes());
        }
    }
    hex(&hasher.finalize())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts() {
        let rows = [
            row_digest("ab", "c", None),
            row_digest("a", "bc", None),
            row_digest("ab", "c", Some(0)),
            row_digest("ab", "c", Some(1)),
            row_digest("", "abc", None),
        ];
        let distinct: std::collections::BTreeSet<_> = rows.iter().collect();
        assert_eq!(distinct.len(), rows.len());
        assert!(rows.iter().all(|r| r.len() == 64));
    }

    /// Scores outlive the program: the digest of a row must never change by accident.
    #[test]
    fn the_digest_is_pinned() {
        assert_eq!(row_digest("prompt", "completion", Some(3)), PINNED);
    }

    const PINNED: &str = "59e8ed1181e34fde144181e9de309c2ddf16286c0fd95362c45f8c44ef2f83b0";
}
