//! Stories of exports: in turn, killed, deleted in the middle, and what is left on the disk.

use mrpo::{
    domain::{
        ExportDtype, ExportFormat, ExportId, ExportStatus, ExportedFiles, Failure, FailureCode, HashedFile, ModelId,
        Phase, RunEvent, RunSpec,
    },
    store::StoreError,
};

use crate::{
    processes::program,
    world::{Process, World},
};

async fn ask(w: &World, model: &ModelId, dtype: ExportDtype) -> ExportId {
    w.store.insert_export(model, ExportFormat::Gguf, dtype, None).await.expect("inserted").id
}

fn progress(n_done: u64) -> RunEvent {
    RunEvent::Progress { phase: Phase::Exporting, n_done, n_total: 9, item: None }
}

/// Writes what a run writes.
fn write_file(process: &Process) {
    std::fs::create_dir_all(process.dir.export_files()).expect("made");
    std::fs::write(process.dir.export_files().join("model.gguf"), "GGUF").expect("written");
}

fn succeed(mut process: Process) {
    write_file(&process);
    let files = vec![HashedFile { name: "model.gguf".into(), size_bytes: 4, sha256: "0".repeat(64) }];
    process.say(RunEvent::Exported(ExportedFiles { files, warnings: Vec::new() }));
    process.say(RunEvent::Succeeded { model: None, n_trained_tokens: 0 });
}

/// Looks until the export is in this state.
async fn becomes(w: &mut World, id: &ExportId, status: ExportStatus) {
    let asked = std::time::Instant::now();
    while w.store.export(id).await.expect("found").status != status {
        assert!(asked.elapsed().as_secs() < 20, "it never becomes {status:?}: {:?}", w.store.export(id).await);
        w.tick().await;
        tokio::task::yield_now().await;
    }
}

