//! What the demo shows at its end. Pure: an outcome in, a text out.

use std::{fmt::Write, path::PathBuf, time::Duration};

use super::{
    job::Finished,
    progress::clock,
    wire::{Job, Sample},
};
use crate::domain::{Evaluation, metric};

/// Everything there is to show.
pub(super) struct Outcome {
    pub(super) dpo: Finished,
    pub(super) mrpo: Finished,
    pub(super) data_dir: PathBuf,
    pub(super) curl: Vec<String>,
    pub(super) duration: Duration,
}

/// The rows of the first table: what it is called for people, its metric, and how it is written.
const ROWS: [(&str, &str, Unit); 4] = [
    ("loss", metric::LOSS, Unit::Number),
    ("model prefers chosen", metric::LOGPS_ACCURACIES, Unit::Percent),
    ("reward accuracy", metric::REWARDS_ACCURACIES, Unit::Percent),
    ("reward margin", metric::REWARDS_MARGINS, Unit::Number),
];

#[derive(Clone, Copy)]
enum Unit {
    Number,
    Percent,
}

impl Unit {
    fn write(self, value: Option<f64>) -> String {
        match (self, value) {
            (_, None) => "-".to_owned(),
            (Self::Number, Some(v)) => format!("{v:.4}"),
            (Self::Percent, Some(v)) => format!("{:.1} %", v * 100.0),
        }
    }
}

/// The whole report.
pub(super) fn render(outcome: &Outcome) -> String {
    let mut out = String::new();
    let sections = [
        evaluations(outcome),
        references(&outcome.mrpo.job),
        samples(outcome),
        curl(outcome),
        places(outcome),
        costs(outcome),
    ];
    for section in sections.iter().filter(|s| !s.is_empty()) {
        let _ = write!(out, "\n{section}");
    }
    out
}

/// Held-out loss, accuracy and margin, before and after, of both jobs.
fn evaluations(outcome: &Outcome) -> String {
    let mut out = format!("{:<22}{:>22}    {:>22}\n", "held-out pairs", "dpo", "mrpo");
    let _ = writeln!(out, "{:<22}{:>11}{:>11}    {:>11}{:>11}", "", "before", "after", "before", "after");
    for (label, name, unit) in ROWS {
        let cell = |e: &Option<Evaluation>| unit.write(e.as_ref().and_then(|e| e.metrics.get(name).copied()));
        let [dpo, mrpo] = [&outcome.dpo.job.evaluation, &outcome.mrpo.job.evaluation];
        let _ = writeln!(
            out,
            "{label:<22}{:>11}{:>11}    {:>11}{:>11}",
            cell(&dpo.before),
            cell(&dpo.after),
            cell(&mrpo.before),
            cell(&mrpo.after)
        );
    }
    out
}

/// What each reference of a job makes of the held-out pairs, and how much it weighs.
fn references(job: &Job) -> String {
    let Some(evaluation) = &job.evaluation.after else { return String::new() };
    let suffix = format!("/{}", metric::REFERENCE_ACCURACY);
    let names: Vec<&str> =
        evaluation.metrics.keys().filter_map(|key| key.strip_prefix("refs/")?.strip_suffix(suffix.as_str())).collect();
    if names.is_empty() {
        return String::new();
    }
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0).max(24);
    let mut out =
        format!("{:<width$}{:>11}{:>16}{:>10}\n", "references of mrpo", "accuracy", "margin (nats)", "weight");
    for name in names {
        let value = |metric| evaluation.metrics.get(&metric::of_reference(name, metric)).copied();
        let _ = writeln!(
            out,
            "{name:<width$}{:>11}{:>16}{:>10}",
            Unit::Percent.write(value(metric::REFERENCE_ACCURACY)),
            Unit::Number.write(value(metric::REFERENCE_MARGIN)),
            Unit::Number.write(value(metric::REFERENCE_WEIGHT_MEAN))
        );
    }
    out
}

/// One completion of the first held-out prompt, before and after the MRPO job, side by side.
fn samples(outcome: &Outcome) -> String {
    let (Some(before), Some(after)) = (&outcome.mrpo.before, &outcome.mrpo.after) else { return String::new() };
    let text = |sample: &Sample| sample.completion.trim().to_owned();
    let columns = side_by_side(("before", &text(before)), ("after mrpo", &text(after)), 44);
    format!("asked       {}\n\n{columns}", before.prompt.trim())
}

fn curl(outcome: &Outcome) -> String {
    let mut out = "the same by hand\n".to_owned();
    let _ = writeln!(out, "  mrpo serve --listen 127.0.0.1:8111 --data-dir {} &", outcome.data_dir.display());
    out.push_str("  MRPO=http://127.0.0.1:8111\n");
    for line in &outcome.curl {
        let _ = writeln!(out, "  {line}");
    }
    // Following a job changes nothing and is no act of its own, but nobody would do without it.
    let _ = writeln!(out, "  curl $MRPO/v1/fine_tuning/jobs/{}", outcome.mrpo.job.id);
    let _ = writeln!(out, "  curl $MRPO/v1/fine_tuning/jobs/{}/events", outcome.mrpo.job.id);
    out
}

