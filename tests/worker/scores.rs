//! Reference scores that outlive their run: recorded whatever ends it, handed to the next one.

use mrpo::{
    domain::{
        DatasetReport, Failure, FailureCode, FileId, FilePurpose, FileRecord, FileStatus, JobId, Ownership,
        ReferenceScore, RunEvent, ScoreKey, ScorePrecision, ScoringCount, Viewer,
    },
    run_dir::{JsonLines, RunDir, read_all_scores},
    store::{JobTerms, Store},
};
use serde_json::json;

use crate::{
    records::{checkpoint, info, message, resolve, succeeded},
    world::{Process, World},
};

const PRECISION: ScorePrecision = ScorePrecision::Float32;

fn score(i: usize) -> ReferenceScore {
    ReferenceScore {
        reference: info("", &[]).digest,
        precision: PRECISION,
        row: format!("{i:064x}"),
        line: Some(i as u64),
        // No power of two in it: a score that passes through anything but 64 bits comes out another.
        logp: -(i as f64 + 1.0) / 3.0,
        n_tokens: 0.1 * i as f64,
        is_of_file: false,
    }
}

fn append(dir: &RunDir, scores: std::ops::Range<usize>) {
    let mut file = JsonLines::open(&dir.scores_out()).expect("opened");
    scores.for_each(|i| file.append(&score(i)).expect("appended"));
}

/// What a run is told, as it would say it itself, and which of it is noted for its file.
fn given(dir: &RunDir) -> (Vec<ReferenceScore>, Vec<bool>) {
    let (mut scores, mut of_file) = (Vec::new(), Vec::new());
    read_all_scores(&dir.scores_in(), |s| {
        of_file.push(s.is_of_file);
        scores.push(s);
    })
    .expect("read");
    for score in &mut scores {
        let row = usize::from_str_radix(&score.row, 16).expect("a number");
        (score.line, score.is_of_file) = (Some(row as u64), false);
    }
    (scores, of_file)
}

fn scores(range: std::ops::Range<usize>) -> Vec<ReferenceScore> {
    range.map(score).collect()
}

/// How many rows are kept for each file, newest file first.
async fn kept(store: &Store) -> Vec<usize> {
    let mut counts = Vec::new();
    for set in store.score_sets(&score(0).reference, PRECISION).await.expect("listed") {
        counts.push(store.scores_of_set(&set, None, 100_000).await.expect("listed").len());
    }
    counts
}

async fn other_file(store: &Store, content: char) -> FileId {
    let id = FileId::new();
    let file = FileRecord {
        id: id.clone(),
        filename: "other.jsonl".into(),
        purpose: FilePurpose::FineTune,
        size_bytes: 12,
        sha256: content.to_string().repeat(64),
        format: None,
        status: FileStatus::Uploaded,
        report: None,
        created_at: 1_000,
        expires_at: None,
        job_id: None,
        ownership: Ownership::default(),
    };
    store.insert_file(&file).await.expect("inserted");
    store.set_file_report(&id, &DatasetReport { n_pairs: 2, ..Default::default() }).await.expect("reported");
    id
}

/// Lets a job's run say its last word and end.
async fn end(w: &mut World, mut process: Process, last: RunEvent, queue: &[&str]) {
    process.say(last);
    drop(process);
    w.becomes(queue).await;
}

async fn started(w: &mut World, name: &'static str) -> (JobId, Process) {
    let job = w.job(name).await;
    w.tick().await;
    let process = w.process(&job).await;
    (job, process)
}

#[tokio::test]
async fn a_killed_run_has_scored_what_it_has_scored() {
    let mut w = World::new().await;
    let (job, process) = started(&mut w, "job").await;
    assert_eq!(given(&process.dir).0, []);
    append(&process.dir, 0..5);
    assert!(w.tick().await, "scores alone are news");
    assert_eq!(kept(&w.store).await, [5]);
    assert!(!w.tick().await, "and news once");
    append(&process.dir, 5..9);
    // Killed in the middle of a line.
    let path = process.dir.scores_out();
    let torn = std::fs::read_to_string(&path).expect("read") + r#"{"reference":"sha"#;
    std::fs::write(&path, torn).expect("written");
    drop(process);
    w.becomes(&["job running attempt 2"]).await;
    assert_eq!(kept(&w.store).await, [9]);
    let process = w.process(&job).await;
    append(&process.dir, 9..10);
    w.tick().await;
    assert_eq!(kept(&w.store).await, [10]);
    // A power cut takes the end of the file, not what the database has: it is read again from its start.
    std::fs::write(&path, "").expect("written");
    append(&process.dir, 2..12);
    w.restart().await;
    w.now += 15;
    w.tick().await;
    assert_eq!(kept(&w.store).await, [12]);
}

