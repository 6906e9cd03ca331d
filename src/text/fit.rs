//! Truncation: what happens to pairs that are longer than the model may see, decided before training and counted.
//!
//! Completions are never cut: a cut one would teach the model to stop, or not to stop, in the middle.

use std::fmt;

use serde::Serialize;

use super::encoded_pair::EncodedPair;
use crate::domain::Truncation;

/// A pair after the truncation policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// It fits as it is.
    Whole(EncodedPair),
    /// Its prompt lost tokens from the left.
    PromptCut {
        /// What is left.
        pair: EncodedPair,
        /// Prompt tokens taken away.
        n_tokens_removed: usize,
        /// Characters left of the rendered prompt: the cut as other tokenizers can make it.
        n_chars_kept: usize,
    },
    /// It is left out.
    Dropped(TooLong),
    /// The policy is to fail on it.
    Refused(TooLong),
}

/// Why a pair does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong {
    /// Tokens of the prompt and the longest completion.
    pub n_tokens: usize,
    /// Tokens of the longest completion.
    pub n_completion_tokens: usize,
    /// Tokens allowed.
    pub max_length: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n_tokens, n_completion_tokens, max_length } = self;
        write!(
            f,
            "{n_tokens} tokens ({n_completion_tokens} of them in the longest completion) are more than max_length {max_length}"
        )
    }
}

/// Applies the policy to one pair: prompt and longest completion (the response of the reference
/// included, where there is one) together have at most `max_length` tokens afterwards, and at
/// least one token of the prompt's text stays.
pub fn fit(pair: EncodedPair, max_length: usize, truncation: Truncation) -> Fit {
    let (n_completion_tokens, n_tokens) = (pair.n_longest_completion(), pair.n_longest());
    if n_tokens <= max_length {
        return Fit::Whole(pair);
    }
    let why = TooLong { n_tokens, n_completion_tokens, max_length };
    match truncation {
        Truncation::Drop => Fit::Dropped(why),
        Truncation::Error => Fit::Refused(why),
        Truncation::TruncatePromptLeft => {
            let n_kept_at_most = max_length.saturating_sub(n_completion_tokens);
            let first = pair.prompt.len() - n_kept_at_most + usize::from(pair.starts_with_bos);
            // Only between characters: there every tokenizer can make the same cut.
            let cut = (first..pair.prompt.len()).find(|at| pair.prompt_starts[*at] > pair.prompt_starts[at - 1]);
            let Some(cut) = cut else { return Fit::Dropped(why) };
            let n_chars_kept = pair.prompt_n_chars - pair.prompt_starts[cut];
            let (pair, n_tokens_removed) = cut_before(pair, cut);
            Fit::PromptCut { pair, n_tokens_removed, n_chars_kept }
        }
    }
}

/// Makes the cut of [`Fit::PromptCut`] in another model's tokens: what stays is the longest run of whole tokens at the end
/// of its own rendered prompt that has at most `n_chars_kept` characters, and at least one token (and BOS, where it is first).
pub fn cut_prompt_to_chars(pair: EncodedPair, n_chars_kept: usize) -> EncodedPair {
    let from_char = pair.prompt_n_chars.saturating_sub(n_chars_kept);
    let first = usize::from(pair.starts_with_bos);
    let cut = (first..pair.prompt.len()).find(|at| pair.prompt_starts[*at] >= from_char);
    let cut = cut.unwrap_or(pair.prompt.len().saturating_sub(1)).max(first);
    cut_before(pair, cut).0
}

/// Takes away the prompt tokens before `cut`, all but BOS; also tells how many.
fn cut_before(mut pair: EncodedPair, cut: usize) -> (EncodedPair, usize) {
    let first = usize::from(pair.starts_with_bos);
    let Some(n_removed) = cut.checked_sub(first).filter(|n| *n > 0) else { return (pair, 0) };
    let from_char = pair.prompt_starts[cut];
    pair.prompt.drain(first..cut);
    pair.prompt_starts.drain(first..cut);
    for start in &mut pair.prompt_starts {
        *start = start.saturating_sub(from_char);
    }
    pair.prompt_n_chars -= from_char;
    (pair, n_removed)
}

