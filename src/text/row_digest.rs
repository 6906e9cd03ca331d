//! The name of what a reference is asked: one completion of one prompt.

use std::ops::Range;

use sha2::{Digest, Sha256};

/// How the tokens of a completion count in its log-probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenWeighting<'a> {
    /// The parts of the completion whose tokens count in full, in characters.
    pub spans: &'a [Range<usize>],
    /// The weight of the other tokens.
    pub outside_weight: f64,
}

/// Digest of one scored row, 64 hexadecimal digits. With a reference's digest it is the key its score is kept under, so it
/// covers all of the text the reference sees, and nothing that depends on a tokenizer.
///
/// `prompt` is the prompt as the reference's own codec renders it, `n_prompt_chars_kept` the cut made for
/// [`cut_prompt_to_chars`](super::cut_prompt_to_chars), `None` where the prompt is whole; `weighting` is `None` where every
/// token counts in full.
pub fn row_digest(
    prompt: &str,
    completion: &str,
    n_prompt_chars_kept: Option<usize>,
    weighting: Option<TokenWeighting<'_>>,
) -> String {
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
    // Nothing where there is none: rows had no weighting when the first scores were kept.
    if let Some(weighting) = weighting {
        hasher.update([1]);
        hasher.update((weighting.spans.len() as u64).to_le_bytes());
        for at in weighting.spans.iter().flat_map(|span| [span.start, span.end]) {
            hasher.update((at as u64).to_le_bytes());
        }
        hasher.update(weighting.outside_weight.to_le_bytes());
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

    fn weighted(spans: &[Range<usize>], outside_weight: f64) -> String {
        row_digest("ab", "c", None, Some(TokenWeighting { spans, outside_weight }))
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "lists of one span")]
    fn every_part_counts() {
        let rows = [
            row_digest("ab", "c", None, None),
            row_digest("a", "bc", None, None),
            row_digest("ab", "c", Some(0), None),
            row_digest("ab", "c", Some(1), None),
            row_digest("", "abc", None, None),
            weighted(&[], 0.0),
            weighted(&[], 0.5),
            weighted(&[0..1], 0.0),
            weighted(&[0..2], 0.0),
            weighted(&[0..1, 1..2], 0.0),
        ];
        let distinct: std::collections::BTreeSet<_> = rows.iter().collect();
        assert_eq!(distinct.len(), rows.len());
        assert!(rows.iter().all(|r| r.len() == 64));
    }

    /// Scores outlive the program: the digest of a row must never change by accident.
    #[test]
    fn the_digest_is_pinned() {
        assert_eq!(row_digest("prompt", "completion", Some(3), None), PINNED);
    }

    const PINNED: &str = "59e8ed1181e34fde144181e9de309c2ddf16286c0fd95362c45f8c44ef2f83b0";
}
