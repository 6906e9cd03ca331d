//! The numbers of a request to evaluate an objective, checked one by one.

use super::objectives::{ObjectivePair, ObjectiveRequest, WeightingPair};
use crate::domain::{ExtraField, MAX_REFERENCES, Method, MethodKind, ObjectiveSpec, Problems, Sides};

/// The most pairs of one request.
pub(super) const MAX_PAIRS: usize = 10_000;
/// The most rewards of a completion.
const MAX_REWARDS: usize = ExtraField::MAX_REWARDS;
/// The largest number that is computed with: sums of squares stay far from infinity.
pub(super) const MAX_ABS: f64 = 1e12;
/// The fewest and the most tokens; a sum of weights may be a fraction.
const TOKENS: std::ops::RangeInclusive<f64> = 1e-3..=1e9;

/// Adds what is wrong with the pairs.
pub(super) fn check_pairs(request: &ObjectiveRequest, method: &Method, spec: &ObjectiveSpec, problems: &mut Problems) {
    let n_references = request.n_references();
    if !(1..=MAX_PAIRS).contains(&request.pairs.len()) {
        let message = format!("1 to {MAX_PAIRS} pairs, got {}: send more in several requests", request.pairs.len());
        problems.at("/pairs", "out_of_range", message);
        return;
    }
    if !(1..=MAX_REFERENCES).contains(&n_references) {
        let message = format!("1 to {MAX_REFERENCES} references, got {n_references}; number 0 is the base");
        problems.at("/pairs/0/references/chosen", "out_of_range", message);
    } else if request.method == MethodKind::Dpo && n_references > 1 {
        let message = format!(
            "dpo has one reference, the policy's own start, here are {n_references}: leave the others out or take mrpo"
        );
        problems.at("/pairs/0/references", "conflicting_fields", message);
    }
    let first = &request.pairs[0];
    let n_given = first.margin_rewards_chosen.as_ref().or(first.aux_rewards_chosen.as_ref()).map(Vec::len);
    let needs_tokens = spec.length_normalized
        || spec.sft_weight > 0.0
        || spec.loss.as_slice().iter().any(|loss| loss.is_per_token())
        || request.method == MethodKind::Hpo;
    let rules = Rules {
        kind: request.method,
        n_references,
        n_earlier: request.n_earlier(),
        n_rewards: method.n_row_values().or(n_given),
        needs_tokens,
        needs_optimism: spec.optimism != 0.0,
    };
    for (i, pair) in request.pairs.iter().enumerate() {
        rules.check(&mut Place { at: format!("/pairs/{i}"), problems }, pair);
    }
}

/// Adds what is wrong with the pairs that the weights come from.
pub(super) fn check_weighting_pairs(
    pairs: &[WeightingPair],
    n_references: usize,
    spec: &ObjectiveSpec,
    problems: &mut Problems,
) {
    if !(1..=MAX_PAIRS).contains(&pairs.len()) {
        let message = format!("1 to {MAX_PAIRS} pairs, got {}", pairs.len());
        problems.at("/weighting_pairs", "out_of_range", message);
    }
    for (i, pair) in pairs.iter().enumerate().take(MAX_PAIRS) {
        let mut place = Place { at: format!("/weighting_pairs/{i}"), problems };
        place.numbers("chosen", &pair.chosen, n_references);
        place.numbers("rejected", &pair.rejected, n_references);
        match &pair.tokens {
            Some(tokens) => place.token_lists("tokens", tokens, n_references),
            None if spec.length_normalized => place.missing("tokens", "length_normalized needs them"),
            None => {}
        }
    }
}

/// What every pair of a request must have.
#[derive(Debug)]
struct Rules {
    kind: MethodKind,
    n_references: usize,
    n_earlier: usize,
    /// Rewards of each completion, where that is known.
    n_rewards: Option<usize>,
    needs_tokens: bool,
    needs_optimism: bool,
}

impl Rules {
    fn check(&self, place: &mut Place<'_>, pair: &ObjectivePair) {
        place.number("policy/chosen", pair.policy.chosen);
        place.number("policy/rejected", pair.policy.rejected);
        place.numbers("references/chosen", &pair.references.chosen, self.n_references);
        place.numbers("references/rejected", &pair.references.rejected, self.n_references);
        match pair.tokens {
            Some(tokens) => {
                place.tokens("tokens/chosen", tokens.chosen);
                place.tokens("tokens/rejected", tokens.rejected);
            }
            None if self.needs_tokens => place.missing("tokens", "a loss or a term is per token"),
            None => {}
        }
        if let Some(tokens) = &pair.reference_tokens {
            place.token_lists("reference_tokens", tokens, self.n_references);
        }
        let rewards = [
            ("margin_rewards_chosen", MethodKind::Modpo, &pair.margin_rewards_chosen),
            ("margin_rewards_rejected", MethodKind::Modpo, &pair.margin_rewards_rejected),
            ("aux_rewards_chosen", MethodKind::Hpo, &pair.aux_rewards_chosen),
            ("aux_rewards_rejected", MethodKind::Hpo, &pair.aux_rewards_rejected),
        ];
        for (field, reader, rewards) in rewards {
            match rewards {
                Some(_) if self.kind != reader => self.unread(place, field, reader),
                Some(rewards) => place.rewards(field, rewards, self.n_rewards),
                None if self.kind == reader => place.missing(field, &format!("{} needs it", reader.as_str())),
                None => {}
            }
        }
        self.check_others(place, pair);
    }

