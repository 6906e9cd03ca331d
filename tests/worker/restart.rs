//! Deaths and restarts, of runs and of the server.

use mrpo::{
    domain::{EventRecord, FileId, QueueRules, RunEvent, RunId},
    run_dir::RunDir,
    store::{FreeRoom, Lease, RunBatch, RunSubject, StoreError},
};

use crate::{
    records::{checkpoint, file, message, metrics, open, progress, succeeded},
    world::{BEGIN, World},
};

#[tokio::test]
async fn a_run_that_dies_is_started_again_until_it_has_died_too_often() {
    let mut w = World::new().await;
    let job = w.job("job").await;
    w.is(&["job running"]).await;
    w.process(&job).await.say(message("one"));
    w.becomes(&["job running attempt 2"]).await;
    // A checkpoint: it gets ahead, so the deaths before it do not count.
    w.process(&job).await.say(checkpoint(2));
    w.becomes(&["job running attempt 3"]).await;
    drop(w.process(&job).await);
    w.becomes(&["job running attempt 4"]).await;
    drop(w.process(&job).await);
    w.becomes(&["job failed attempt 4 (RunDied)"]).await;
    let error = w.store.job(&job).await.expect("found").error.expect("it says why");
    assert!(error.message.contains("stderr.log"), "{error}");
}

#[tokio::test]
async fn a_dead_run_that_was_to_stop_has_stopped() {
    let mut w = World::new().await;
    let job = w.job("job").await;
    w.is(&["job running"]).await;
    let process = w.process(&job).await;
    w.store.pause_job(&job).await.expect("asked");
    drop(process);
    w.becomes(&["job paused"]).await;
    w.store.resume_job(&job).await.expect("resumed");
    w.is(&["job running attempt 2"]).await;
    let process = w.process(&job).await;
    w.store.cancel_job(&job).await.expect("asked");
    drop(process);
    w.becomes(&["job cancelled attempt 2"]).await;
}

#[tokio::test]
async fn a_server_that_is_killed_and_started_again_loses_and_doubles_nothing() {
    let mut w = World::new().await;
    let job = w.job("job").await;
    w.is(&["job running"]).await;
    let mut process = w.process(&job).await;
    process.say(progress(0, 4));
    process.say(metrics(1, 0.7));
    w.is(&["job running 0/4"]).await;
    process.say(metrics(2, 0.6));

    w.restart().await;
    // While the lease of the first lasts, the second leaves its run alone.
    w.is(&["job running 0/4"]).await;
    assert_eq!(w.said(&job).await.len(), 4);
    w.now += 15;
    w.is(&["job running 0/4"]).await;
    w.is(&["job running 0/4"]).await;
    process.say(metrics(3, 0.5));
    process.say(succeeded());
    drop(process);
    w.becomes(&["job succeeded 4/4"]).await;
    let said = w.said(&job).await;
    let steps: Vec<_> = said.iter().filter(|m| m.starts_with("Step")).map(String::as_str).collect();
    assert_eq!(
        steps,
        ["Step 1/4: training loss=0.7000", "Step 2/4: training loss=0.6000", "Step 3/4: training loss=0.5000"]
    );
}

#[tokio::test]
async fn a_run_that_died_without_a_server_is_found() {
    let mut w = World::new().await;
    let job = w.job("job").await;
    w.is(&["job running"]).await;
    let mut process = w.process(&job).await;
    process.say(checkpoint(2));
    drop(process);
    w.restart().await;
    w.now += 15;
    w.becomes(&["job running attempt 2"]).await;
    assert_eq!(w.store.checkpoints(&job, None, 9).await.expect("listed").items.len(), 1);
}

#[tokio::test]
async fn a_second_stop_in_the_same_file_is_the_end_not_the_first() {
    let mut w = World::new().await;
    let job = w.job("job").await;
    w.is(&["job running"]).await;
    // Stopped, then gone on with by hand while no server was there.
    let mut process = w.process(&job).await;
    process.say(RunEvent::Stopped { step: 1 });
    process.say(metrics(2, 0.6));
    process.say(succeeded());
    drop(process);
    w.becomes(&["job succeeded"]).await;
}