/// What the policy did to a data set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FitReport {
    /// Pairs looked at.
    pub n_pairs: usize,
    /// Pairs whose prompt lost tokens.
    pub n_prompts_cut: usize,
    /// Tokens they lost together.
    pub n_tokens_removed: usize,
    /// Pairs left out.
    pub n_dropped: usize,
    /// Pairs the policy fails on.
    pub n_refused: usize,
    /// The first lines that were left out or refused.
    pub first_lines: Vec<u64>,
    /// Tokens of the longest pair as it came, prompt and longest completion.
    pub n_longest_tokens: usize,
}

impl FitReport {
    /// How many lines are named.
    const MAX_LINES: usize = 20;

    /// Counts one pair, which stands in line `line` of its file.
    pub fn record(&mut self, line: u64, fit: &Fit) {
        self.n_pairs += 1;
        let n_tokens = match fit {
            Fit::Whole(pair) => pair.n_longest(),
            Fit::PromptCut { pair, n_tokens_removed, .. } => {
                self.n_prompts_cut += 1;
                self.n_tokens_removed += n_tokens_removed;
                pair.n_longest() + n_tokens_removed
            }
            Fit::Dropped(why) => {
                self.n_dropped += 1;
                why.n_tokens
            }
            Fit::Refused(why) => {
                self.n_refused += 1;
                why.n_tokens
            }
        };
        if matches!(fit, Fit::Dropped(_) | Fit::Refused(_)) && self.first_lines.len() < Self::MAX_LINES {
            self.first_lines.push(line);
        }
        self.n_longest_tokens = self.n_longest_tokens.max(n_tokens);
    }

