//! What of a job is kept on the disk: what a client asks for, and the rule. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Problems;

/// What tells the best checkpoints: a metric of the validation set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum BestBy {
    /// The lowest loss.
    #[default]
    #[serde(rename = "eval_loss")]
    EvalLoss,
    /// The highest share of pairs ranked as the data does.
    #[serde(rename = "eval_rewards/accuracies")]
    EvalAccuracy,
    /// The highest margin of rewards.
    #[serde(rename = "eval_rewards/margins")]
    EvalMargin,
}

impl BestBy {
    /// How bad a checkpoint with these metrics is; worst where the metric is absent or no number.
    fn badness(self, metrics: &BTreeMap<String, f64>) -> f64 {
        let (name, sign) = match self {
            Self::EvalLoss => ("eval_loss", 1.0),
            Self::EvalAccuracy => ("eval_rewards/accuracies", -1.0),
            Self::EvalMargin => ("eval_rewards/margins", -1.0),
        };
        metrics.get(name).map(|value| sign * value).filter(|value| !value.is_nan()).unwrap_or(f64::INFINITY)
    }
}

/// What is to be kept, as a client writes it; what is left out is as the server is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetentionRequest {
    /// The newest so many checkpoints are kept, 1 to 10000. Absent: the server's `--keep-checkpoints`; without one all, or the newest
    /// where `keep_best` is given.
    #[schema(minimum = 1, maximum = 10_000)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<u32>,
    /// The best so many are kept besides, 0 to 10000; none when absent.
    #[schema(maximum = 10_000)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_best: Option<u32>,
    /// What tells the best; `eval_loss` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_by: Option<BestBy>,
    /// So many days after the job's end its run's files go, 1 to 36500; the model it made stays. Absent: the server's `--keep-days`;
    /// without one never.
    #[schema(minimum = 1, maximum = 36_500)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_days: Option<u32>,
}

/// What is kept of a job, as it is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Retention {
    /// The newest so many checkpoints; null: all.
    pub keep_last: Option<u32>,
    /// The best so many besides.
    pub keep_best: u32,
    /// What tells the best.
    pub best_by: BestBy,
    /// After how many days from the job's end its run's files go; null: never.
    pub keep_days: Option<u32>,
}

/// What the operator has said for jobs that say nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionDefaults {
    /// The newest so many checkpoints; all, without a number.
    pub keep_last: Option<u32>,
    /// Days from a job's end; never, without a number.
    pub keep_days: Option<u32>,
}

impl Retention {
    /// The most checkpoints that can be asked for.
    pub const MAX_COUNT: u32 = 10_000;
    /// The most days: a century.
    pub const MAX_DAYS: u32 = 36_500;

    /// Fills in what is not given and checks what is; problems are pointed at below `/retention`.
    pub fn resolve(
        request: Option<&RetentionRequest>,
        defaults: RetentionDefaults,
        has_validation: bool,
        problems: &mut Problems,
    ) -> Self {
        let asked = request.copied().unwrap_or_default();
        let keep_best = asked.keep_best.unwrap_or(0);
        let mut check = |field: &str, value: Option<u32>, range: std::ops::RangeInclusive<u32>| {
            if value.is_some_and(|value| !range.contains(&value)) {
                let message = format!("{field} is between {} and {}", range.start(), range.end());
                problems.at(format!("/retention/{field}"), "out_of_range", message);
            }
        };
        check("keep_last", asked.keep_last, 1..=Self::MAX_COUNT);
        check("keep_best", asked.keep_best, 0..=Self::MAX_COUNT);
        check("keep_days", asked.keep_days, 1..=Self::MAX_DAYS);
        if keep_best > 0 && !has_validation {
            let message = "the best checkpoints are told by held-out pairs: give a validation_file, or keep_last alone";
            problems.at("/retention/keep_best", "missing_field", message);
        }
        if asked.best_by.is_some() && keep_best == 0 {
            let message = "best_by is read with keep_best: say how many of the best are kept";
            problems.at("/retention/best_by", "missing_field", message);
        }
        Self {
            keep_last: asked.keep_last.or(defaults.keep_last).or((keep_best > 0).then_some(1)),
            keep_best,
            best_by: asked.best_by.unwrap_or_default(),
            keep_days: asked.keep_days.or(defaults.keep_days),
        }
    }

