//! What is kept of jobs: stories of checkpoints that go, of those that are used, and of crashes in between.

use std::{collections::BTreeMap, path::PathBuf};

use mrpo::{
    domain::{
        CheckpointId, CheckpointSummary, ExportDtype, ExportFormat, HashedFile, JobId, ModelId, Ownership, Reference,
        Retention, RunEvent,
    },
    run_dir::{CheckpointManifest, Reading, RunDir},
    store::{JobTerms, StoreError},
};

use crate::{
    records::{file, info, spec},
    world::{Process, World},
};

const DAY: i64 = 86_400;

/// A running job with this retention, and its process.
async fn begin(w: &mut World, retention: Retention) -> (JobId, Process) {
    let smol = w.ready_model("smol").await;
    let mut spec = spec(&smol, &file(&w.store).await);
    spec.retention = retention;
    let job = w.store.insert_job(&spec, &Ownership::default(), &JobTerms::default()).await.expect("inserted").id;
    w.call("job", &job);
    w.is(&["job running"]).await;
    let process = w.process(&job).await;
    (job, process)
}

/// Writes a checkpoint and tells of it, as a run does.
fn save(process: &mut Process, step: u64, eval_loss: f64) -> PathBuf {
    let directory = RunDir::checkpoint_name(step);
    let home = process.dir.checkpoints().join(&directory);
    std::fs::create_dir_all(&home).expect("made");
    let files = ["adapter_model.safetensors", "optimizer.safetensors", "state.json"].map(|name| {
        std::fs::write(home.join(name), "0123456789").expect("written");
        HashedFile { name: name.into(), size_bytes: 10, sha256: "0".repeat(64) }
    });
    let manifest = serde_json::to_vec(&CheckpointManifest { step, files: files.into() }).expect("serialises");
    std::fs::write(home.join(RunDir::MANIFEST), manifest).expect("written");
    process.say(RunEvent::Checkpoint(CheckpointSummary {
        step,
        directory,
        size_bytes: 30,
        model: info("/models/base.gguf", &[home.to_str().expect("unicode")]),
        metrics: BTreeMap::from([("eval_loss".into(), eval_loss)]),
    }));
    home
}

fn succeed(mut process: Process, newest: &std::path::Path) {
    let model = Some(info("/models/base.gguf", &[newest.to_str().expect("unicode")]));
    process.say(RunEvent::Succeeded { model, n_trained_tokens: 1 });
}

/// The steps that are seen, oldest first, with the sizes that are told of them.
async fn seen(w: &World, job: &JobId) -> Vec<(u64, u64)> {
    let mut page = w.store.checkpoints(job, None, 100).await.expect("listed").items;
    page.reverse();
    page.into_iter().map(|c| (c.step, c.size_bytes)).collect()
}

async fn id_of(w: &World, job: &JobId, step: u64) -> CheckpointId {
    let page = w.store.checkpoints(job, None, 100).await.expect("listed").items;
    page.into_iter().find(|c| c.step == step).expect("seen").id
}

fn model_of(job: &JobId, step: u64) -> ModelId {
    let tuned = ModelId::of_job(&"smol".parse().expect("legal"), None, job);
    ModelId::of_checkpoint(&tuned, step)
}

/// A look after the interval in which retention is applied.
async fn later(w: &mut World) {
    w.now += 5;
    w.tick().await;
    w.now += 5;
    w.tick().await;
}

fn keep(keep_last: u32, keep_best: u32) -> Retention {
    Retention { keep_last: Some(keep_last), keep_best, ..Retention::default() }
}

