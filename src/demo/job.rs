//! One job of the demo: what is asked for, and following it to its end.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{
    client::Client,
    interrupt::Interrupt,
    progress::Progress,
    wire::{Event, Job, List, Sample, SamplePhase},
};
use crate::domain::{FileId, JobId, JobStatus, ModelId, metric};

/// A job that shows no sign of life for this long is given up.
const STALL_LIMIT: Duration = Duration::from_mins(15);
/// How long a cancelled job may take to end.
const CANCEL_LIMIT: Duration = Duration::from_secs(20);
/// Events per page, and pages read of one job at most.
const PAGE: usize = 100;
const MAX_PAGES: usize = 50;

/// A job that succeeded, and what it said on the way.
pub(super) struct Finished {
    pub(super) job: Job,
    pub(super) before: Option<Sample>,
    pub(super) after: Option<Sample>,
    pub(super) peak_memory_bytes: Option<u64>,
}

/// The body of a job; `method` is one of [`dpo`] and [`mrpo`].
pub(super) fn request(model: &ModelId, training_file: &FileId, validation_file: &FileId, method: &Value) -> Value {
    json!({
        "model": model,
        "training_file": training_file,
        "validation_file": validation_file,
        "seed": 1,
        "suffix": "demo",
        "method": method,
    })
}

/// Plain DPO: the only reference is the model's own start.
pub(super) fn dpo() -> Value {
    json!({"type": "dpo", "dpo": {"hyperparameters": hyperparameters()}})
}

/// MRPO against the references of a list.
pub(super) fn mrpo(reference_list: &str) -> Value {
    json!({"type": "mrpo", "mrpo": {"references": reference_list, "hyperparameters": hyperparameters()}})
}

/// The settings both jobs share: one pass over the data is 32 steps.
fn hyperparameters() -> Value {
    json!({
        "beta": 0.1,
        "learning_rate": 3e-4,
        "n_epochs": 1,
        "batch_size": 8,
        "max_length": 256,
        // Held-out pairs before and after only: four more looks at them would be a fifth of the time.
        "eval_every_n_steps": 32,
        // All seven linears: with the attention's two alone the margins move as well, but what the model writes hardly does.
        "lora": {
            "rank": 8,
            "alpha": 16,
            "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        },
    })
}

/// Creates a job and follows it to its end. Cancels it where following it ends early.
pub(super) fn run(client: &Client, name: &str, body: &Value, interrupt: &Interrupt) -> Result<Finished> {
    let created: Job = client.post("/v1/fine_tuning/jobs", Some(body))?;
    let mut guard = CancelOnDrop { client, id: &created.id, armed: true };
    let job = follow(client, name, &created.id, interrupt)?;
    guard.armed = false;
    if job.status != JobStatus::Succeeded {
        let reason = job.error.map_or("no reason given".to_owned(), |failure| failure.message);
        bail!("the {name} job {} is {}: {reason}", job.id, job.status);
    }
    let events = all_events(client, &job.id)?;
    let sample = |phase| events.iter().filter_map(Event::sample).find(|s| s.phase == phase);
    Ok(Finished {
        before: sample(SamplePhase::Before),
        after: sample(SamplePhase::After),
        peak_memory_bytes: events.iter().filter_map(Event::peak_memory_bytes).max(),
        job,
    })
}

/// Shows a job's progress until it has ended or waits for its user.
fn follow(client: &Client, name: &str, id: &JobId, interrupt: &Interrupt) -> Result<Job> {
    let mut progress = Progress::new(name);
    let mut last_sign = (None, None, Instant::now());
    interrupt.poll(&format!("the {name} job"), Duration::MAX, || {
        let job: Job = client.get(&format!("/v1/fine_tuning/jobs/{id}"))?;
        let newest: List<Event> = client.get(&format!("/v1/fine_tuning/jobs/{id}/events?limit=20"))?;
        progress.show(&job, &describe(&newest.data));
        if job.status.is_final() || job.status == JobStatus::Paused {
            progress.finish(&job);
            return Ok(Some(job));
        }
        let sign = newest.data.first().map(|event| event.id.clone());
        if (&last_sign.0, last_sign.1) != (&sign, job.progress) {
            last_sign = (sign, job.progress, Instant::now());
        } else if last_sign.2.elapsed() > STALL_LIMIT {
            bail!("the {name} job has shown no progress for {} minutes", STALL_LIMIT.as_secs() / 60);
        }
        Ok(None)
    })
}

/// What the newest events say, in a few words: the newest step's loss, or the newest message.
fn describe(newest_first: &[Event]) -> String {
    let loss = newest_first.iter().find_map(|e| Some((e.metric(metric::LOSS)?, e.metric(metric::REWARDS_MARGINS)?)));
    match (loss, newest_first.first()) {
        (Some((loss, margin)), _) => format!("loss {loss:.4}  margin {margin:+.3}"),
        (None, Some(event)) => event.message.chars().take(60).collect(),
        (None, None) => String::new(),
    }
}

/// Everything a job has said, newest first.
fn all_events(client: &Client, id: &JobId) -> Result<Vec<Event>> {
    let mut events: Vec<Event> = Vec::new();
    for _ in 0..MAX_PAGES {
        let after = events.last().map_or(String::new(), |event| format!("&after={}", event.id));
        let page: List<Event> = client.get(&format!("/v1/fine_tuning/jobs/{id}/events?limit={PAGE}{after}"))?;
        events.extend(page.data);
        if !page.has_more {
            return Ok(events);
        }
    }
    bail!("job {id} has more than {} events", PAGE * MAX_PAGES)
}

/// Cancels a job that nobody follows any more: its process would otherwise outlive the demo.
struct CancelOnDrop<'a> {
    client: &'a Client,
    id: &'a JobId,
    armed: bool,
}

