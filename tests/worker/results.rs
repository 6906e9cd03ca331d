//! The files with a job's results.

use mrpo::{
    domain::{EvaluationPhase, FilePurpose},
    store::FileQuery,
};
use serde_json::{Value, json};

use crate::{
    records::{evaluation, metrics, succeeded},
    world::World,
};

#[tokio::test]
async fn a_job_that_ends_well_leaves_its_metrics_as_files() {
    let mut w = World::new().await;
    let job = w.job("job").await;
    w.is(&["job running"]).await;
    let mut process = w.process(&job).await;
    process.say(evaluation(0, EvaluationPhase::Before, 0.75));
    process.say(metrics(1, 0.5));
    process.say(metrics(2, 0.25));
    process.say(evaluation(2, EvaluationPhase::After, 0.125));
    process.say(succeeded());
    drop(process);
    w.becomes(&["job succeeded"]).await;

    let ids = w.store.job(&job).await.expect("found").result_files;
    let mut texts = Vec::new();
    for id in &ids {
        let file = w.store.file(id).await.expect("found");
        assert_eq!((file.purpose, file.job_id.as_ref()), (FilePurpose::FineTuneResults, Some(&job)));
        let text = std::fs::read_to_string(w.dir.path().join("files").join(id.as_str())).expect("its content");
        assert_eq!(file.size_bytes, text.len() as u64);
        texts.push((file.filename, text));
    }
    assert_eq!(
        texts.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["step_metrics.csv", "step_metrics.jsonl"]
    );
    let rows: Vec<Vec<&str>> = texts[0].1.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0][..5], ["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"]);
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{rows:?}");
    let of = |row: usize| (rows[row][0], rows[row][1], rows[row][3]);
    assert_eq!((of(1), of(2), of(3)), (("0", "", "0.75"), ("1", "0.5", ""), ("2", "0.25", "0.125")));
    let lines: Vec<Value> = texts[1].1.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["training"], &lines[0]["evaluation"]["loss"]), (&Value::Null, &json!(0.75)));
    assert_eq!((&lines[2]["step"], &lines[2]["training"]["loss"]), (&json!(2), &json!(0.25)));

    // Whoever deletes one has one less.
    w.store.delete_file(&ids[0]).await.expect("deleted");
    assert_eq!(w.store.job(&job).await.expect("found").result_files, ids[1..]);
    let results = FileQuery { purpose: Some(FilePurpose::FineTuneResults), limit: 9, ..FileQuery::default() };
    assert_eq!(w.store.files(&results).await.expect("listed").items.len(), 1);
}
