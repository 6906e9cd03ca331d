//! `mrpo doctor`: a sound directory, and damage of every kind that is named.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use mrpo::domain::FileId;
use serde_json::{Value, json};

use crate::server::{Server, text};

/// Asks for the report: whether it is without failures, and the report.
fn doctor(data_dir: &Path, more: &[&str]) -> (bool, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_mrpo"))
        .args(["doctor", "--json", "--min-free-disk", "0", "--data-dir"])
        .arg(data_dir)
        .args(more)
        .output()
        .expect("started");
    let report = serde_json::from_slice(&output.stdout);
    (output.status.success(), report.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr))))
}

/// What was found of this grade in this check.
fn found(report: &Value, grade: &str, check: &str) -> Vec<String> {
    let findings = report["findings"].as_array().expect("a list").iter();
    let of_check = findings.filter(|finding| finding["check"] == check && finding["grade"] == grade);
    of_check.map(|finding| format!("{} ({})", text(&finding["what"]), finding["to_do"])).collect()
}

/// Every file below a directory, with its size and when it was changed.
fn listing(directory: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let metadata = path.symlink_metadata().expect("there");
        if metadata.is_dir() {
            files.extend(listing(&path));
        } else if !path.to_string_lossy().ends_with("-shm") {
            // SQLite's readers share that one, and make it anew.
            files.push((path, metadata.len(), metadata.modified().expect("known")));
        }
    }
    files.sort();
    files
}

#[test]
fn a_sound_directory_has_nothing_wrong_and_damage_is_named() {
    let mut server = Server::start();
    let [training, _] = server.with_model_and_files(8, 40);
    let settings = json!({"batch_size": 4, "checkpoint_every_n_steps": 1, "lora": {"rank": 2}});
    let method = json!({"type": "dpo", "dpo": {"hyperparameters": settings}});
    let job = server.job(&json!({"model": "tiny", "training_file": training, "method": method}));
    let job = server.job_becomes(&job, "succeeded");
    let data = server.path("data");

    let (is_well, report) = doctor(&data, &["--listen", server.address()]);
    assert!(is_well, "{report}");
    assert!(found(&report, "ok", "server")[0].contains("is ready"), "{report}");
    assert_eq!(found(&report, "ok", "checkpoints").len(), 1, "{report}");
    let (_, elsewhere) = doctor(&data, &["--listen", "127.0.0.1:1"]);
    assert!(found(&elsewhere, "fail", "server")[0].contains("does not answer"), "{elsewhere}");

    server.kill();
    let before = listing(&data);
    let (is_well, report) = doctor(&data, &[]);
    assert!(is_well && found(&report, "ok", "server")[0].contains("no server"), "{report}");
    assert!(listing(&data) == before, "it changes nothing");

    // Real damage: a checkpoint without its weights, a shorter file, bytes that nobody knows of.
    let run = data.join("runs").join(text(&job["run_id"]));
    let newest = run.join("checkpoints/step-000002");
    std::fs::remove_file(newest.join("adapter_model.safetensors")).expect("removed");
    std::fs::write(data.join("files").join(&training), "short").expect("written");
    let orphan = data.join("files").join(FileId::new().as_str());
    std::fs::write(&orphan, vec![0; 4096]).expect("written");
    std::fs::remove_file(server.path("tiny/config.json")).expect("removed");
    let (is_well, report) = doctor(&data, &[]);
    assert!(!is_well && report["status"] == "fail");
    let checkpoint = found(&report, "fail", "checkpoints");
    assert!(checkpoint[0].contains("step-000002/adapter_model.safetensors is missing"), "{report}");
    assert!(found(&report, "fail", "files")[0].contains("has 5 bytes, recorded are"), "{report}");
    let unknown = found(&report, "warn", "files");
    assert!(unknown[0].contains(orphan.to_str().expect("unicode")) && unknown[0].contains("4.0 KiB"), "{report}");
    let models = found(&report, "fail", "models");
    assert!(models.iter().any(|model| model.contains("model 'tiny' lacks")), "{report}");
}

#[test]
fn a_database_that_is_cut_off_older_or_newer_is_told_apart() {
    let mut server = Server::start();
    server.kill();
    let data = server.path("data");
    let database = data.join(mrpo::store::Store::FILE_NAME);
    let with = |statement: &'static str| {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&database);
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
            let mut database = sqlx::ConnectOptions::connect(&options).await.expect("opened");
            sqlx::query(statement).execute(&mut database).await.expect("executed");
            sqlx::Connection::close(database).await.expect("closed");
        });
    };
    with("update _sqlx_migrations set version = 9000 where version = 12");
    let newer = doctor(&data, &[]);
    assert!(!newer.0 && found(&newer.1, "fail", "database")[0].contains("migration 9000 is unknown"), "{}", newer.1);
    with("delete from _sqlx_migrations where version = 9000");
    let older = doctor(&data, &[]);
    assert!(older.0 && found(&older.1, "warn", "database")[0].contains("older mrpo"), "{}", older.1);

    let whole = std::fs::metadata(&database).expect("there").len();
    std::fs::File::options().write(true).open(&database).and_then(|file| file.set_len(whole / 2)).expect("cut");
    let cut = doctor(&data, &[]);
    assert!(!cut.0 && found(&cut.1, "fail", "database")[0].contains("restore"), "{}", cut.1);
    std::fs::write(&database, "no database").expect("written");
    let none = doctor(&data, &[]);
    assert!(!none.0 && found(&none.1, "fail", "database")[0].contains("restore"), "{}", none.1);
}