    fn check_others(&self, place: &mut Place<'_>, pair: &ObjectivePair) {
        match pair.baseline {
            Some(_) if self.kind != MethodKind::Hpo => self.unread(place, "baseline", MethodKind::Hpo),
            Some(baseline) => place.number("baseline", baseline),
            None => {}
        }
        match &pair.earlier {
            Some(_) if self.kind != MethodKind::Spo => self.unread(place, "earlier", MethodKind::Spo),
            Some(earlier) => {
                place.numbers("earlier/chosen", &earlier.chosen, self.n_earlier);
                place.numbers("earlier/rejected", &earlier.rejected, self.n_earlier);
            }
            None if self.n_earlier > 0 => place.missing("earlier", "the first pair has it"),
            None => {}
        }
        match pair.optimism {
            Some(_) if self.kind != MethodKind::Selm => self.unread(place, "optimism", MethodKind::Selm),
            Some(optimism) => {
                place.number("optimism/policy", optimism.policy);
                place.number("optimism/reference", optimism.reference);
            }
            None if self.needs_optimism => place.missing("optimism", "selm needs it"),
            None => {}
        }
    }

    fn unread(&self, place: &mut Place<'_>, field: &str, reader: MethodKind) {
        let (kind, reader) = (self.kind.as_str(), reader.as_str());
        let message = format!("only {reader} reads {field}, and the method is {kind}: leave it out or take {reader}");
        place.problem(field, "conflicting_fields", message);
    }
}

fn is_number(x: f64) -> bool {
    x.abs() <= MAX_ABS
}

/// A place of the body whose numbers are checked.
struct Place<'a> {
    at: String,
    problems: &'a mut Problems,
}

impl Place<'_> {
    fn problem(&mut self, field: &str, code: &str, message: impl Into<String>) {
        self.problems.at(format!("{}/{field}", self.at), code, message);
    }

    fn missing(&mut self, field: &str, why: &str) {
        self.problem(field, "missing_field", format!("{field} is missing: {why}"));
    }

    fn number(&mut self, field: &str, x: f64) {
        if !is_number(x) {
            self.problem(field, "out_of_range", format!("expected a number between -{MAX_ABS:e} and {MAX_ABS:e}"));
        }
    }

    fn numbers(&mut self, field: &str, numbers: &[f64], n: usize) {
        if self.has_length(field, numbers.len(), n) {
            for (k, x) in numbers.iter().enumerate().filter(|(_, x)| !is_number(**x)) {
                self.number(&format!("{field}/{k}"), *x);
            }
        }
    }

    fn tokens(&mut self, field: &str, n: f64) {
        if !TOKENS.contains(&n) {
            let message = format!("expected a number of tokens between {} and {:e}", TOKENS.start(), TOKENS.end());
            self.problem(field, "out_of_range", message);
        }
    }

    fn token_lists(&mut self, field: &str, tokens: &Sides<Vec<f64>>, n: usize) {
        for (side, tokens) in [("chosen", &tokens.chosen), ("rejected", &tokens.rejected)] {
            let field = format!("{field}/{side}");
            if self.has_length(&field, tokens.len(), n) {
                for (k, n) in tokens.iter().enumerate().filter(|(_, n)| !TOKENS.contains(*n)) {
                    self.tokens(&format!("{field}/{k}"), *n);
                }
            }
        }
    }

    fn rewards(&mut self, field: &str, rewards: &[f64], n: Option<usize>) {
        if (1..=MAX_REWARDS).contains(&rewards.len()) {
            self.numbers(field, rewards, n.unwrap_or(rewards.len()));
        } else {
            self.problem(field, "out_of_range", format!("1 to {MAX_REWARDS} rewards, got {}", rewards.len()));
        }
    }

    fn has_length(&mut self, field: &str, n: usize, expected: usize) -> bool {
        if n != expected {
            self.problem(field, "inconsistent_length", format!("{n} numbers, expected {expected}"));
        }
        n == expected
    }
}