    /// Which of these checkpoints are kept, by their steps. Of two that are as good the later one is.
    pub fn kept(&self, checkpoints: &[(u64, BTreeMap<String, f64>)]) -> BTreeSet<u64> {
        let mut by_age: Vec<_> = checkpoints.iter().collect();
        by_age.sort_by_key(|(step, _)| std::cmp::Reverse(*step));
        let n_last = self.keep_last.map_or(by_age.len(), |n| n as usize);
        let mut kept: BTreeSet<u64> = by_age.iter().take(n_last).map(|(step, _)| *step).collect();
        let badness = |metrics| self.best_by.badness(metrics);
        by_age.sort_by(|(_, a), (_, b)| badness(a).total_cmp(&badness(b)));
        let best = by_age.iter().take(self.keep_best as usize).filter(|(_, metrics)| badness(metrics).is_finite());
        kept.extend(best.map(|(step, _)| *step));
        kept
    }

    /// The most checkpoints of `n` that lie on the disk at once: while one is written the surplus one is still there.
    pub fn most_at_once(&self, n: u64) -> u64 {
        self.keep_last.map_or(n, |last| (u64::from(last) + u64::from(self.keep_best) + 1).min(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(losses: &[f64]) -> Vec<(u64, BTreeMap<String, f64>)> {
        let metrics = |loss: &f64| BTreeMap::from([("eval_loss".to_owned(), *loss)]);
        losses.iter().enumerate().map(|(i, loss)| (i as u64 + 1, metrics(loss))).collect()
    }

    fn kept(retention: Retention, of: &[(u64, BTreeMap<String, f64>)]) -> Vec<u64> {
        retention.kept(of).into_iter().collect()
    }

    #[test]
    fn the_last_and_the_best_are_kept() {
        let all = losses(&[0.5, 0.3, 0.3, 0.9, f64::NAN]);
        let with = |keep_last, keep_best| Retention { keep_last, keep_best, ..Retention::default() };
        assert_eq!(kept(with(None, 0), &all), [1, 2, 3, 4, 5]);
        assert_eq!(kept(with(Some(1), 0), &all), [5]);
        assert_eq!(kept(with(Some(2), 1), &all), [3, 4, 5], "of two alike the later");
        assert_eq!(kept(with(Some(1), 9), &all), [1, 2, 3, 4, 5]);
        let by_accuracy = Retention { best_by: BestBy::EvalAccuracy, ..with(Some(1), 3) };
        assert_eq!(kept(by_accuracy, &all), [5], "what was not measured is not best");
        assert_eq!((with(None, 0).most_at_once(7), with(Some(2), 1).most_at_once(7)), (7, 4));
    }

    #[test]
    fn every_problem_is_told_and_defaults_are_the_operators() {
        let resolve = |body: serde_json::Value, has_validation| {
            let request: RetentionRequest = serde_json::from_value(body).expect("well formed");
            let (defaults, mut problems) =
                (RetentionDefaults { keep_last: None, keep_days: Some(9) }, Problems::default());
            let retention = Retention::resolve(Some(&request), defaults, has_validation, &mut problems);
            (retention, problems.first.into_iter().filter_map(|p| p.pointer).collect::<Vec<_>>())
        };
        let (retention, problems) = resolve(serde_json::json!({"keep_best": 2}), true);
        assert_eq!((retention.keep_last, retention.keep_days, problems.len()), (Some(1), Some(9), 0));
        let wrong = serde_json::json!({"keep_last": 0, "keep_days": 99999, "best_by": "eval_rewards/margins"});
        assert_eq!(resolve(wrong, true).1, ["/retention/keep_last", "/retention/keep_days", "/retention/best_by"]);
        assert_eq!(resolve(serde_json::json!({"keep_best": 1}), false).1, ["/retention/keep_best"]);
    }
}