#[tokio::test]
async fn the_next_job_is_told_and_what_it_uses_of_another_file_is_noted() {
    let mut w = World::new().await;
    let (_, process) = started(&mut w, "first").await;
    append(&process.dir, 0..3);
    process.dir.spec().expect("the spec comes after the scores");
    end(&mut w, process, succeeded(), &["first succeeded"]).await;
    let (_, process) = started(&mut w, "second").await;
    assert_eq!(given(&process.dir), (scores(0..3), vec![true; 3]));
    let failed = RunEvent::Failed { failure: Failure::new(FailureCode::NonFiniteLoss, "it was too much") };
    append(&process.dir, 3..4);
    end(&mut w, process, failed, &["first succeeded", "second failed (NonFiniteLoss)"]).await;

    // A file that has grown: it has the rows, but nobody knows yet.
    other_file(&w.store, '1').await;
    let (_, process) = started(&mut w, "third").await;
    assert_eq!(given(&process.dir), (scores(0..4), vec![false; 4]));
    append(&process.dir, 2..6);
    let other = ReferenceScore { logp: -77.0, ..score(2) };
    JsonLines::open(&process.dir.scores_out()).and_then(|mut f| f.append(&other)).expect("appended");
    let ended = ["first succeeded", "second failed (NonFiniteLoss)", "third succeeded"];
    end(&mut w, process, succeeded(), &ended).await;
    assert_eq!(kept(&w.store).await, [4, 4]);
    let (_, process) = started(&mut w, "fourth").await;
    let (told, of_file) = given(&process.dir);
    assert_eq!(told, [scores(2..6), scores(0..4)].concat(), "a score that stands stays as it is");
    assert_eq!(of_file, [[true; 4], [false; 4]].concat());
}

#[tokio::test]
async fn two_precisions_share_nothing() {
    let mut w = World::new().await;
    let (_, process) = started(&mut w, "first").await;
    append(&process.dir, 0..3);
    end(&mut w, process, succeeded(), &["first succeeded"]).await;
    let pairs = Some(FilePurpose::FineTune);
    let file = w
        .store
        .files(&mrpo::store::FileQuery { purpose: pairs, limit: 1, ..Default::default() })
        .await
        .expect("listed");
    let body = json!({"model": "smol", "training_file": file.items[0].id,
        "method": {"type": "dpo", "dpo": {"hyperparameters": {"dtype": "bfloat16"}}}});
    let job =
        w.store.insert_job(&resolve(body), &Ownership::default(), &JobTerms::default()).await.expect("inserted").id;
    w.tick().await;
    let process = w.process(&job).await;
    assert_eq!(given(&process.dir).0, []);
    let mut out = JsonLines::open(&process.dir.scores_out()).expect("opened");
    out.append(&ReferenceScore { precision: ScorePrecision::Bfloat16, logp: -9.0, ..score(1) }).expect("appended");
    w.tick().await;
    assert_eq!(kept(&w.store).await, [3]);
    let sets = w.store.score_sets(&score(0).reference, ScorePrecision::Bfloat16).await.expect("listed");
    let scores = w.store.scores_of_set(&sets[0], None, 9).await.expect("listed");
    assert_eq!((scores.len(), scores[0].logp), (1, -9.0));
}

#[tokio::test]
async fn a_worker_killed_before_the_spec_was_written_begins_again() {
    let mut w = World::new().await;
    let (_, process) = started(&mut w, "first").await;
    append(&process.dir, 0..3);
    end(&mut w, process, succeeded(), &["first succeeded"]).await;
    let (second, process) = started(&mut w, "second").await;
    std::fs::remove_file(process.dir.root().join("spec.json")).expect("removed");
    std::fs::rename(process.dir.scores_in(), process.dir.root().join("scores.in.tmp")).expect("renamed");
    drop(process);
    w.becomes(&["first succeeded", "second running attempt 2"]).await;
    let process = w.process(&second).await;
    assert_eq!(given(&process.dir).0, scores(0..3));
    process.dir.spec().expect("written");
}

#[tokio::test]
async fn a_broken_line_ends_the_run_with_its_place() {
    let mut w = World::new().await;
    let (job, mut process) = started(&mut w, "job").await;
    process.say(message("scoring"));
    append(&process.dir, 0..2);
    w.tick().await;
    let path = process.dir.scores_out();
    let broken = std::fs::read_to_string(&path).expect("read") + "{\"row\": 3}\n";
    std::fs::write(&path, broken).expect("written");
    drop(process);
    w.becomes(&["job failed (Internal)"]).await;
    let error = w.store.job(&job).await.expect("found").error.expect("it says why").message;
    assert!(error.contains("scores.out.jsonl at byte") && error.contains("invalid type"), "{error}");
    assert_eq!(kept(&w.store).await, [2]);
}

