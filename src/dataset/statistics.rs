//! Collects what a file's pairs are like while it is read.

use std::collections::BTreeMap;

use super::{
    Message, PreferencePair, Prompt, Row,
    digests::{MAX_REMEMBERED, Repeats, Seen},
    distribution::Counts,
};
use crate::domain::{DatasetStatistics, Lengths, Problem, Sample};

/// How many pairs are shown.
const N_SAMPLES: usize = 2;
/// How much of each of their texts.
const MAX_SAMPLE_CHARS: usize = 200;

/// The counts so far. Memory is that of [`Seen`] and some kilobytes.
#[derive(Debug)]
pub(super) struct Statistics {
    found: DatasetStatistics,
    seen: Seen,
    roles: BTreeMap<&'static str, u64>,
    turns: Counts,
    /// Of prompts, chosen and rejected sides.
    lengths: [Counts; 3],
}

impl Statistics {
    pub(super) fn new() -> Self {
        Self {
            found: DatasetStatistics::default(),
            seen: Seen::new(MAX_REMEMBERED),
            roles: BTreeMap::new(),
            turns: Counts::default(),
            lengths: Default::default(),
        }
    }

    /// Counts one row. What a good pair repeats.
    pub(super) fn count(&mut self, row: &Row) -> Repeats {
        self.found.n_rows += 1;
        match &row.pair {
            Ok(pair) => self.count_pair(pair),
            Err(problems) => {
                let has = |code| u64::from(problems.iter().any(|p: &Problem| p.code == code));
                self.found.n_empty_sides += has("empty_completion");
                self.found.n_identical_sides += has("identical_completions");
                Repeats::default()
            }
        }
    }

    fn count_pair(&mut self, pair: &PreferencePair) -> Repeats {
        let repeats = self.seen.note(pair);
        let n_chars = |text: &str| text.chars().count() as u64;
        let (n_chosen, n_rejected) = (n_chars(&pair.chosen), n_chars(&pair.rejected));
        let (n_prompt, n_turns) = match &pair.prompt {
            Prompt::Text(text) => (n_chars(text), 1),
            Prompt::Messages(messages) => {
                self.count_roles(messages);
                (messages.iter().map(|m| n_chars(&m.content)).sum(), messages.len() as u64)
            }
        };
        for (counts, n) in self.lengths.iter_mut().zip([n_prompt, n_chosen, n_rejected]) {
            counts.add(n);
        }
        self.turns.add(n_turns);
        let found = &mut self.found;
        found.n_duplicate_pairs += u64::from(repeats.row.is_some());
        found.n_label_conflicts += u64::from(repeats.swapped.is_some());
        found.n_repeated_prompts += u64::from(repeats.has_prompt);
        found.n_chosen_longer += u64::from(n_chosen > n_rejected);
        if found.samples.len() < N_SAMPLES {
            found.samples.push(sample(pair));
        }
        repeats
    }

    fn count_roles(&mut self, messages: &[Message]) {
        for message in messages {
            let role = Message::ROLES.into_iter().find(|role| *role == message.role);
            *self.roles.entry(role.unwrap_or("other")).or_default() += 1;
        }
        let is_system = messages.first().is_some_and(|m| matches!(m.role.as_str(), "system" | "developer"));
        self.found.n_system_prompts += u64::from(is_system);
    }

    pub(super) fn finish(self) -> DatasetStatistics {
        let [prompt, chosen, rejected] = self.lengths.map(|counts| counts.distribution());
        DatasetStatistics {
            n_remembered: self.seen.n_remembered(),
            roles: self.roles.into_iter().map(|(role, n)| (role.to_owned(), n)).collect(),
            turns: self.turns.distribution(),
            lengths: Lengths { prompt, chosen, rejected },
            ..self.found
        }
    }
}

fn sample(pair: &PreferencePair) -> Sample {
    let (prompt, n_messages) = match &pair.prompt {
        Prompt::Text(text) => (text.as_str(), None),
        Prompt::Messages(messages) => {
            (messages.last().map_or("", |message| message.content.as_str()), Some(messages.len() as u64))
        }
    };
    let [prompt, chosen, rejected] = [prompt, &pair.chosen, &pair.rejected].map(cut);
    Sample { line: pair.line, prompt, n_messages, chosen, rejected }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_SAMPLE_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
