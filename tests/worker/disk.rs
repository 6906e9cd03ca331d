//! A disk that fills while jobs wait and run.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use mrpo::{
    domain::{
        ExportDtype, ExportFormat, Failure, FailureCode, JobId, QueueRules, RunEvent, WaitCode, needed_disk_bytes,
    },
    launch::{Launcher, Local},
    run_dir::{AskSpace, Disk, Space},
    worker::{Worker, WorkerConfig},
};

use crate::{
    processes::{hears, program},
    records::info,
    world::World,
};

const RESERVE: u64 = 1000;
const PLENTY: u64 = 1 << 30;

/// Nothing known is told as 0.
fn space(free: &AtomicU64) -> io::Result<Space> {
    match free.load(Ordering::Relaxed) {
        0 => Err(io::Error::other("not known")),
        free_bytes => Ok(Space { free_bytes, total_bytes: PLENTY }),
    }
}

async fn world(ask: AskSpace, program: PathBuf) -> World {
    with_slots(1, ask, program).await
}

async fn with_slots(n_slots: u16, ask: AskSpace, program: PathBuf) -> World {
    let mut w = World::new().await;
    w.ready_model("smol").await;
    let data_dir = w.dir.path().to_owned();
    let config =
        WorkerConfig { disk: Disk::new(&data_dir, RESERVE).asking(ask), ..WorkerConfig::new(data_dir, n_slots) };
    w.worker = Worker::new(w.store.clone(), Launcher::Local(Local::on_cpu(program)), config);
    w
}

async fn why(w: &World, job: &JobId) -> (WaitCode, String) {
    let job = w.store.job(job).await.expect("found");
    let waiting = w.store.waiting(&QueueRules::new(1), &[&job], w.now).await.expect("read").remove(0);
    let reason = waiting.expect("it waits").reason;
    (reason.code, reason.message)
}

#[tokio::test]
async fn a_job_waits_for_the_disk_its_checkpoints_take() {
    static FREE: AtomicU64 = AtomicU64::new(PLENTY);
    fn ask(_: &Path) -> io::Result<Space> {
        space(&FREE)
    }
    let mut w = world(ask, "/bin/true".into()).await;
    let job = w.job("job").await;
    let smol = "smol".parse().expect("legal");
    let export = w.store.insert_export(&smol, ExportFormat::Gguf, ExportDtype::Q8_0, None);
    let export = export.await.expect("inserted").id;
    // Above the reserve, but below what its checkpoints take besides.
    for free in [RESERVE - 1, RESERVE, RESERVE + 5000] {
        FREE.store(free, Ordering::Relaxed);
        w.is(&["job queued"]).await;
        let (code, message) = why(&w, &job).await;
        assert!(code == WaitCode::Disk && message.contains("deleted"), "{message}");
        let started = w.store.export(&export).await.expect("found").run_id.is_some();
        assert_eq!(started, free >= RESERVE, "nothing is begun on a low disk");
    }
    let said = w.said(&job).await;
    assert_eq!(said.iter().filter(|said| said.contains("waits for disk")).count(), 1, "{said:?}");
    FREE.store(PLENTY, Ordering::Relaxed);
    w.is(&["job running"]).await;
}

#[tokio::test]
async fn a_job_that_runs_saves_its_state_and_goes_on_when_there_is_room() {
    static FREE: AtomicU64 = AtomicU64::new(PLENTY);
    fn ask(_: &Path) -> io::Result<Space> {
        space(&FREE)
    }
    let scripts = tempfile::tempdir().expect("temp dir");
    let mut w = world(ask, program(scripts.path(), "obedient")).await;
    let job = w.job("job").await;
    hears(&mut w, &job, "ready").await;
    FREE.store(RESERVE / 2, Ordering::Relaxed);
    w.is(&["job running"]).await;
    assert!(!w.said(&job).await.iter().any(|said| said.contains("nearly full")), "half of the reserve is left");
    FREE.store(RESERVE / 2 - 1, Ordering::Relaxed);
    w.becomes(&["job queued"]).await;
    let said = w.said(&job).await;
    assert_eq!(said.iter().filter(|said| said.contains("nearly full")).count(), 1, "{said:?}");
    assert!(said.iter().any(|said| said.contains("interrupted at step 5")), "{said:?}");
    w.is(&["job queued"]).await;
    assert_eq!(why(&w, &job).await.0, WaitCode::Disk);
    FREE.store(PLENTY, Ordering::Relaxed);
    w.becomes(&["job running attempt 2"]).await;
    // Its time begins anew: it is not killed for what was asked of the attempt before.
    w.now += 60;
    w.is(&["job running attempt 2"]).await;
    w.store.cancel_job(&job).await.expect("asked");
    w.becomes(&["job cancelled attempt 2"]).await;
}

