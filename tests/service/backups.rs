//! Backups: a data directory as one file, taken while the server works, and put back.

use std::process::{Command, Output};

use crate::{
    server::{Server, text},
    stories::{N_LONG, long_job, nothing_is_lost_or_doubled},
};

fn mrpo(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mrpo")).args(words).output().expect("started")
}

fn refusal(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_job_goes_on_from_a_backup_that_was_taken_while_it_ran() {
    let mut server = Server::start();
    let job = long_job(&server);
    server.until(&format!("{job}/checkpoints"), |list| list["data"].as_array().is_some_and(|list| !list.is_empty()));
    let (data, file, other) = (server.path("data"), server.path("backup.tar"), server.path("other"));
    let words = ["--data-dir", data.to_str().expect("text"), file.to_str().expect("text")];
    let taken = mrpo(&[&["backup"], &words[..]].concat());
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    let again = refusal(&mrpo(&[&["backup"], &words[..]].concat()));
    assert!(again.contains("is there already"), "{again}");

    // Everything is lost, in the middle of the work.
    let running = server.get(&job).ok();
    assert_eq!(running["status"], "running", "{running}");
    server.kill();
    server.kill_run(&running);
    std::fs::rename(&data, server.path("lost")).expect("moved");
    let elsewhere = mrpo(&["restore", "--data-dir", other.to_str().expect("text"), file.to_str().expect("text")]);
    let elsewhere = refusal(&elsewhere);
    assert!(elsewhere.contains(text(&serde_json::json!(data))), "{elsewhere}");
    let restored = mrpo(&[&["restore"], &words[..]].concat());
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let twice = refusal(&mrpo(&[&["restore"], &words[..]].concat()));
    assert!(twice.contains("move it away"), "{twice}");

    server.start_again();
    server.job_becomes(&job, "succeeded");
    nothing_is_lost_or_doubled(&server, &job, N_LONG);
}

#[test]
fn what_is_no_backup_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let nothing = refusal(&mrpo(&["backup", "--data-dir", &path("none"), &path("b.tar")]));
    assert!(nothing.contains("data directory"), "{nothing}");
    std::fs::write(path("text"), "no archive").expect("written");
    let text = refusal(&mrpo(&["restore", "--data-dir", &path("data"), &path("text")]));
    assert!(text.contains("not written by"), "{text}");
    assert!(!dir.path().join("data").exists());
}
