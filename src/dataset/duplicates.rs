//! Finds pairs that stand in a file twice, in bounded memory.

use std::collections::{HashMap, hash_map::Entry};

use sha2::{Digest, Sha256};

use super::{PreferencePair, Prompt};

/// How many distinct pairs are remembered: about 30 MB. Pairs after them are compared with these only.
pub(super) const MAX_REMEMBERED: usize = 1 << 19;

/// Half a SHA-256: two different pairs share one with a probability below 2^-80 even in the largest file.
type Fingerprint = [u8; 16];

/// The pairs seen so far.
#[derive(Debug)]
pub(super) struct Duplicates {
    seen: HashMap<Fingerprint, u64>,
    max_remembered: usize,
}

impl Duplicates {
    pub(super) fn new(max_remembered: usize) -> Self {
        Self { seen: HashMap::new(), max_remembered }
    }

    /// The line where the same prompt, completions and extra fields stood first, if they did.
    pub(super) fn first_line(&mut self, pair: &PreferencePair) -> Option<u64> {
        let is_full = self.seen.len() >= self.max_remembered;
        match self.seen.entry(fingerprint(pair)) {
            Entry::Occupied(first) => Some(*first.get()),
            Entry::Vacant(free) => {
                if !is_full {
                    free.insert(pair.line);
                }
                None
            }
        }
    }
}

/// Every text goes in after its length, so that no two pairs give the same bytes.
fn fingerprint(pair: &PreferencePair) -> Fingerprint {
    let mut hash = Sha256::new();
    let extra = serde_json::to_string(&pair.extra).expect("texts and finite numbers");
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    add(&extra);
    add(&pair.chosen);
    add(&pair.rejected);
    match &pair.prompt {
        Prompt::Text(text) => add(text),
        Prompt::Messages(messages) => {
            for message in messages {
                add(&message.role);
                add(&message.content);
            }
        }
    }
    let digest = hash.finalize();
    *digest.first_chunk().expect("a digest of 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::ExtraFields;

    fn pair(line: u64, prompt: &str) -> PreferencePair {
        PreferencePair {
            line,
            prompt: Prompt::Text(prompt.into()),
            chosen: "c".into(),
            rejected: "r".into(),
            extra: ExtraFields::default(),
        }
    }

    #[test]
    fn a_pair_is_known_by_its_first_line_until_memory_is_full() {
        let mut duplicates = Duplicates::new(2);
        let found = [pair(1, "a"), pair(2, "b"), pair(3, "a"), pair(4, "c"), pair(5, "c"), pair(6, "b")]
            .map(|p| duplicates.first_line(&p));
        assert_eq!(found, [None, None, Some(1), None, None, Some(2)]);
    }

    #[test]
    fn pairs_whose_extra_fields_differ_are_two() {
        let mut duplicates = Duplicates::new(10);
        let about = |line, dimension: &str| {
            let mut pair = pair(line, "a");
            pair.extra.dimension = Some(dimension.into());
            pair
        };
        let found =
            [pair(1, "a"), about(2, "safe"), about(3, "kind"), about(4, "safe")].map(|p| duplicates.first_line(&p));
        assert_eq!(found, [None, None, None, Some(2)]);
    }
}
