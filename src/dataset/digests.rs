//! What a pair is recognised by, and the pairs of a file seen so far, in bounded memory.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};

use super::{PreferencePair, Prompt};

/// How many distinct pairs are remembered: as many as tables of 2^19 places hold, which are 18 MB. Pairs after them are compared
/// with these only.
pub(super) const MAX_REMEMBERED: usize = (1 << 19) / 8 * 7;

/// A quarter of a SHA-256: half a million texts share one with a probability of 2^-26. It decides on warnings and counts only.
pub(super) type Fingerprint = [u8; 8];

/// The fingerprints of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PairDigest {
    /// Of the prompt.
    pub(super) prompt: Fingerprint,
    /// Of prompt, chosen and rejected.
    pub(super) pair: Fingerprint,
    /// Of the same with the sides swapped.
    pub(super) swapped: Fingerprint,
    /// Of all that is read of the row.
    pub(super) row: Fingerprint,
}

impl PairDigest {
    pub(super) fn of(pair: &PreferencePair) -> Self {
        let prompt = match &pair.prompt {
            // A chat template makes one message of the user of it: in another format it may stand as that.
            Prompt::Text(text) => digest(["user", text.as_str()]),
            Prompt::Messages(messages) => digest(messages.iter().flat_map(|m| [m.role.as_str(), m.content.as_str()])),
        };
        let [chosen, rejected] = [&pair.chosen, &pair.rejected].map(|text| digest([text.as_str()]));
        let extra = serde_json::to_vec(&pair.extra).expect("texts and finite numbers");
        let in_order = digest([prompt, chosen, rejected]);
        let (swapped, row) = (digest([prompt, rejected, chosen]), digest([in_order.as_slice(), extra.as_slice()]));
        Self { prompt, pair: in_order, swapped, row }
    }
}

/// Every part goes in after its length, so that no two lists of parts give the same bytes.
fn digest(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Fingerprint {
    let mut hash = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    *hash.finalize().first_chunk().expect("a digest of 32 bytes")
}

/// Where each text stood first; 13 bytes a place of the table.
#[derive(Debug, Default)]
pub(super) struct FirstLines(HashMap<Fingerprint, u32>);

impl FirstLines {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, text: Fingerprint) -> Option<u64> {
        self.0.get(&text).copied().map(u64::from)
    }

    /// Remembers a text that is not known; none beyond line 2^32.
    pub(super) fn note(&mut self, text: Fingerprint, line: u64) {
        if let Ok(line) = u32::try_from(line) {
            self.0.entry(text).or_insert(line);
        }
    }
}

/// The pairs seen so far.
#[derive(Debug)]
pub(super) struct Seen {
    rows: FirstLines,
    pairs: FirstLines,
    prompts: HashSet<Fingerprint>,
    max_remembered: usize,
}

/// What a pair repeats: where that stood first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Repeats {
    /// All that is read of the row.
    pub(super) row: Option<u64>,
    /// The prompt and the sides, the other way round.
    pub(super) swapped: Option<u64>,
    /// The prompt.
    pub(super) has_prompt: bool,
}

impl Seen {
    pub(super) fn new(max_remembered: usize) -> Self {
        let (rows, pairs) = (FirstLines::default(), FirstLines::default());
        Self { rows, pairs, prompts: HashSet::new(), max_remembered }
    }

    /// How many distinct rows are remembered.
    pub(super) fn n_remembered(&self) -> u64 {
        self.rows.len() as u64
    }

    /// What the pair repeats, and remembers it.
    pub(super) fn note(&mut self, pair: &PreferencePair) -> Repeats {
        let digest = PairDigest::of(pair);
        let repeats = Repeats {
            row: self.rows.get(digest.row),
            swapped: self.pairs.get(digest.swapped),
            has_prompt: self.prompts.contains(&digest.prompt),
        };
        if repeats.row.is_none() && self.rows.len() < self.max_remembered {
            self.rows.note(digest.row, pair.line);
            self.pairs.note(digest.pair, pair.line);
            self.prompts.insert(digest.prompt);
        }
        repeats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{ExtraFields, Message};

    fn pair(line: u64, prompt: &str, [chosen, rejected]: [&str; 2]) -> PreferencePair {
        PreferencePair {
            line,
            prompt: Prompt::Text(prompt.into()),
            chosen: chosen.into(),
            rejected: rejected.into(),
            extra: ExtraFields::default(),
        }
    }

    #[test]
    fn a_pair_is_known_by_its_first_line_until_memory_is_full() {
        let mut seen = Seen::new(2);
        let found = [(1, "a"), (2, "b"), (3, "a"), (4, "c"), (5, "c"), (6, "b")]
            .map(|(line, prompt)| seen.note(&pair(line, prompt, ["c", "r"])).row);
        assert_eq!(found, [None, None, Some(1), None, None, Some(2)]);
        assert_eq!(seen.n_remembered(), 2);
    }

    #[test]
    fn pairs_whose_extra_fields_differ_are_two() {
        let mut seen = Seen::new(10);
        let mut about = |line, dimension: Option<&str>| {
            let mut pair = pair(line, "a", ["c", "r"]);
            pair.extra.dimension = dimension.map(str::to_owned);
            seen.note(&pair).row
        };
        let found = [about(1, None), about(2, Some("safe")), about(3, Some("kind")), about(4, Some("safe"))];
        assert_eq!(found, [None, None, None, Some(2)]);
    }

    #[test]
    fn swapped_sides_and_prompts_are_recognised() {
        let mut seen = Seen::new(10);
        assert_eq!(seen.note(&pair(1, "a", ["c", "r"])), Repeats::default());
        let swapped = Repeats { row: None, swapped: Some(1), has_prompt: true };
        assert_eq!(seen.note(&pair(2, "a", ["r", "c"])), swapped);
        assert_eq!(seen.note(&pair(3, "b", ["r", "c"])), Repeats::default());
        assert_eq!(seen.note(&pair(4, "a", ["r", "d"])), Repeats { has_prompt: true, ..Repeats::default() });
    }

    #[test]
    fn a_text_is_a_conversation_of_one_message() {
        let text = pair(1, "a", ["c", "r"]);
        let message = Message { role: "user".into(), content: "a".into() };
        let conversation = PreferencePair { prompt: Prompt::Messages(vec![message]), ..text.clone() };
        assert_eq!(PairDigest::of(&text), PairDigest::of(&conversation));
    }
}
