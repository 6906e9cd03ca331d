//! How far a job is: a bar with the time left on a terminal, plain lines where the output goes elsewhere.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::wire::{self, Job};

/// Without a terminal: a line at every eighth of the steps.
const N_LINES: u64 = 8;

/// The progress of one job.
pub(super) struct Progress {
    name: String,
    started: Instant,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    /// The eighth of the steps and the status that were printed last.
    Lines(Option<(&'static str, u64)>),
}

impl Progress {
    /// A new job's.
    pub(super) fn new(name: &str) -> Self {
        let shown = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(0).with_style(waiting_style()).with_prefix(format!("{name:<11}"));
            bar.enable_steady_tick(Duration::from_millis(100));
            Shown::Bar(bar)
        } else {
            Shown::Lines(None)
        };
        Self { name: name.to_owned(), started: Instant::now(), shown }
    }

    /// Shows where the job stands; `words` is what it says of itself.
    pub(super) fn show(&mut self, job: &Job, words: &str) {
        let steps = job.progress.filter(|p| p.n_steps > 0);
        match &mut self.shown {
            Shown::Bar(bar) => match steps {
                Some(steps) => {
                    if bar.length() != Some(steps.n_steps) {
                        bar.set_length(steps.n_steps);
                        bar.set_style(steps_style());
                        // The time left is told from the steps alone, not from what came before them.
                        bar.reset_eta();
                    }
                    bar.set_position(steps.n_steps_done);
                    bar.set_message(words.to_owned());
                }
                None => bar.set_message(format!("{}  {words}", job.status)),
            },
            Shown::Lines(last) => {
                let eighth = steps.map_or(0, |s| s.n_steps_done * N_LINES / s.n_steps);
                let now = (job.status.as_str(), eighth);
                if *last != Some(now) {
                    *last = Some(now);
                    eprintln!("{}", line(&self.name, job, steps, words, self.started.elapsed()));
                }
            }
        }
    }

    /// The job has ended.
    pub(super) fn finish(&self, job: &Job) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
        println!("{:<11} {} after {}  ({})", self.name, job.status, clock(self.started.elapsed()), job.id);
    }
}

fn line(name: &str, job: &Job, steps: Option<wire::Progress>, words: &str, elapsed: Duration) -> String {
    match steps {
        Some(s) => {
            format!("{name:<11} step {:>3}/{}  {}  {words}", s.n_steps_done, s.n_steps, clock(elapsed))
        }
        None => format!("{name:<11} {}  {words}", job.status),
    }
}

/// Minutes and seconds.
pub(super) fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

fn waiting_style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} {spinner} {elapsed_precise}  {wide_msg}").expect("a valid template")
}

fn steps_style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} [{bar:30}] step {pos}/{len}  {elapsed} gone, {eta} left  {wide_msg}")
        .expect("a valid template")
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid_and_a_line_says_where_the_job_stands() {
        let (_, _) = (waiting_style(), steps_style());
        let job: Job = serde_json::from_value(serde_json::json!({
            "id": crate::domain::JobId::new(), "status": "running", "progress": {"n_steps_done": 4, "n_steps": 32},
        }))
        .expect("a job");
        let shown = line("dpo", &job, job.progress, "loss 0.5", Duration::from_secs(75));
        assert_eq!(shown, "dpo         step   4/32  1:15  loss 0.5");
        assert_eq!(line("dpo", &job, None, "preparing", Duration::ZERO), "dpo         running  preparing");
    }
}