#[tokio::test]
async fn the_last_and_the_best_stay_and_what_nobody_resumes_goes_earlier() {
    let mut w = World::new().await;
    let (job, mut process) = begin(&mut w, keep(1, 1)).await;
    let homes: Vec<PathBuf> =
        [0.5, 0.2, 0.4].iter().enumerate().map(|(i, loss)| save(&mut process, i as u64 + 1, *loss)).collect();
    later(&mut w).await;
    assert_eq!(homes.iter().map(|home| home.exists()).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(seen(&w, &job).await, [(2, 10), (3, 30)], "of the best only the model is kept");
    assert!(matches!(w.store.model(&model_of(&job, 1)).await, Err(StoreError::NotFound { .. })));
    assert!(w.store.model(&model_of(&job, 2)).await.is_ok());
    assert!(homes[2].join("optimizer.safetensors").exists() && !homes[1].join("optimizer.safetensors").exists());
    assert!(w.said(&job).await.iter().any(|said| said.contains("step 1 has been removed")));
    // What a job goes on from is nobody's to delete.
    let newest = id_of(&w, &job, 3).await;
    let refused = w.store.delete_checkpoint(&job, &newest).await.expect_err("in use").to_string();
    assert!(refused.contains("goes on from it") && refused.contains("cancel"), "{refused}");

    succeed(process, &homes[2]);
    w.becomes(&["job succeeded"]).await;
    later(&mut w).await;
    assert_eq!(seen(&w, &job).await, [(2, 10), (3, 10)], "an ended job goes on from nothing");
    assert!(homes[2].join("adapter_model.safetensors").exists());
    let refused = w.store.delete_checkpoint(&job, &newest).await.expect_err("in use").to_string();
    assert!(refused.contains("model 'ft:smol::"), "{refused}");
}

#[tokio::test]
async fn what_is_used_or_read_stays_until_it_is_not() {
    let mut w = World::new().await;
    let (job, mut process) = begin(&mut w, keep(1, 0)).await;
    let first = save(&mut process, 1, 0.5);
    w.tick().await;
    let export = w.store.insert_export(&model_of(&job, 1), ExportFormat::Gguf, ExportDtype::Q8_0, None).await;
    let export = export.expect("inserted").id;
    save(&mut process, 2, 0.5);
    later(&mut w).await;
    assert!(first.exists() && seen(&w, &job).await.len() == 2, "an export reads it");

    w.store.delete_export(&export).await.expect("deleted");
    let reading = Reading::begin(&first).expect("there");
    later(&mut w).await;
    assert!(first.exists(), "somebody downloads it");
    assert_eq!(seen(&w, &job).await.len(), 1, "and nobody else begins to");
    drop(reading);
    later(&mut w).await;
    assert!(!first.exists());
}

#[tokio::test]
async fn a_crash_at_any_moment_leaves_nothing_behind() {
    let mut w = World::new().await;
    let (job, mut process) = begin(&mut w, keep(1, 0)).await;
    let first = save(&mut process, 1, 0.5);
    let second = save(&mut process, 2, 0.4);
    let reading = Reading::begin(&first).expect("there");
    w.tick().await;
    // The row is marked and the directory has its other name; then the server dies.
    drop(reading);
    assert_eq!(w.store.surplus(10).await.expect("listed").len(), 1);
    std::fs::rename(&first, first.with_extension("removed")).expect("renamed");
    w.restart().await;
    w.now += 15;
    later(&mut w).await;
    assert!(!first.with_extension("removed").exists() && second.exists());
    assert_eq!((seen(&w, &job).await.len(), w.store.surplus(10).await.expect("listed").len()), (1, 0));
}

#[tokio::test]
async fn the_files_of_an_ended_run_go_and_its_model_stays_until_it_is_deleted() {
    let mut w = World::new().await;
    let (job, mut process) = begin(&mut w, Retention { keep_days: Some(100), ..Retention::default() }).await;
    let refused = w.store.remove_run_data(&job).await.expect_err("it runs").to_string();
    assert!(refused.contains("running") && refused.contains("cancel"), "{refused}");
    let homes = [save(&mut process, 1, 0.5), save(&mut process, 2, 0.4)];
    let run = process.dir.clone();
    succeed(process, &homes[1]);
    w.becomes(&["job succeeded"]).await;
    later(&mut w).await;
    assert!(homes.iter().all(|home| home.exists()) && run.events().exists(), "its time is not over");
    w.now += 100 * DAY;
    later(&mut w).await;
    assert_eq!((homes[0].exists(), homes[1].exists(), run.events().exists()), (false, true, false));
    assert_eq!(seen(&w, &job).await, [(2, 10)]);
    assert_eq!(w.queue().await, "job succeeded\n");

    let tuned = w.store.job(&job).await.expect("found").fine_tuned_model.expect("made");
    w.store.delete_model(&tuned).await.expect("deleted");
    later(&mut w).await;
    assert!(!run.root().exists() && seen(&w, &job).await.is_empty());
    w.store.remove_run_data(&job).await.expect("asked twice is asked once");
}

#[tokio::test]
async fn what_renders_a_remote_references_prompts_is_used() {
    let mut w = World::new().await;
    let (job, mut process) = begin(&mut w, Retention::default()).await;
    save(&mut process, 1, 0.5);
    save(&mut process, 2, 0.4);
    w.tick().await;
    let tokenizer = model_of(&job, 1);
    let source = format!("remote:http://127.0.0.1:9/v1#judge&tokenizer={tokenizer}").parse().expect("legal");
    let judge = "judge".parse().expect("legal");
    w.store.insert_model(&judge, &source, &Ownership::default()).await.expect("inserted");
    let checkpoint = id_of(&w, &job, 1).await;
    for refused in [
        w.store.delete_checkpoint(&job, &checkpoint).await.expect_err("in use").to_string(),
        w.store.delete_model(&tokenizer).await.expect_err("in use").to_string(),
    ] {
        assert!(refused.contains("'judge', whose prompts it renders"), "{refused}");
    }
    w.store.delete_model(&judge).await.expect("deleted");
    w.store.delete_checkpoint(&job, &checkpoint).await.expect("deleted");
}

#[tokio::test]
async fn what_a_run_that_was_given_up_keeps_for_another_goes_when_that_lets_go_of_it() {
    let mut w = World::new().await;
    let (job, mut process) = begin(&mut w, Retention::default()).await;
    let homes = [save(&mut process, 1, 0.5), save(&mut process, 2, 0.4)];
    succeed(process, &homes[1]);
    w.becomes(&["job succeeded"]).await;
    let references = [Reference { model: model_of(&job, 1), weight: None }];
    let list = w.store.insert_reference_list("mine", &references, &Ownership::default()).await.expect("inserted");
    w.store.remove_run_data(&job).await.expect("given up");
    later(&mut w).await;
    assert!(homes.iter().all(|home| home.exists()), "one is in a list, one the model's");
    w.store.delete_reference_list(&list.id).await.expect("deleted");
    later(&mut w).await;
    assert_eq!(homes.each_ref().map(|home| home.exists()), [false, true]);
    assert_eq!(w.store.tidy_runs(10).await.expect("asked"), 0, "the model's own is not asked about again");
}
