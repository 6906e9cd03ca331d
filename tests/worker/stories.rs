//! Stories of the queue: what each act makes of it.

use mrpo::{
    domain::{EvaluationPhase, Failure, FailureCode, JobId, JobStatus, ModelId, Ownership, RunEvent, RunSpec},
    store::{JobTerms, MetricKind, StoreError},
};

use crate::{
    records::{bad_report, checkpoint, evaluation, info, message, metrics, progress, spec, succeeded, uploaded_file},
    world::{BEGIN, World},
};

#[tokio::test]
async fn a_job_from_the_queue_to_its_model() {
    let mut w = World::new().await;
    let (first, _second) = (w.job("first").await, w.job("second").await);
    assert_eq!(w.queue().await, "first queued\nsecond queued\n");
    w.is(&["first running", "second queued"]).await;

    let mut process = w.process(&first).await;
    let RunSpec::Train(spec) = process.dir.spec().expect("written") else { panic!("a job is a training run") };
    assert_eq!((spec.job.clone(), spec.seed, spec.references.len()), (first.clone(), 7, 1));
    assert_eq!(spec.references[0].location, info("/models/base.gguf", &[]).location);
    assert!(spec.training_file.starts_with(w.dir.path().join("files")));

    process.say(message("Read 2 pairs"));
    process.say(evaluation(0, EvaluationPhase::Before, 0.6925));
    process.say(progress(0, 4));
    w.is(&["first running 0/4", "second queued"]).await;
    process.say(metrics(1, 0.6925));
    process.say(progress(1, 4));
    process.say(checkpoint(2));
    w.is(&["first running 1/4", "second queued"]).await;
    assert_eq!(w.store.totals().await.expect("counted").step_ms, [(0, 250.0)]);
    // Two seconds for one step, three steps left.
    assert_eq!(w.store.job(&first).await.expect("found").estimated_finish, Some(BEGIN + 5 + 6));

    process.say(evaluation(4, EvaluationPhase::After, 0.5));
    process.say(succeeded());
    // Its last word is said, its process is still there: so is its hold on the device.
    w.is(&["first running 1/4", "second queued"]).await;
    drop(process);
    w.becomes(&["first succeeded 4/4", "second running"]).await;

    let job = w.store.job(&first).await.expect("found");
    let tuned = job.fine_tuned_model.expect("it has a model");
    assert_eq!((job.n_trained_tokens, job.estimated_finish), (Some(1234), None));
    assert_eq!(job.evaluation.before.expect("before").metrics["loss"], 0.6925);
    assert_eq!(job.evaluation.after.expect("after").step, 4);
    let model = w.store.model(&tuned).await.expect("registered");
    assert_eq!((model.job_id, model.base_id.expect("base").as_str()), (Some(first.clone()), "smol"));
    let saved = w.store.checkpoints(&first, None, 9).await.expect("listed").items;
    assert_eq!((saved.len(), saved[0].step, saved[0].size_bytes), (1, 2, 9));
    assert_eq!(saved[0].model_id, ModelId::of_checkpoint(&tuned, 2));
    assert!(w.store.model(&saved[0].model_id).await.is_ok());
    let steps = |kind| w.store.metrics(&first, kind, None, 9);
    assert_eq!(steps(MetricKind::Training).await.expect("listed").items.len(), 1);
    assert_eq!(steps(MetricKind::Evaluation).await.expect("listed").items.len(), 2);
    assert_eq!(
        w.said(&first).await,
        [
            &format!("Created fine-tuning job: {first}"),
            "Files validated, job is queued",
            "Fine-tuning job started",
            "Read 2 pairs",
            "Step 0: validation loss=0.6925",
            "Step 1/4: training loss=0.6925",
            "Checkpoint created at step 2",
            "Step 4/4: validation loss=0.5000",
            &format!("New fine-tuned model created: {tuned}"),
            "The job has successfully completed",
        ]
    );
}

#[tokio::test]
async fn a_running_job_is_paused_resumed_and_cancelled() {
    let mut w = World::new().await;
    let job = w.job("job").await;
    w.is(&["job running"]).await;
    let mut process = w.process(&job).await;
    assert_eq!(w.store.pause_job(&job).await.expect("asked").status, JobStatus::Running);
    w.is(&["job running"]).await;
    process.say(checkpoint(3));
    process.say(RunEvent::Stopped { step: 3 });
    drop(process);
    w.becomes(&["job paused"]).await;
    w.is(&["job paused"]).await;

    w.store.resume_job(&job).await.expect("resumed");
    assert_eq!(w.queue().await, "job queued\n");
    w.is(&["job running attempt 2"]).await;
    let mut process = w.process(&job).await;
    process.say(message("Resuming from step 3"));
    w.store.pause_job(&job).await.expect("asked");
    w.store.pause_job(&job).await.expect("asking twice is asking once");
    w.store.cancel_job(&job).await.expect("a cancel overrides a pause");
    assert!(matches!(w.store.pause_job(&job).await, Err(StoreError::IllegalTransition(_))));
    process.say(RunEvent::Stopped { step: 4 });
    drop(process);
    w.becomes(&["job cancelled attempt 2"]).await;
    assert_eq!(w.store.job(&job).await.expect("found").fine_tuned_model, None);
    let said = w.said(&job).await;
    assert_eq!(said.iter().filter(|m| *m == "Stopping the job: pause requested").count(), 2);
    assert_eq!(said.last().map(String::as_str), Some("The job has been cancelled"));
}

