//! What a job that ended well leaves as files: its metrics by step, as CSV and as JSON Lines.

use std::{collections::BTreeSet, collections::VecDeque, fmt::Write, io};

use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::{Result, Worker};
use crate::{
    domain::{FileId, FilePurpose, FileRecord, FileStatus, JobId, metric},
    run_dir::sync_dir,
    store::{MetricKind, MetricPoint, Store, unix_now},
};

/// How many steps are held in memory at once.
const PAGE: usize = 500;
/// The columns that OpenAI's results files have, in front of ours.
const OPENAI: &str = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy";

impl Worker {
    /// Writes a job's results files. Their ids follow from the job's, so that one that a crash cut off is replaced by the next attempt.
    /// Where they cannot be written the job ends without: its metrics are in the database.
    pub(super) async fn results_of(&self, job: &JobId) -> Result<Vec<FileRecord>> {
        let columns = columns(&self.store, job).await?;
        let mut files = Vec::new();
        for (filename, as_csv) in [("step_metrics.csv", true), ("step_metrics.jsonl", false)] {
            match self.results_file(job, filename, as_csv.then_some(&columns)).await {
                Ok(file) => files.push(file),
                Err(ResultsError::Store(e)) => return Err(e.into()),
                Err(ResultsError::Io(error)) => tracing::error!(%job, %error, "a results file could not be written"),
            }
        }
        Ok(files)
    }

    async fn results_file(
        &self,
        job: &JobId,
        filename: &str,
        columns: Option<&Columns>,
    ) -> std::result::Result<FileRecord, ResultsError> {
        let id = FileId::made_by(job, filename);
        let [temp, files] = ["tmp", "files"].map(|name| self.config.data_dir.join(name));
        for folder in [&temp, &files] {
            tokio::fs::create_dir_all(folder).await?;
        }
        // Whatever begins so in this folder goes at the next start.
        let temp = temp.join(format!("upload-{id}"));
        let mut file = tokio::fs::File::create(&temp).await?;
        let (mut hash, mut size_bytes) = (Sha256::new(), 0_u64);
        let mut steps = Steps::of(&self.store, job);
        let mut text = columns.map_or(String::new(), Columns::header);
        loop {
            hash.update(&text);
            size_bytes += text.len() as u64;
            file.write_all(text.as_bytes()).await?;
            let Some((step, training, evaluation)) = steps.next().await? else { break };
            text = match columns {
                Some(columns) => columns.line(step, training.as_ref(), evaluation.as_ref()),
                None => json_line(step, training.as_ref(), evaluation.as_ref()),
            };
        }
        file.flush().await?;
        file.sync_all().await?;
        tokio::fs::rename(&temp, files.join(id.as_str())).await?;
        sync_dir(&files)?;
        Ok(FileRecord {
            id,
            filename: filename.to_owned(),
            purpose: FilePurpose::FineTuneResults,
            size_bytes,
            sha256: hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            format: None,
            status: FileStatus::Processed,
            report: None,
            created_at: unix_now(),
            expires_at: None,
            job_id: Some(job.clone()),
            ownership: self.store.job(job).await?.ownership,
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum ResultsError {
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The names of all metrics of a job.
#[derive(Debug, Default)]
struct Columns {
    training: BTreeSet<String>,
    evaluation: BTreeSet<String>,
}

async fn columns(store: &Store, job: &JobId) -> Result<Columns> {
    let mut columns = Columns::default();
    let mut steps = Steps::of(store, job);
    while let Some((_, training, evaluation)) = steps.next().await? {
        columns.training.extend(training.into_iter().flat_map(|point| point.values.into_keys()));
        columns.evaluation.extend(evaluation.into_iter().flat_map(|point| point.values.into_keys()));
    }
    Ok(columns)
}

impl Columns {
    fn header(&self) -> String {
        let mut line = OPENAI.to_owned();
        for name in &self.training {
            let _ = write!(line, ",{name}");
        }
        for name in &self.evaluation {
            let _ = write!(line, ",eval_{name}");
        }
        line + "\n"
    }

    fn line(&self, step: u64, training: Option<&MetricPoint>, evaluation: Option<&MetricPoint>) -> String {
        let value = |point: Option<&MetricPoint>, name: &str| {
            point.and_then(|point| point.values.get(name)).map_or(String::new(), f64::to_string)
        };
        // Token accuracy is nothing that preference training measures: the column is there for readers that expect it.
        let mut line = format!(
            "{step},{},{},{},",
            value(training, metric::LOSS),
            value(training, metric::REWARDS_ACCURACIES),
            value(evaluation, metric::LOSS)
        );
        for name in &self.training {
            let _ = write!(line, ",{}", value(training, name));
        }
        for name in &self.evaluation {
            let _ = write!(line, ",{}", value(evaluation, name));
        }
        line + "\n"
    }
}

fn json_line(step: u64, training: Option<&MetricPoint>, evaluation: Option<&MetricPoint>) -> String {
    let values = |point: Option<&MetricPoint>| point.map(|point| point.values.clone());
    format!("{}\n", json!({"step": step, "training": values(training), "evaluation": values(evaluation)}))
}

/// A job's metrics step by step, those of training and of evaluations side by side, a page in memory at a time.
struct Steps<'a> {
    training: Series<'a>,
    evaluation: Series<'a>,
}

struct Series<'a> {
    store: &'a Store,
    job: &'a JobId,
    kind: MetricKind,
    page: VecDeque<MetricPoint>,
    after: Option<u64>,
    is_read: bool,
}

impl<'a> Steps<'a> {
    fn of(store: &'a Store, job: &'a JobId) -> Self {
        let series = |kind| Series { store, job, kind, page: VecDeque::new(), after: None, is_read: false };
        Self { training: series(MetricKind::Training), evaluation: series(MetricKind::Evaluation) }
    }

    async fn next(&mut self) -> crate::store::Result<Option<(u64, Option<MetricPoint>, Option<MetricPoint>)>> {
        let at = [self.training.step().await?, self.evaluation.step().await?];
        let Some(step) = at.into_iter().flatten().min() else { return Ok(None) };
        Ok(Some((step, self.training.take(step), self.evaluation.take(step))))
    }
}

impl Series<'_> {
    /// The next step, if there is one.
    async fn step(&mut self) -> crate::store::Result<Option<u64>> {
        if self.page.is_empty() && !self.is_read {
            let page = self.store.metrics(self.job, self.kind, self.after, PAGE).await?;
            self.is_read = !page.has_more;
            self.page = page.items.into();
            self.after = self.page.back().map(|point| point.step);
        }
        Ok(self.page.front().map(|point| point.step))
    }

    fn take(&mut self, step: u64) -> Option<MetricPoint> {
        self.page.pop_front_if(|point| point.step == step)
    }
}