impl CancelOnDrop<'_> {
    fn cancel(&self) -> Result<()> {
        let path = format!("/v1/fine_tuning/jobs/{}", self.id);
        self.client.post::<Value>(&format!("{path}/cancel"), None)?;
        let asked = Instant::now();
        // Not through `Interrupt`: this runs because of one.
        while !self.client.get::<Job>(&path)?.status.is_final() {
            if asked.elapsed() > CANCEL_LIMIT {
                bail!("it is still running after {} s", CANCEL_LIMIT.as_secs());
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if self.armed
            && let Err(e) = self.cancel().context("could not cancel the job")
        {
            eprintln!("job {}: {e:#}", self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{JobRequest, JobSpec, Problems, Reference};

    fn resolve(method: &Value, listed: Option<&[Reference]>) -> JobSpec {
        let base = "smol".parse().expect("legal");
        let body = request(&base, &FileId::new(), &FileId::new(), method);
        let request: JobRequest = serde_json::from_value(body).expect("a body the server takes");
        let mut problems = Problems::default();
        let spec = JobSpec::resolve(&request, listed, 0, &mut problems);
        assert_eq!(problems, Problems::default());
        spec
    }

    #[test]
    fn both_jobs_are_valid_and_differ_in_their_references_only() {
        let list = crate::domain::ReferenceListId::new();
        let reference = |model: &str| Reference { model: model.parse().expect("legal"), weight: None };
        let dpo = resolve(&dpo(), None);
        let mrpo = resolve(&mrpo(list.as_str()), Some(&[reference("smol"), reference("ft:smol:demo:1")]));
        assert_eq!((dpo.references.len(), mrpo.references.len()), (1, 2));
        assert_eq!(dpo.hyperparameters, mrpo.hyperparameters);
        assert_eq!(super::super::data::N_TRAIN / dpo.hyperparameters.batch_size, 32);
    }

    #[test]
    fn the_newest_loss_is_shown_and_a_message_where_there_is_none() {
        let event = |value| serde_json::from_value::<Event>(value).expect("an event");
        let scoring = event(json!({"id": "a", "message": "scoring reference smol"}));
        let step = event(json!({"id": "b", "message": "step 3", "data": {"loss": 0.5, "rewards/margins": 0.25}}));
        assert_eq!(describe(std::slice::from_ref(&scoring)), "scoring reference smol");
        assert_eq!(describe(&[scoring, step]), "loss 0.5000  margin +0.250");
        assert_eq!(describe(&[]), "");
    }
}
