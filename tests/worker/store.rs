//! The store by itself.

use mrpo::{
    domain::{FileId, JobStatus, ModelId, Ownership, Reference, Viewer},
    store::{FileQuery, JobQuery, JobTerms, MetadataFilter, MetricKind, Store, StoreError},
};
use serde_json::json;

use crate::records::{bad_report, file, open, resolve, spec, uploaded_file};

fn model_id(name: &str) -> ModelId {
    name.parse().expect("legal")
}

async fn pending_model(store: &Store, name: &str) -> ModelId {
    store
        .insert_model(&model_id(name), &"path:/models/x".parse().expect("legal"), &Ownership::default())
        .await
        .expect("inserted")
        .id
}

#[tokio::test]
async fn lists_go_newest_first_and_end() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path()).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(file(&store).await);
    }
    let query = |after: Option<&FileId>| FileQuery { after: after.cloned(), limit: 2, ..Default::default() };
    let first = store.files(&query(None)).await.expect("listed");
    assert_eq!(first.items.iter().map(|f| &f.id).collect::<Vec<_>>(), [&ids[2], &ids[1]]);
    assert!(first.has_more);
    let second = store.files(&query(Some(&ids[1]))).await.expect("listed");
    assert_eq!((second.items.len(), second.has_more), (1, false));
    let third = store.files(&query(Some(&ids[0]))).await.expect("listed");
    assert_eq!((third.items.len(), third.has_more), (0, false));
    let unknown = store.files(&query(Some(&FileId::new()))).await;
    assert!(matches!(unknown, Err(StoreError::UnknownAfter { kind: "file", .. })), "{unknown:?}");
    let ascending = store.files(&FileQuery { limit: 9, ascending: true, ..Default::default() }).await.expect("listed");
    assert_eq!(ascending.items.iter().map(|f| &f.id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn jobs_are_found_by_their_metadata() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path()).await;
    let (model, file) = (pending_model(&store, "smol").await, file(&store).await);
    for metadata in [json!(null), json!({"team": "a"}), json!({"team": "a", "x": "1"})] {
        let body = json!({"model": model, "training_file": file, "method": {"type": "dpo"}, "metadata": metadata});
        store.insert_job(&resolve(body), &Ownership::default(), &JobTerms::default()).await.expect("inserted");
    }
    let count = async |metadata| {
        store.jobs(&JobQuery { limit: 10, metadata, ..Default::default() }).await.expect("listed").items.len()
    };
    let has =
        |pairs: &[(&str, &str)]| MetadataFilter::Has(pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect());
    assert_eq!(count(MetadataFilter::Any).await, 3);
    assert_eq!(count(MetadataFilter::Absent).await, 1);
    assert_eq!(count(has(&[("team", "a")])).await, 2);
    assert_eq!(count(has(&[("team", "a"), ("x", "1")])).await, 1);
    assert_eq!(count(has(&[("team", "b")])).await, 0);
}

#[tokio::test]
async fn a_job_waits_for_what_it_reads_and_refuses_what_is_broken() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path()).await;
    let model = pending_model(&store, "smol").await;
    let checked = file(&store).await;
    let job =
        store.insert_job(&spec(&model, &checked), &Ownership::default(), &JobTerms::default()).await.expect("inserted");
    assert_eq!(job.status, JobStatus::ValidatingFiles);
    let missing =
        store.insert_job(&spec(&model_id("other"), &checked), &Ownership::default(), &JobTerms::default()).await;
    assert!(matches!(missing, Err(StoreError::NotFound { kind: "model", .. })), "{missing:?}");
    let broken = uploaded_file(&store).await;
    store.set_file_report(&broken, &bad_report()).await.expect("reported");
    let refused = store.insert_job(&spec(&model, &broken), &Ownership::default(), &JobTerms::default()).await;
    assert!(matches!(refused, Err(StoreError::Unusable { kind: "file", .. })), "{refused:?}");
    assert_eq!(store.jobs(&JobQuery { limit: 9, ..Default::default() }).await.expect("listed").items.len(), 1);
}

