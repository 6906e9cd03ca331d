//! A database that an older mrpo has written.

use std::path::Path;

use mrpo::store::{Lease, RunSubject, Store};
use sqlx::{
    Row, SqlitePool,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteRow},
};

/// As it was before exports: the first four migrations, and a run of every kind.
async fn old_database(dir: &Path) -> SqlitePool {
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let some = tempfile::tempdir().expect("temp dir");
    for entry in std::fs::read_dir(migrations).expect("there").map(|entry| entry.expect("an entry")) {
        if entry.file_name().to_string_lossy().as_ref() < "0005" {
            std::fs::copy(entry.path(), some.path().join(entry.file_name())).expect("copied");
        }
    }
    let options = SqliteConnectOptions::new().filename(dir.join(Store::FILE_NAME)).create_if_missing(true);
    let pool = SqlitePool::connect_with(options.foreign_keys(true)).await.expect("opens");
    Migrator::new(some.path()).await.expect("read").run(&pool).await.expect("migrated");
    for statement in [
        "insert into models (id, source, status, created_at) values ('smol', 'path:/m', 'pending', 5)",
        "insert into inspections (id, spec, status, created_at) values ('inspect-1', '{}', 'pending', 5)",
        "insert into jobs (id, status, spec, created_at) values ('ftjob-00000000000000000000000000000001', 'running', '{}', 5)",
        "insert into runs (run_id, model_id, n_attempts, n_deaths) values ('run-00000000000000000000000000000001', 'smol', 3, 1)",
        "insert into runs (run_id, inspection_id) values ('run-00000000000000000000000000000002', 'inspect-1')",
        "insert into runs (run_id, job_id, n_attempts, lease_owner, lease_expires_at, events_offset, stop_requested, slot,
                           since_step, since_ms, scores_offset)
         values ('run-00000000000000000000000000000003', 'ftjob-00000000000000000000000000000001', 2, 'me', 99, 1234, 'pause', 1,
                 7, 8, 4321)",
        "insert into events (id, job_id, run_id, run_offset, level, type, message, created_at)
         values ('e', 'ftjob-00000000000000000000000000000001', 'run-00000000000000000000000000000003', 0, 'info', 'message', 'hello', 5)",
    ] {
        sqlx::query(statement).execute(&pool).await.expect(statement);
    }
    pool
}

/// Columns of runs that came later.
const NEW: [&str; 6] = ["export_id", "slot_since", "slot_seconds", "is_tidied", "remove_after", "data"];

/// Every run, column by column, without those that are new.
async fn runs(pool: &SqlitePool) -> Vec<Vec<String>> {
    let rows = sqlx::query("select * from runs order by seq").fetch_all(pool).await.expect("read");
    let shown = |row: &SqliteRow| {
        let columns = row.columns().iter().map(sqlx::Column::name).filter(|name| !NEW.contains(name));
        let value = |name: &str| {
            let text = row.try_get::<Option<String>, _>(name).map(|text| format!("{text:?}"));
            text.unwrap_or_else(|_| format!("{:?}", row.get::<Option<i64>, _>(name)))
        };
        let mut shown: Vec<String> = columns.map(|name| format!("{name}: {}", value(name))).collect();
        shown.sort();
        shown
    };
    rows.iter().map(shown).collect()
}

#[tokio::test]
async fn an_older_database_keeps_its_runs_of_every_kind() {
    let dir = tempfile::tempdir().expect("temp dir");
    let pool = old_database(dir.path()).await;
    let before = runs(&pool).await;
    assert_eq!(before.len(), 3);
    pool.close().await;

    let store = Store::open(dir.path()).await.expect("opens and migrates");
    let held = store.held_runs("me").await.expect("listed");
    assert_eq!((held.len(), held[0].events_offset, held[0].scores_offset, held[0].slot), (1, 1234, 4321, Some(1)));
    assert!(matches!(held[0].subject, RunSubject::Job(_)));
    let lease = Lease { owner: "me", now: 100, expires_at: 110 };
    assert_eq!(store.take_over_expired(&Lease { owner: "you", ..lease }).await.expect("asked"), 1);
    store.close().await;

    let path = dir.path().join(Store::FILE_NAME);
    let pool = SqlitePool::connect(path.to_str().expect("unicode")).await.expect("opens");
    sqlx::query("update runs set lease_owner = 'me', lease_expires_at = 99 where lease_owner = 'you'")
        .execute(&pool)
        .await
        .expect("given back");
    assert_eq!(runs(&pool).await, before);
    let n_events: i64 = sqlx::query_scalar("select count(*) from events").fetch_one(&pool).await.expect("counted");
    assert_eq!(n_events, 1);
    // What belongs to a run still goes with it, and a run is of one kind.
    let two = sqlx::query("update runs set model_id = 'smol' where inspection_id is not null").execute(&pool).await;
    assert!(two.is_err());
    sqlx::query("delete from models").execute(&pool).await.expect("deleted");
    assert_eq!(runs(&pool).await.len(), 2);
}