fn places(outcome: &Outcome) -> String {
    let mut out = format!("everything is in {}\n", outcome.data_dir.display());
    for finished in [&outcome.dpo, &outcome.mrpo] {
        let Some(model) = &finished.job.fine_tuned_model else { continue };
        let _ = writeln!(out, "  {model}");
        if let Some(run) = &finished.job.run_id {
            let path = outcome.data_dir.join("runs").join(run).join("checkpoints");
            let _ = writeln!(out, "    {}", path.display());
        }
    }
    out
}

fn costs(outcome: &Outcome) -> String {
    let mut out = String::new();
    for (name, finished) in [("dpo", &outcome.dpo), ("mrpo", &outcome.mrpo)] {
        let job = &finished.job;
        let _ = write!(out, "{name:<11}");
        if let (Some(start), Some(end)) = (job.started_at, job.finished_at) {
            let _ = write!(out, " {}", clock(Duration::from_secs(end.saturating_sub(start).unsigned_abs())));
        }
        if let Some(bytes) = finished.peak_memory_bytes {
            let _ = write!(out, "  at most {:.0} MiB of memory", bytes as f64 / f64::from(1 << 20));
        }
        out.push('\n');
    }
    let _ = writeln!(out, "{:<11} {}", "in all", clock(outcome.duration));
    out
}

/// Two texts as columns of `width` characters.
fn side_by_side(left: (&str, &str), right: (&str, &str), width: usize) -> String {
    let rule = "-".repeat(width);
    let mut out = format!("{:<width$}  {}\n{rule}  {rule}\n", left.0, right.0);
    let (left, right) = (wrap(left.1, width), wrap(right.1, width));
    for i in 0..left.len().max(right.len()) {
        let cell = |lines: &[String]| lines.get(i).cloned().unwrap_or_default();
        let row = format!("{:<width$}  {}", cell(&left), cell(&right));
        let _ = writeln!(out, "{}", row.trim_end());
    }
    out
}

/// Breaks a text into lines of at most `width` characters, between words where a word fits.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
            while line.chars().count() > width {
                let rest: String = line.chars().skip(width).collect();
                lines.push(line.chars().take(width).collect());
                line = rest;
            }
        }
        if !line.is_empty() {
            lines.push(line);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{demo::wire::SamplePhase, domain::JobId};

    fn finished(loss: f64) -> Finished {
        let metrics = |loss: f64| {
            json!({"loss": loss, "logps/accuracies": 0.5, "rewards/margins": 0.25,
                "refs/smol/accuracy": 0.125, "refs/smol/margin": -20.5, "refs/smol/weight_mean": 0.75})
        };
        let sample = |phase, text: &str| Some(Sample { phase, prompt: "Why?".into(), completion: text.to_owned() });
        Finished {
            job: serde_json::from_value(json!({
                "id": JobId::new(), "status": "succeeded", "fine_tuned_model": "ft:smol:demo:1", "run_id": "run-1",
                "started_at": 100, "finished_at": 165,
                "evaluation": {"before": {"step": 0, "metrics": metrics(0.75)},
                    "after": {"step": 32, "metrics": metrics(loss)}},
            }))
            .expect("a job"),
            before: sample(SamplePhase::Before, "Because of this and that, as one might say"),
            after: sample(SamplePhase::After, "In short: because."),
            peak_memory_bytes: Some(3 << 29),
        }
    }

    #[test]
    fn the_report_has_every_number_and_leaves_out_what_is_not_known() {
        let outcome = Outcome {
            dpo: finished(0.25),
            mrpo: finished(0.125),
            data_dir: "/data".into(),
            curl: vec!["curl $MRPO/v1/models".into()],
            duration: Duration::from_secs(200),
        };
        let text = render(&outcome);
        let row = |label: &str| -> Vec<String> {
            let line = text.lines().find(|l| l.starts_with(label)).expect(label);
            line[label.len()..].split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(row("loss"), ["0.7500", "0.2500", "0.7500", "0.1250"]);
        assert_eq!(row("reward accuracy"), ["-", "-", "-", "-"]);
        assert_eq!(row("smol"), ["12.5", "%", "-20.5000", "0.7500"]);
        assert_eq!(row("in all"), ["3:20"]);
        for part in
            ["1:05  at most 1536 MiB", "/data/runs/run-1/checkpoints", "curl $MRPO/v1/models", "In short: because."]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn columns_keep_to_their_width_also_with_long_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("ééééééé", 3), ["ééé", "ééé", "é"]);
        assert_eq!(wrap("a\n\nb", 3), ["a", "b"]);
        let shown = side_by_side(("x", "one two three"), ("y", "four"), 7);
        assert_eq!(shown, "x        y\n-------  -------\none two  four\nthree\n");
    }
}