#[tokio::test]
async fn a_job_in_every_other_status_obeys_the_table() {
    let mut w = World::new().await;
    w.job("runs").await;
    w.tick().await;
    let waits = w.job("waits").await;
    w.store.pause_job(&waits).await.expect("paused");
    assert!(matches!(w.store.pause_job(&waits).await, Err(StoreError::IllegalTransition(_))));
    w.store.resume_job(&waits).await.expect("resumed");
    assert!(matches!(w.store.resume_job(&waits).await, Err(StoreError::IllegalTransition(_))));
    w.store.cancel_job(&waits).await.expect("cancelled");
    for refused in [w.store.cancel_job(&waits).await, w.store.pause_job(&waits).await, w.store.resume_job(&waits).await]
    {
        let error = refused.expect_err("it has ended");
        assert!(error.to_string().contains("a job that is cancelled cannot become"), "{error}");
    }
    assert!(matches!(w.store.cancel_job(&JobId::new()).await, Err(StoreError::NotFound { kind: "job", .. })));
}

#[tokio::test]
async fn what_a_job_reads_is_checked_first() {
    let mut w = World::new().await;
    let model = w.ready_model("smol").await;
    let (good, bad) = (uploaded_file(&w.store).await, uploaded_file(&w.store).await);
    for (name, file) in [("good", &good), ("bad", &bad)] {
        let job = w
            .store
            .insert_job(&spec(&model, file), &Ownership::default(), &JobTerms::default())
            .await
            .expect("inserted")
            .id;
        w.call(name, &job);
    }
    w.is(&["good validating_files", "bad validating_files"]).await;
    w.store.set_file_report(&bad, &bad_report()).await.expect("reported");
    w.is(&["good validating_files", "bad failed (InvalidDataset)"]).await;
    w.store.set_file_report(&good, &mrpo::domain::DatasetReport::default()).await.expect("reported");
    w.is(&["good running", "bad failed (InvalidDataset)"]).await;
    assert_eq!(w.jobs().await, 2);
}

#[tokio::test]
async fn a_job_waits_for_its_model_and_fails_with_it() {
    let mut w = World::new().await;
    let file = crate::records::file(&w.store).await;
    let model = w.pending_model("broken").await;
    let job = w
        .store
        .insert_job(&spec(&model, &file), &Ownership::default(), &JobTerms::default())
        .await
        .expect("inserted")
        .id;
    w.call("job", &job);
    w.is(&["broken pending", "job validating_files"]).await;
    let deleted = w.store.delete_model(&model).await.expect_err("a job reads it");
    assert!(deleted.to_string().contains(job.as_str()), "{deleted}");
    let mut process = w.newest_process();
    let failure = Failure::new(FailureCode::UnsupportedModel, "the architecture 'Mamba' is not supported");
    process.say(RunEvent::Failed { failure });
    drop(process);
    w.becomes(&["broken error (UnsupportedModel)", "job failed (InvalidModel)"]).await;
    let error = w.store.job(&job).await.expect("found").error.expect("it says why");
    assert!(error.message.contains("broken"), "{error}");
}

#[tokio::test]
async fn a_run_that_failed_says_why() {
    let mut w = World::new().await;
    let job = w.job("job").await;
    w.tick().await;
    let mut process = w.process(&job).await;
    process.say(RunEvent::Failed { failure: Failure::new(FailureCode::NonFiniteLoss, "the loss at step 3 is NaN") });
    drop(process);
    w.becomes(&["job failed (NonFiniteLoss)"]).await;
    let said = w.said(&job).await;
    assert_eq!(said.last().map(String::as_str), Some("The job has failed: the loss at step 3 is NaN"));
}

#[tokio::test]
async fn a_model_another_is_built_on_stays() {
    let mut w = World::new().await;
    let job = w.job("job").await;
    w.tick().await;
    let mut process = w.process(&job).await;
    process.say(checkpoint(2));
    process.say(succeeded());
    drop(process);
    w.becomes(&["job succeeded"]).await;
    let (smol, tuned) = ("smol".parse().expect("legal"), w.store.job(&job).await.expect("found").fine_tuned_model);
    let refused = w.store.delete_model(&smol).await.expect_err("the tuned model is built on it").to_string();
    assert!(refused.contains("built on it"), "{refused}");
    w.store.delete_model(&ModelId::of_checkpoint(tuned.as_ref().expect("made"), 2)).await.expect("deleted");
    w.store.delete_model(&tuned.expect("made")).await.expect("deleted");
    w.store.delete_model(&smol).await.expect("nothing needs it any more");
}

#[tokio::test]
async fn a_remote_model_is_not_asked_once_its_server_is_no_longer_allowed() {
    let mut w = World::new().await;
    let id = "judge".parse().expect("legal");
    let source = "remote:http://127.0.0.1:9/v1#judge".parse().expect("a source");
    w.store.insert_model(&id, &source, &Ownership::default()).await.expect("inserted");
    w.tick().await;
    let error = w.store.model(&id).await.expect("found").error.expect("it says why");
    assert_eq!(error.code, FailureCode::RemoteUnavailable);
    assert!(error.message.contains("--allow-remote 127.0.0.1:9"), "{error}");
}