#[tokio::test]
async fn a_job_that_the_whole_disk_could_not_hold_fails_and_nobody_waits_for_it() {
    #[expect(clippy::unnecessary_wraps, reason = "a disk may not tell")]
    fn ask(_: &Path) -> io::Result<Space> {
        Ok(Space { free_bytes: RESERVE + 5000, total_bytes: RESERVE + 5000 })
    }
    let mut w = world(ask, "/bin/true".into()).await;
    let job = w.job("job").await;
    w.is(&["job failed (DiskFull)"]).await;
    let said = w.said(&job).await;
    assert!(said.iter().any(|said| said.contains("retention.keep_last")), "{said:?}");
}

#[tokio::test]
async fn what_runs_has_its_disk_before_what_waits() {
    static FREE: AtomicU64 = AtomicU64::new(PLENTY);
    fn ask(_: &Path) -> io::Result<Space> {
        space(&FREE)
    }
    let mut w = with_slots(2, ask, "/bin/true".into()).await;
    let first = w.job("first").await;
    w.job("second").await;
    let spec = w.store.job(&first).await.expect("found").spec;
    let needed = needed_disk_bytes(&spec, &info("/models/base.gguf", &[]), 2);
    FREE.store(RESERVE + 2 * needed - 1, Ordering::Relaxed);
    w.is(&["first running", "second queued"]).await;
    FREE.store(RESERVE + 2 * needed, Ordering::Relaxed);
    let _process = w.process(&first).await;
    w.is(&["first running", "second running"]).await;
}

#[tokio::test]
async fn a_save_that_meets_a_full_disk_is_a_death_of_which_there_may_be_some() {
    let mut w = World::new().await;
    let job = w.job("job").await;
    w.is(&["job running"]).await;
    for attempt in ["job running attempt 2", "job running attempt 3", "job failed attempt 3 (DiskFull)"] {
        let failure = Failure::new(FailureCode::DiskFull, "no room");
        w.process(&job).await.say(RunEvent::Failed { failure });
        w.becomes(&[attempt]).await;
    }
    let said = w.said(&job).await;
    assert_eq!(said.iter().filter(|said| *said == "no room").count(), 2, "{said:?}");
}

#[tokio::test]
async fn a_job_that_cannot_save_while_the_server_stops_it_does_not_die_of_it() {
    static FREE: AtomicU64 = AtomicU64::new(PLENTY);
    fn ask(_: &Path) -> io::Result<Space> {
        space(&FREE)
    }
    for way in ["full", "stubborn"] {
        let scripts = tempfile::tempdir().expect("temp dir");
        FREE.store(PLENTY, Ordering::Relaxed);
        let mut w = world(ask, program(scripts.path(), way)).await;
        let job = w.job("job").await;
        for (i, attempt) in ["", " attempt 2", " attempt 3", " attempt 4"].into_iter().enumerate() {
            w.becomes(&[&format!("job running{attempt}")]).await;
            ready(&mut w, &job, i + 1).await;
            FREE.store(1, Ordering::Relaxed);
            w.tick().await;
            w.now += 60;
            w.becomes(&[&format!("job queued{attempt}")]).await;
            FREE.store(PLENTY, Ordering::Relaxed);
        }
    }
}

/// Looks until so many processes have been ready to be told.
async fn ready(w: &mut World, job: &JobId, n_processes: usize) {
    let asked = std::time::Instant::now();
    while w.said(job).await.iter().filter(|said| *said == "ready").count() < n_processes {
        assert!(asked.elapsed() < crate::world::PATIENCE, "{:?}", w.said(job).await);
        w.tick().await;
        tokio::task::yield_now().await;
    }
}