    /// The report as a sentence for people.
    pub fn sentence(&self) -> String {
        let Self { n_pairs, n_prompts_cut, n_tokens_removed, n_dropped, n_refused, .. } = self;
        let longest = self.n_longest_tokens;
        if n_prompts_cut + n_dropped + n_refused == 0 {
            return format!("all {n_pairs} pairs fit; the longest has {longest} tokens");
        }
        let mut parts = Vec::new();
        if *n_prompts_cut > 0 {
            parts.push(format!("{n_prompts_cut} prompts lost {n_tokens_removed} tokens from their left"));
        }
        if *n_dropped > 0 {
            parts.push(format!("{n_dropped} are too long and left out"));
        }
        if *n_refused > 0 {
            parts.push(format!("{n_refused} are too long (raise max_length or choose another truncation)"));
        }
        let lines: Vec<String> = self.first_lines.iter().map(u64::to_string).collect();
        let more = if n_dropped + n_refused > lines.len() { ", ..." } else { "" };
        let lines = if lines.is_empty() { String::new() } else { format!("; lines {}{more}", lines.join(", ")) };
        format!("of {n_pairs} pairs {}; the longest has {longest} tokens{lines}", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prompt of tokens of two characters each, BOS first where asked, and completions of three and two tokens.
    fn pair(n_prompt: usize, starts_with_bos: bool) -> EncodedPair {
        let mut prompt: Vec<u32> = (100..).take(n_prompt).collect();
        let mut prompt_starts: Vec<usize> = (0..n_prompt).map(|i| 2 * i).collect();
        if starts_with_bos {
            prompt.insert(0, 1);
            prompt_starts.insert(0, 0);
        }
        EncodedPair {
            prompt,
            prompt_starts,
            prompt_n_chars: 2 * n_prompt,
            starts_with_bos,
            chosen: vec![7, 8, 2],
            rejected: vec![9, 2],
            reference_response: None,
            in_spans: None,
        }
    }

    #[test]
    fn a_pair_of_exactly_the_allowed_length_is_whole() {
        assert_eq!(fit(pair(5, false), 8, Truncation::Error), Fit::Whole(pair(5, false)));
        assert!(matches!(fit(pair(6, false), 8, Truncation::Error), Fit::Refused(_)));
        assert!(matches!(fit(pair(6, false), 8, Truncation::Drop), Fit::Dropped(_)));
    }

    #[test]
    fn the_longest_of_three_completions_counts() {
        let with_response = |n| EncodedPair { reference_response: Some(vec![7; n]), ..pair(5, false) };
        assert_eq!(fit(with_response(3), 8, Truncation::Error), Fit::Whole(with_response(3)));
        let why = TooLong { n_tokens: 9, n_completion_tokens: 4, max_length: 8 };
        assert_eq!(fit(with_response(4), 8, Truncation::Error), Fit::Refused(why));
        let Fit::PromptCut { pair: cut, .. } = fit(with_response(4), 8, Truncation::TruncatePromptLeft) else {
            panic!("cut");
        };
        assert_eq!((cut.prompt.len(), cut.reference_response), (4, Some(vec![7; 4])));
    }

    #[test]
    fn a_cut_takes_from_the_left_of_the_prompt_only() {
        let Fit::PromptCut { pair: cut, n_tokens_removed, n_chars_kept } =
            fit(pair(10, false), 8, Truncation::TruncatePromptLeft)
        else {
            panic!("cut");
        };
        assert_eq!(cut.prompt, [105, 106, 107, 108, 109]);
        assert_eq!(cut.prompt_starts, [0, 2, 4, 6, 8]);
        assert_eq!((cut.prompt_n_chars, n_chars_kept, n_tokens_removed), (10, 10, 5));
        assert_eq!((cut.chosen, cut.rejected), (vec![7, 8, 2], vec![9, 2]));
    }

    #[test]
    fn a_cut_leaves_the_first_token_of_the_sequence() {
        let Fit::PromptCut { pair: cut, n_tokens_removed, .. } = fit(pair(10, true), 8, Truncation::TruncatePromptLeft)
        else {
            panic!("cut");
        };
        assert_eq!(cut.prompt, [1, 106, 107, 108, 109]);
        assert_eq!(n_tokens_removed, 6);
    }

    #[test]
    fn one_prompt_token_stays_or_the_pair_goes() {
        let kept = |max, bos| match fit(pair(4, bos), max, Truncation::TruncatePromptLeft) {
            Fit::PromptCut { pair, .. } => Some(pair.prompt),
            Fit::Dropped(_) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(kept(4, false), Some(vec![103]));
        assert_eq!(kept(3, false), None);
        assert_eq!(kept(2, false), None, "the completion alone is too long");
        assert_eq!(kept(5, true), Some(vec![1, 103]));
        assert_eq!(kept(4, true), None, "BOS alone is no prompt");
    }

    #[test]
    fn the_same_cut_in_the_same_tokens_is_the_same() {
        for bos in [false, true] {
            for max in 5..13 {
                // Tokens 4 to 6 are the bytes of one character, and so begin at the same place.
                let mut long = pair(12, bos);
                let at = 4 + usize::from(bos);
                long.prompt_starts[at + 1] = long.prompt_starts[at];
                long.prompt_starts[at + 2] = long.prompt_starts[at];
                let Fit::PromptCut { pair: cut, n_chars_kept, .. } =
                    fit(long.clone(), max, Truncation::TruncatePromptLeft)
                else {
                    panic!("cut");
                };
                assert!(cut.prompt.len() + 3 <= max);
                assert_eq!(cut_prompt_to_chars(long, n_chars_kept), cut, "max_length {max}");
            }
        }
    }

    #[test]
    fn another_tokenizer_keeps_no_more_text() {
        let cut = cut_prompt_to_chars(pair(10, false), 7);
        assert_eq!(cut.prompt, [107, 108, 109], "three tokens of two characters each");
        assert_eq!(cut_prompt_to_chars(pair(10, true), 0).prompt, [1, 109], "one token stays");
        assert_eq!(cut_prompt_to_chars(pair(3, true), 100), pair(3, true));
    }

    #[test]
    fn a_report_says_what_was_done() {
        let mut report = FitReport::default();
        for (line, n_prompt) in [(1, 2), (2, 10)] {
            report.record(line, &fit(pair(n_prompt, false), 8, Truncation::TruncatePromptLeft));
        }
        assert_eq!(report.sentence(), "of 2 pairs 1 prompts lost 5 tokens from their left; the longest has 13 tokens");
        report.record(7, &fit(pair(10, false), 8, Truncation::Drop));
        assert!(report.sentence().contains("1 are too long and left out"), "{}", report.sentence());
        assert!(report.sentence().ends_with("lines 7"), "{}", report.sentence());
    }
}
