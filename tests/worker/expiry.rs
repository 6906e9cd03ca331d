//! What goes by itself when its time is over, and what does not.

use mrpo::{
    domain::{FilePurpose, Ownership, PartId, PartRecord, UploadId, UploadRecord, UploadStatus},
    store::StoreError,
};

use crate::{
    records::file,
    world::{BEGIN, World},
};

const HOUR: i64 = 3600;

fn upload(created_at: i64) -> UploadRecord {
    UploadRecord {
        id: UploadId::new(),
        filename: "pairs.jsonl".into(),
        purpose: FilePurpose::FineTune,
        format: None,
        size_bytes: 10,
        file_kept_for_s: None,
        status: UploadStatus::Pending,
        part_ids: Vec::new(),
        file: None,
        created_at,
        expires_at: created_at + HOUR,
        ownership: Ownership::default(),
    }
}

#[tokio::test]
async fn the_parts_of_an_upload_that_has_ended_are_removed() {
    let mut world = World::new().await;
    let folder = world.dir.path().join("uploads");
    std::fs::create_dir_all(&folder).expect("made");
    let mut paths = Vec::new();
    for created_at in [BEGIN, BEGIN + HOUR] {
        let upload = upload(created_at);
        world.store.insert_upload(&upload).await.expect("inserted");
        let id = PartId::new();
        paths.push(folder.join(id.as_str()));
        std::fs::write(folder.join(id.as_str()), "0123456789").expect("written");
        let part = PartRecord { id, upload_id: upload.id, size_bytes: 10, sha256: "0".repeat(64), created_at };
        world.store.insert_part(&part).await.expect("inserted");
    }
    world.tick().await;
    assert!(paths.iter().all(|path| path.exists()));
    world.now += HOUR;
    world.tick().await;
    assert_eq!(paths.iter().map(|path| path.exists()).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn a_file_goes_when_its_time_is_over_and_no_job_needs_it() {
    let mut world = World::new().await;
    let first = file(&world.store).await;
    let mut timed = world.store.file(&first).await.expect("found");
    timed.expires_at = Some(BEGIN + HOUR);
    world.store.delete_file(&first).await.expect("deleted");
    world.store.insert_file(&timed).await.expect("inserted");
    let content = world.dir.path().join("files").join(first.as_str());
    std::fs::create_dir_all(content.parent().expect("a folder")).expect("made");
    std::fs::write(&content, "x").expect("written");
    let job = world.job("a").await;

    world.now = BEGIN + HOUR;
    world.tick().await;
    assert!(world.store.file(&first).await.is_ok() && content.exists(), "a job reads it");
    // Its process was never there; whoever gives the job up lets go of the file.
    world.store.cancel_job(&job).await.expect("cancelled");
    world.becomes(&["a cancelled"]).await;
    world.now += 5;
    world.tick().await;
    assert!(matches!(world.store.file(&first).await, Err(StoreError::NotFound { .. })));
    assert!(!content.exists());
}