#[tokio::test]
async fn recording_twice_changes_nothing_and_a_stranger_records_nothing() {
    let mut w = World::new().await;
    let job = w.job("job").await;
    let lease = Lease { owner: "me", now: BEGIN, expires_at: BEGIN + 10 };
    let run = w.store.claim_job(&lease, &QueueRules::new(1), &FreeRoom::PLENTY).await.expect("asked").expect("queued");
    let events: Vec<_> = [progress(1, 2), metrics(1, 0.7), checkpoint(1), message("hello")]
        .into_iter()
        .enumerate()
        .map(|(i, event)| (i as u64 * 100, EventRecord { at_ms: 1000, event }))
        .collect();
    let batch = RunBatch {
        run_id: &run.id,
        owner: "me",
        events: &events,
        next_offset: 400,
        scores: &[],
        next_scores_offset: None,
        results: &[],
        end: None,
        now: BEGIN,
    };
    w.store.record(&batch).await.expect("recorded");
    let (said, queue) = (w.said(&job).await, w.queue().await);
    w.store.record(&batch).await.expect("recorded");
    w.store.record(&RunBatch { events: &events[2..], ..batch }).await.expect("recorded");
    assert_eq!((w.said(&job).await, w.queue().await), (said, queue));
    assert_eq!(w.store.checkpoints(&job, None, 9).await.expect("listed").items.len(), 1);
    let stranger = w.store.record(&RunBatch { owner: "you", ..batch }).await;
    assert!(matches!(stranger, Err(StoreError::LeaseLost { .. })), "{stranger:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_never_claim_the_same_job() {
    let mut w = World::new().await;
    for _ in 0..20 {
        w.job("job").await;
    }
    let mut claims = Vec::new();
    for owner in ["one", "two"] {
        let store = open(w.dir.path()).await;
        claims.push(tokio::spawn(async move {
            let lease = Lease { owner, now: BEGIN, expires_at: BEGIN + 10 };
            let mut jobs = Vec::new();
            while let Some(run) =
                store.claim_job(&lease, &QueueRules::new(100), &FreeRoom::PLENTY).await.expect("asked")
            {
                let RunSubject::Job(job) = run.subject else { panic!("a job's run") };
                jobs.push((job.to_string(), run.slot));
            }
            jobs
        }));
    }
    let mut all = Vec::new();
    for claim in claims {
        all.extend(claim.await.expect("claimed"));
    }
    assert_eq!(all.len(), 20);
    let slots: std::collections::BTreeSet<_> = all.iter().map(|(_, slot)| slot).collect();
    let jobs: std::collections::BTreeSet<_> = all.iter().map(|(job, _)| job).collect();
    assert_eq!((jobs.len(), slots.len()), (20, 20));
}

#[tokio::test]
async fn what_no_row_knows_of_goes_at_the_start_and_nothing_else_does() {
    let mut w = World::new().await;
    let known = file(&w.store).await;
    w.job("job").await;
    let folder = |name: &str| w.dir.path().join(name);
    for name in ["files", "runs"] {
        std::fs::create_dir_all(folder(name)).expect("made");
    }
    let [orphan, another_databases] = [FileId::new(), FileId::new()].map(|id| folder("files").join(id.as_str()));
    let (known, foreign) = (folder("files").join(known.as_str()), folder("files").join("notes.txt"));
    for path in [&orphan, &another_databases, &known, &foreign] {
        std::fs::write(path, "x").expect("written");
    }
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    std::fs::File::open(&another_databases).and_then(|file| file.set_modified(old)).expect("set");
    let [left, half_removed, at_work] =
        ["", ".removed", ""].map(|end| folder("runs").join(format!("{}{end}", RunId::new())));
    for path in [&left, &half_removed, &at_work] {
        std::fs::create_dir_all(path.join("checkpoints")).expect("made");
    }
    // Only what is not much newer than the newest row can be of this database.
    let newest = w.store.newest_at().await.expect("asked").expect("a job") as u64;
    let set = |path: &std::path::Path, at: u64| {
        let at = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at);
        std::fs::File::open(path).and_then(|file| file.set_modified(at)).expect("set");
    };
    let later = folder("files").join(FileId::new().as_str());
    std::fs::write(&later, "x").expect("written");
    set(&later, newest + 3600);
    let _process = RunDir::new(&at_work).lock().expect("asked").expect("free");
    assert_eq!(w.worker.remove_orphans().await.expect("swept"), 3);
    let there =
        [&orphan, &another_databases, &known, &foreign, &left, &half_removed, &at_work].map(|path| path.exists());
    assert_eq!(there, [false, true, true, true, false, false, true]);
    assert!(later.exists(), "an older copy of the database knows nothing of it");
}
