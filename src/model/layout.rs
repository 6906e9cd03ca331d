//! Packed token sequences: many completions in one batch without padding, a prompt shared by its completions laid out once.

use std::ops::Range;

/// A run of tokens that attend to the whole `prefix`, and causally to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Index of its first token in the batch.
    pub start: usize,
    /// Number of its tokens, at least 1.
    pub len: usize,
    /// Tokens before it that all of it sees; may be empty.
    pub prefix: Range<usize>,
}

/// Neighbouring segments that share nothing with those of other sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Its segments, in order and without gaps.
    pub segments: Vec<Segment>,
}

impl Sequence {
    /// Index of its first token in the batch.
    pub fn start(&self) -> usize {
        self.segments.first().map_or(0, |s| s.start)
    }

    /// Number of its tokens.
    pub fn len(&self) -> usize {
        self.segments.iter().map(|s| s.len).sum()
    }

    /// Whether it has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A token whose log-probability is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scored {
    /// The token that predicts it: index in the batch.
    pub predictor: u32,
    /// The token predicted.
    pub target: u32,
    /// The completion it belongs to, counted over the batch.
    pub completion: u32,
}

/// A batch as the model computes it: N tokens, their positions, who sees whom, and what is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    /// N token ids.
    pub tokens: Vec<u32>,
    /// N positions; a completion's go on where its prompt ends.
    pub positions: Vec<u32>,
    /// Who sees whom.
    pub sequences: Vec<Sequence>,
    /// The completions' tokens, in order.
    pub scored: Vec<Scored>,
    /// Number of completions.
    pub n_completions: usize,
}

impl Packed {
    /// Number of tokens that [`Packed::push`] would add for these lengths.
    pub fn n_tokens_of(prompt: usize, completions: &[usize]) -> usize {
        prompt + completions.iter().map(|n| n.saturating_sub(1)).sum::<usize>()
    }

    /// Adds one prompt and its completions as one sequence. Neither the prompt nor a completion may be empty.
    ///
    /// A completion's last token is predicted and predicts nothing, so it is not laid out.
    pub fn push(&mut self, prompt: &[u32], completions: &[&[u32]]) {
        assert!(!prompt.is_empty(), "a completion needs a token before it");
        let start = self.tokens.len();
        let shared = start..start + prompt.len();
        self.tokens.extend(prompt);
        self.positions.extend(0..prompt.len() as u32);
        let mut segments = vec![Segment { start, len: prompt.len(), prefix: start..start }];
        for completion in completions {
            let first = self.tokens.len();
            let inputs = completion.len().checked_sub(1).expect("a completion has at least its end-of-turn token");
            if inputs > 0 {
                segments.push(Segment { start: first, len: inputs, prefix: shared.clone() });
            }
            self.tokens.extend(&completion[..inputs]);
            self.positions.extend((prompt.len()..prompt.len() + inputs).map(|p| p as u32));
            for (i, target) in completion.iter().enumerate() {
                let predictor = if i == 0 { shared.end - 1 } else { first + i - 1 };
                let completion = self.n_completions as u32;
                self.scored.push(Scored { predictor: predictor as u32, target: *target, completion });
            }
            self.n_completions += 1;
        }
        self.sequences.push(Sequence { segments });
    }

    /// The hidden states that predict something.
    pub fn predictors(&self) -> Vec<u32> {
        self.scored.iter().map(|s| s.predictor).collect()
    }

    /// What is predicted.
    pub fn targets(&self) -> Vec<u32> {
        self.scored.iter().map(|s| s.target).collect()
    }

    /// Sums per-token values into one per completion.
    pub fn sum_by_completion(&self, values: impl IntoIterator<Item = f64>) -> Vec<f64> {
        let mut sums = vec![0f64; self.n_completions];
        for (scored, value) in self.scored.iter().zip(values) {
            sums[scored.completion as usize] += value;
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_go_on_where_their_prompt_ends() {
        let mut batch = Packed::default();
        batch.push(&[1, 2], &[&[3, 4, 9], &[9]]);
        batch.push(&[5], &[&[6, 9]]);
        assert_eq!(batch.tokens, [1, 2, 3, 4, 5, 6]);
        assert_eq!(batch.positions, [0, 1, 2, 3, 0, 1]);
        assert_eq!(batch.predictors(), [1, 2, 3, 1, 4, 5]);
        assert_eq!(batch.targets(), [3, 4, 9, 9, 6, 9]);
        assert_eq!(batch.sequences.iter().map(|s| (s.start(), s.len())).collect::<Vec<_>>(), [(0, 4), (4, 2)]);
        assert_eq!(batch.sequences[0].segments[1], Segment { start: 2, len: 2, prefix: 0..2 });
        assert_eq!(batch.sum_by_completion([1., 2., 3., 4., 5., 6.]), [6., 4., 11.]);
        assert_eq!(Packed::n_tokens_of(2, &[3, 1]) + Packed::n_tokens_of(1, &[2]), batch.tokens.len());
    }
}