/// Looks until nothing of a deleted export is left.
async fn goes(w: &mut World, process: &mrpo::run_dir::RunDir) {
    let asked = std::time::Instant::now();
    while process.root().exists() || !w.store.deleted_exports().await.expect("listed").is_empty() {
        assert!(asked.elapsed().as_secs() < 20, "{} stays", process.root().display());
        w.tick().await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn exports_are_made_one_after_another_and_need_no_device() {
    let mut w = World::new().await;
    let model = w.ready_model("smol").await;
    let job = w.job("job").await;
    let (first, second) = (ask(&w, &model, ExportDtype::Q8_0).await, ask(&w, &model, ExportDtype::Float32).await);
    w.tick().await;
    let mut process = w.newest_process();
    let _training = w.process(&job).await;
    let RunSpec::Export(spec) = process.dir.spec().expect("written") else { panic!("an export") };
    assert_eq!((&spec.export, &spec.model.model, spec.dtype), (&first, &model, ExportDtype::Q8_0));
    assert_eq!(spec.model.location, w.store.model(&model).await.expect("found").info.expect("ready").location);
    process.say(progress(3));
    w.tick().await;
    let shown = w.store.export(&first).await.expect("found");
    assert_eq!((shown.progress, shown.status), (Some((3, 9)), ExportStatus::Pending));
    assert_eq!(w.store.export(&second).await.expect("found").run_id, None, "it waits");
    let kept = w.store.delete_model(&model).await.expect_err("kept").to_string();
    assert!(kept.contains("job") || kept.contains("export"), "{kept}");

    succeed(process);
    becomes(&mut w, &first, ExportStatus::Ready).await;
    let shown = w.store.export(&first).await.expect("found");
    assert_eq!((shown.size_bytes(), shown.finished_at.is_some()), (Some(4), true));
    w.tick().await;
    assert!(w.store.export(&second).await.expect("found").run_id.is_some(), "its turn has come");
}

#[tokio::test]
async fn a_killed_export_is_begun_again_and_given_up_in_the_end() {
    let mut w = World::new().await;
    let model = w.ready_model("smol").await;
    let id = ask(&w, &model, ExportDtype::Q8_0).await;
    w.tick().await;
    let mut process = w.newest_process();
    write_file(&process);
    process.say(progress(3));
    let dir = process.dir.clone();
    drop(process);
    w.restart().await;
    w.now += 15;
    // Whatever is started ends at once here: two more deaths.
    becomes(&mut w, &id, ExportStatus::Error).await;
    let shown = w.store.export(&id).await.expect("found");
    assert_eq!(shown.error.expect("it says why").code, FailureCode::RunDied);
    assert!(shown.finished_at.is_some() && !dir.export().exists(), "its room is free");

    let again = ask(&w, &model, ExportDtype::Q8_0).await;
    assert_ne!(again, id);
    w.tick().await;
    let process = w.newest_process();
    assert_ne!(process.dir, dir);
    succeed(process);
    becomes(&mut w, &again, ExportStatus::Ready).await;
}

#[tokio::test]
async fn an_export_that_failed_says_why_and_leaves_no_files() {
    let mut w = World::new().await;
    let model = w.ready_model("smol").await;
    let id = ask(&w, &model, ExportDtype::Q8_0).await;
    w.tick().await;
    let mut process = w.newest_process();
    write_file(&process);
    let failure = Failure::new(FailureCode::UnsupportedModel, "GGUF cannot say it");
    process.say(RunEvent::Failed { failure: failure.clone() });
    let dir = process.dir.clone();
    drop(process);
    becomes(&mut w, &id, ExportStatus::Error).await;
    assert_eq!(w.store.export(&id).await.expect("found").error, Some(failure));
    assert!(!dir.export().exists());
    w.store.delete_export(&id).await.expect("deleted");
    goes(&mut w, &dir).await;
}

#[tokio::test]
async fn an_export_deleted_while_it_is_written_is_stopped_and_its_room_freed() {
    let scripts = tempfile::tempdir().expect("temp dir");
    let mut w = World::new().await;
    let model = w.ready_model("smol").await;
    w.worker = crate::world::worker(&w.store, w.dir.path(), program(scripts.path(), "obedient"));
    let id = ask(&w, &model, ExportDtype::Q8_0).await;
    w.tick().await;
    let run = w.store.export(&id).await.expect("found").run_id.expect("started");
    let dir = w.run_dir(&run);
    let asked = std::time::Instant::now();
    while dir.holder().expect("asked").is_none() {
        assert!(asked.elapsed().as_secs() < 20, "it never begins");
        tokio::task::yield_now().await;
    }
    std::fs::create_dir_all(dir.export_files()).expect("made");
    w.store.delete_export(&id).await.expect("deleted");
    assert!(matches!(w.store.export(&id).await, Err(StoreError::NotFound { kind: "export", .. })));
    // The same may be asked for at once; it waits for its turn.
    let again = ask(&w, &model, ExportDtype::Q8_0).await;
    assert_ne!(again, id);
    assert!(dir.root().exists());
    goes(&mut w, &dir).await;
    w.store.delete_export(&again).await.expect("deleted");
}

#[tokio::test]
async fn what_a_crash_left_of_a_deleted_export_goes_when_the_next_server_looks() {
    let mut w = World::new().await;
    let model = w.ready_model("smol").await;
    let id = ask(&w, &model, ExportDtype::Q8_0).await;
    w.tick().await;
    let process = w.newest_process();
    let dir = process.dir.clone();
    succeed(process);
    becomes(&mut w, &id, ExportStatus::Ready).await;
    // With its model; and the server dies between the renaming and the removal.
    w.store.delete_model(&model).await.expect("deleted");
    std::fs::rename(dir.root(), dir.root().with_extension("removed")).expect("renamed");
    w.restart().await;
    goes(&mut w, &dir).await;
    assert!(!dir.root().with_extension("removed").exists());
}
