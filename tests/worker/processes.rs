//! Real processes: this test program itself, started by the worker through a small script.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use mrpo::run_dir::RunDir;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    records::message,
    world::{Process, World},
};

/// A program that plays a run's process in the given way.
pub(crate) fn program(dir: &Path, way: &str) -> PathBuf {
    let path = dir.join(format!("{way}.sh"));
    let this = std::env::current_exe().expect("a path");
    let script = format!(
        "#!/bin/sh\nWAY={way} RUN_DIR=\"$2\" exec {} --exact processes::the_process --ignored --nocapture\n",
        this.display()
    );
    fs::write(&path, script).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    path
}

#[tokio::test]
#[ignore = "not a test: what the worker starts in the others"]
async fn the_process() {
    let dir = RunDir::new(std::env::var_os("RUN_DIR").expect("started by a script"));
    let way = std::env::var("WAY").expect("started by a script");
    let mut told = signal(SignalKind::terminate()).expect("handled");
    // Unlike a played process it leaves its pid, so that it can be stopped.
    let lock = dir.lock().expect("asked").expect("free");
    let mut events = mrpo::run_dir::JsonLines::open(&dir.events()).expect("opened");
    let mut say = |event| events.append(&mrpo::domain::EventRecord { at_ms: 1000, event }).expect("written");
    say(message("ready"));
    // A test that fails must not leave it behind.
    std::thread::spawn(|| {
        std::thread::sleep(std::time::Duration::from_mins(1));
        std::process::abort();
    });
    match way.as_str() {
        "obedient" => {
            told.recv().await;
            say(mrpo::domain::RunEvent::Stopped { step: 5 });
        }
        "stubborn" => loop {
            told.recv().await;
            say(message("not now"));
        },
        "full" => {
            told.recv().await;
            let failure = mrpo::domain::Failure::new(mrpo::domain::FailureCode::DiskFull, "no room");
            say(mrpo::domain::RunEvent::Failed { failure });
        }
        way => panic!("it knows no such way: {way}"),
    }
    drop(lock);
}

async fn started(way: &str) -> (World, mrpo::domain::JobId, tempfile::TempDir) {
    let scripts = tempfile::tempdir().expect("temp dir");
    let mut w = World::new().await;
    w.ready_model("smol").await;
    w.worker = crate::world::worker(&w.store, w.dir.path(), program(scripts.path(), way));
    let job = w.job("job").await;
    hears(&mut w, &job, "ready").await;
    (w, job, scripts)
}

/// Looks until the job has said so.
pub(crate) async fn hears(w: &mut World, job: &mrpo::domain::JobId, text: &str) {
    let asked = std::time::Instant::now();
    while !w.said(job).await.iter().any(|m| m == text) {
        assert!(asked.elapsed().as_secs() < 20, "it never says {text}: {:?}", w.said(job).await);
        w.tick().await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_process_that_is_told_to_stop_saves_and_ends() {
    let (mut w, job, _scripts) = started("obedient").await;
    w.store.pause_job(&job).await.expect("asked");
    w.becomes(&["job paused"]).await;
    let said = w.said(&job).await;
    assert_eq!(said.last().map(String::as_str), Some("The job has been paused at step 5"));
}

#[tokio::test]
async fn a_process_that_does_not_stop_is_killed_when_its_time_is_over() {
    let (mut w, job, _scripts) = started("stubborn").await;
    w.store.cancel_job(&job).await.expect("asked");
    hears(&mut w, &job, "not now").await;
    w.now += 59;
    w.worker.tick_at(w.now).await.expect("a good look");
    assert_eq!(w.queue().await, "job running\n");
    w.now += 1;
    w.becomes(&["job cancelled"]).await;
    let said = w.said(&job).await;
    assert!(said.iter().any(|m| m.contains("signal 9")), "{said:?}");
}

#[tokio::test]
async fn a_process_outlives_its_server_and_obeys_the_next() {
    let (mut w, job, _scripts) = started("obedient").await;
    w.restart().await;
    w.now += 15;
    w.is(&["job running"]).await;
    w.store.cancel_job(&job).await.expect("asked");
    w.becomes(&["job cancelled"]).await;
}

#[tokio::test]
async fn a_server_that_ends_hands_its_runs_over_at_once() {
    let mut w = World::new().await;
    let (job, scripts) = (w.job("job").await, tempfile::tempdir().expect("temp dir"));
    let first = crate::world::worker(&w.store, w.dir.path(), program(scripts.path(), "obedient"));
    let heartbeat = first.heartbeat();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(first.run(async {
        let _ = stopped.await;
    }));
    while !w.said(&job).await.iter().any(|m| m == "ready") {
        assert!(!running.is_finished(), "it works until it is told to stop");
        tokio::task::yield_now().await;
    }
    assert!(heartbeat.is_alive());
    stop.send(()).expect("it listens");
    running.await.expect("it ends");
    // Before any lease that was not given back can expire.
    w.now = 1;
    w.store.cancel_job(&job).await.expect("asked");
    w.becomes(&["job cancelled"]).await;
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_tried_and_given_up() {
    let mut w = World::new().await;
    w.ready_model("smol").await;
    w.worker = crate::world::worker(&w.store, w.dir.path(), "/nowhere/mrpo".into());
    w.job("job").await;
    w.becomes(&["job failed attempt 3 (RunDied)"]).await;
}

#[tokio::test]
async fn a_line_that_cannot_be_read_ends_the_run() {
    let mut w = World::new().await;
    let job = w.job("job").await;
    w.tick().await;
    let process: Process = w.process(&job).await;
    fs::write(process.dir.events(), "{\"at_ms\":1,\"type\":\"riddle\"}\n").expect("written");
    w.is(&["job running"]).await;
    drop(process);
    w.becomes(&["job failed (Internal)"]).await;
}