#[tokio::test]
async fn scores_go_with_the_last_model_of_their_content_and_stay_without_the_file() {
    let mut w = World::new().await;
    let (job, mut process) = started(&mut w, "job").await;
    append(&process.dir, 0..3);
    process.say(checkpoint(2));
    end(&mut w, process, succeeded(), &["job succeeded"]).await;
    let file = w.store.job(&job).await.expect("found").spec.training_file;
    w.store.delete_file(&file).await.expect("deleted");
    assert_eq!(kept(&w.store).await, [3]);
    // In the tests' world every model has the same content.
    let mut models = w.store.models(&Viewer::default(), None, 9).await.expect("listed").items;
    models.sort_by_key(|model| model.info.as_ref().map(|info| info.location.adapters.is_empty()));
    assert_eq!(models.len(), 3);
    for (model, n_kept) in models.iter().zip([&[3][..], &[3], &[]]) {
        w.store.delete_model(&model.id).await.expect("deleted");
        assert_eq!(kept(&w.store).await, n_kept);
    }
}

#[tokio::test]
async fn many_scores_are_read_in_parts_and_handed_over_whole() {
    let mut w = World::new().await;
    let (_, process) = started(&mut w, "first").await;
    append(&process.dir, 0..12_000);
    end(&mut w, process, succeeded(), &["first succeeded"]).await;
    assert_eq!(kept(&w.store).await, [12_000]);
    let (_, process) = started(&mut w, "second").await;
    assert_eq!(given(&process.dir).0, scores(0..12_000));
}

fn scored(n_known: u64, of_all: bool) -> RunEvent {
    let count = ScoringCount { n_known, n_computed: 2, duration_ms: 1.5 };
    let key = ScoreKey { digest: score(0).reference, precision: PRECISION };
    let whose = (!of_all).then(|| ("smol".parse().expect("legal"), key)).unzip();
    RunEvent::ReferenceScores { model: whose.0, key: whose.1, count }
}

#[tokio::test]
async fn what_a_job_was_handed_counts_once_however_often_its_run_says_it() {
    let mut w = World::new().await;
    let (job, mut process) = started(&mut w, "job").await;
    append(&process.dir, 0..3);
    assert_eq!(w.store.job(&job).await.expect("found").reference_scores, None);
    process.say(scored(4, false));
    process.say(scored(4, true));
    w.tick().await;
    // Killed, and started again: it finds everything, says so, and that is no news.
    drop(process);
    w.becomes(&["job running attempt 2"]).await;
    let mut process = w.process(&job).await;
    process.say(scored(9, false));
    process.say(scored(9, true));
    w.tick().await;
    w.restart().await;
    w.now += 15;
    w.tick().await;
    let count = w.store.job(&job).await.expect("found").reference_scores.expect("said");
    assert_eq!((count.n_known, count.n_computed, count.duration_ms), (4, 2, 1.5));
    let smol = "smol".parse().expect("legal");
    let kept = w.store.kept_scores(&Viewer::default(), Some(&smol), None, 9).await.expect("listed").items;
    assert_eq!((kept.len(), kept[0].n_scores, kept[0].n_hits), (1, 3, 4));
    assert_eq!(kept[0].last_used_at, Some(crate::world::BEGIN + 1));
    assert_eq!((kept[0].n_datasets, kept[0].datasets[0].n_rows, kept[0].datasets[0].files.len()), (1, 3, 1));
    let said = w.said(&job).await;
    assert!(said.contains(&"reference smol: 4 scores known, 2 computed, 0.0 s".to_owned()), "{said:?}");
    assert!(said.contains(&"all references: 9 scores known, 2 computed, 0.0 s".to_owned()), "{said:?}");
}

#[tokio::test]
async fn scores_may_be_deleted_under_a_running_job() {
    let mut w = World::new().await;
    let (_, process) = started(&mut w, "first").await;
    append(&process.dir, 0..3);
    end(&mut w, process, succeeded(), &["first succeeded"]).await;
    let (_, mut process) = started(&mut w, "second").await;
    let smol = "smol".parse().expect("legal");
    assert_eq!(w.store.delete_scores(&smol).await.expect("deleted"), 3);
    assert_eq!(given(&process.dir).0, scores(0..3), "what it was told it keeps");
    process.say(scored(3, false));
    append(&process.dir, 3..5);
    end(&mut w, process, succeeded(), &["first succeeded", "second succeeded"]).await;
    assert_eq!(kept(&w.store).await, [2], "what it computed is kept anew");
    let listed = w.store.kept_scores(&Viewer::default(), None, None, 9).await.expect("listed").items;
    assert_eq!((listed[0].n_scores, listed[0].n_hits), (2, 3));
}