#[tokio::test]
async fn what_a_job_needs_cannot_be_deleted() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path()).await;
    let (model, file) = (pending_model(&store, "smol").await, file(&store).await);
    let job =
        store.insert_job(&spec(&model, &file), &Ownership::default(), &JobTerms::default()).await.expect("inserted");
    for refused in [store.delete_file(&file).await.err(), store.delete_model(&model).await.err()] {
        let text = refused.expect("refused").to_string();
        assert!(text.contains(job.id.as_str()), "{text}");
    }
    store.cancel_job(&job.id).await.expect("cancelled");
    store.delete_file(&file).await.expect("deleted");
    store.delete_model(&model).await.expect("deleted");
    assert!(matches!(store.file(&file).await, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn a_reference_list_names_models_that_exist() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path()).await;
    let references = [Reference { model: model_id("smol"), weight: None }];
    let missing = store.insert_reference_list("mine", &references, &Ownership::default()).await;
    assert!(matches!(missing, Err(StoreError::NotFound { kind: "model", .. })), "{missing:?}");
    pending_model(&store, "smol").await;
    let list = store.insert_reference_list("mine", &references, &Ownership::default()).await.expect("inserted");
    assert_eq!(store.reference_list(&list.id).await.expect("found"), list);
    assert_eq!(
        store.reference_lists(&Viewer::default(), None, 5).await.expect("listed").items,
        std::slice::from_ref(&list)
    );
    store.delete_reference_list(&list.id).await.expect("deleted");
    assert!(store.reference_list(&list.id).await.is_err());
}

#[tokio::test]
async fn a_job_that_waits_obeys_at_once() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path()).await;
    let (model, file) = (pending_model(&store, "smol").await, file(&store).await);
    let job =
        store.insert_job(&spec(&model, &file), &Ownership::default(), &JobTerms::default()).await.expect("inserted").id;
    assert!(matches!(store.resume_job(&job).await, Err(StoreError::IllegalTransition(_))));
    assert_eq!(store.pause_job(&job).await.expect("paused").status, JobStatus::Paused);
    assert_eq!(store.resume_job(&job).await.expect("resumed").status, JobStatus::ValidatingFiles);
    let cancelled = store.cancel_job(&job).await.expect("cancelled");
    assert_eq!(cancelled.status, JobStatus::Cancelled);
    assert!(cancelled.finished_at.is_some());
    for refused in [store.cancel_job(&job).await, store.pause_job(&job).await, store.resume_job(&job).await] {
        assert!(matches!(refused, Err(StoreError::IllegalTransition(_))), "{refused:?}");
    }
    let said = store.events(&job, None, 9).await.expect("listed").items;
    assert_eq!(said[0].message, "The job has been cancelled");
    let missed = store.live_events(Some(&job), &Viewer::default(), said[1].seq, 9).await.expect("listed").items;
    assert_eq!((missed.len(), &missed[0].event, missed[0].status), (1, &said[0], JobStatus::Cancelled));
    assert!(store.metrics(&job, MetricKind::Training, None, 9).await.expect("listed").items.is_empty());
    assert!(store.checkpoints(&job, None, 9).await.expect("listed").items.is_empty());
}

#[tokio::test]
async fn a_damaged_or_newer_database_is_named() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join(Store::FILE_NAME);
    std::fs::write(&path, "certainly not a database, but longer than a header would be".repeat(40)).expect("written");
    let error = Store::open(dir.path()).await.expect_err("refused");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    std::fs::remove_file(&path).expect("removed");

    open(dir.path()).await.close().await;
    let pool = sqlx::SqlitePool::connect(path.to_str().expect("unicode")).await.expect("opens");
    sqlx::query("insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (9999, 'later', 1, x'00', 0)")
        .execute(&pool)
        .await
        .expect("inserted");
    pool.close().await;
    let error = Store::open(dir.path()).await.expect_err("refused");
    assert!(matches!(error, StoreError::Newer { version: 9999, .. }), "{error:?}");
}
