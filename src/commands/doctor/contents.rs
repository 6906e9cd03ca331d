//! Rows against files, in both directions: what a row names and is not there, and what is there and no row names.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use mrpo::{
    domain::{FileId, PartId, RunId, WeightsFormat},
    run_dir::{CheckpointManifest, RunDir, read_json},
    store::{Checkup, KnownCheckpoint, StoreError},
};

use super::{MAX_NAMED, Report, size};

/// What to do about something that has gone.
const PUT_BACK: &str = "put it back from a backup, or delete what names it";

/// The names in the data directory, ours only.
#[derive(Debug)]
pub(super) struct Listed {
    files: HashMap<String, PathBuf>,
    parts: HashMap<String, PathBuf>,
    runs: HashMap<RunId, PathBuf>,
}

impl Listed {
    /// What lies there now.
    pub(super) fn of(data_dir: &Path) -> Self {
        let ours = |folder: &str, is_ours: fn(&str) -> bool| -> HashMap<String, PathBuf> {
            names(&data_dir.join(folder)).into_iter().filter(|(name, _)| is_ours(name)).collect()
        };
        let runs = names(&data_dir.join("runs")).into_iter();
        Self {
            files: ours("files", |name| name.parse::<FileId>().is_ok()),
            parts: ours("uploads", |name| name.parse::<PartId>().is_ok()),
            runs: runs.filter_map(|(name, path)| Some((name.parse().ok()?, path))).collect(),
        }
    }

    /// Compares it with the rows.
    pub(super) async fn compare(
        &self,
        data_dir: &Path,
        is_served: bool,
        database: &Checkup,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let files: Vec<(String, u64)> = texts(database.files().await?);
        whole("files", &data_dir.join("files"), &files, report);
        unknown("files", &self.files, &files.into_iter().map(|(id, _)| id).collect(), report);
        let parts: Vec<(String, u64)> = texts(database.parts().await?);
        whole("uploads", &data_dir.join("uploads"), &parts, report);
        unknown("uploads", &self.parts, &parts.into_iter().map(|(id, _)| id).collect(), report);
        self.runs(is_served, database, report).await?;
        checkpoints(data_dir, &database.checkpoints().await?, report);
        exports(data_dir, database, report).await?;
        models(database, report).await
    }

    async fn runs(&self, is_served: bool, database: &Checkup, report: &mut Report) -> Result<(), StoreError> {
        let known: HashMap<RunId, bool> =
            database.runs().await?.into_iter().map(|run| (run.id, run.is_leased)).collect();
        let is_live = |path: &Path| RunDir::new(path).is_live().unwrap_or(false);
        let mut left_over = Vec::new();
        for (id, path) in &self.runs {
            match known.get(id) {
                None if !is_live(path) => left_over.push(path.clone()),
                None => report.warn(
                    "runs",
                    format!("a process works in {}, which no row knows of", path.display()),
                    "stop it",
                ),
                Some(false) if is_live(path) && !is_served => {
                    let what = format!("a process works in {}, which no server has started", path.display());
                    report.warn("runs", what, "stop it before a server goes on with the run");
                }
                Some(true) if !is_live(path) && !is_served => {
                    let what = format!("run '{id}' is held by a server that is gone, and nobody works on it");
                    report.warn("runs", what, "the next server starts it again from its newest checkpoint");
                }
                Some(_) => {}
            }
        }
        tell_unknown("runs", &left_over, report);
        report.ok("runs", format!("{} known, {} directories", known.len(), self.runs.len()));
        Ok(())
    }
}

fn texts<T: ToString>(rows: Vec<(T, u64)>) -> Vec<(String, u64)> {
    rows.into_iter().map(|(id, bytes)| (id.to_string(), bytes)).collect()
}

/// Whether every row's file is there, with the size it should have.
fn whole(check: &'static str, folder: &Path, rows: &[(String, u64)], report: &mut Report) {
    let damaged: Vec<String> = rows.iter().filter_map(|(name, bytes)| damage(&folder.join(name), *bytes)).collect();
    if damaged.is_empty() {
        report.ok(check, format!("all {} are there, {}", rows.len(), size(rows.iter().map(|(_, bytes)| bytes).sum())));
    }
    report.fail_each(check, &damaged, PUT_BACK);
}

/// What is wrong with a file that should have this size.
fn damage(path: &Path, size_bytes: u64) -> Option<String> {
    match path.metadata() {
        Ok(metadata) if metadata.len() == size_bytes => None,
        Ok(metadata) => Some(format!("{} has {} bytes, recorded are {size_bytes}", path.display(), metadata.len())),
        Err(_) => Some(format!("{} is missing", path.display())),
    }
}

fn unknown(check: &'static str, listed: &HashMap<String, PathBuf>, known: &HashSet<String>, report: &mut Report) {
    let paths: Vec<PathBuf> =
        listed.iter().filter(|(name, _)| !known.contains(*name)).map(|(_, path)| path.clone()).collect();
    tell_unknown(check, &paths, report);
}

fn tell_unknown(check: &'static str, paths: &[PathBuf], report: &mut Report) {
    if paths.is_empty() {
        return;
    }
    let bytes: u64 = paths.iter().map(|path| bytes_below(path)).sum();
    let mut named: Vec<String> = paths.iter().take(MAX_NAMED).map(|path| path.display().to_string()).collect();
    named.sort();
    let more = if paths.len() > MAX_NAMED { format!(" and {} more", paths.len() - MAX_NAMED) } else { String::new() };
    let what = format!("no row knows of {}{more}: {}", named.join(", "), size(bytes));
    report.warn(
        check,
        what,
        "the next start of `mrpo serve` removes it, unless it is older than the database or newer than all it knows",
    );
}

fn checkpoints(data_dir: &Path, known: &[KnownCheckpoint], report: &mut Report) {
    let mut damaged = Vec::new();
    for checkpoint in known {
        let home =
            RunDir::new(data_dir.join("runs").join(checkpoint.run.as_str())).checkpoints().join(&checkpoint.directory);
        let manifest = home.join(RunDir::MANIFEST);
        match read_json::<CheckpointManifest>(&manifest) {
            Err(_) if !home.exists() => damaged.push(format!("{} is missing", home.display())),
            Err(e) => damaged.push(e.to_string()),
            Ok(manifest) => {
                damaged
                    .extend(manifest.files.iter().filter_map(|file| damage(&home.join(&file.name), file.size_bytes)));
            }
        }
    }
    if damaged.is_empty() {
        let bytes = known.iter().map(|checkpoint| checkpoint.size_bytes).sum();
        report.ok("checkpoints", format!("all {} have the files of their manifests, {}", known.len(), size(bytes)));
    }
    report.fail_each("checkpoints", &damaged, PUT_BACK);
}

async fn exports(data_dir: &Path, database: &Checkup, report: &mut Report) -> Result<(), StoreError> {
    let exports = database.exports().await?;
    let mut damaged = Vec::new();
    for export in &exports {
        let Some(run) = &export.run else { continue };
        let home = RunDir::new(data_dir.join("runs").join(run.as_str())).export_files();
        damaged.extend(export.files.iter().filter_map(|file| damage(&home.join(&file.name), file.size_bytes)));
    }
    if damaged.is_empty() {
        report.ok("exports", format!("all {} are there", exports.len()));
    }
    report.fail_each("exports", &damaged, "delete the export and ask for it again");
    Ok(())
}

async fn models(database: &Checkup, report: &mut Report) -> Result<(), StoreError> {
    let models = database.models().await?;
    let mut missing = Vec::new();
    for (id, location) in &models {
        let adapters = location.adapters.iter().map(|adapter| adapter.join("adapter_model.safetensors"));
        let weights = match location.format {
            WeightsFormat::Huggingface => location.weights.join("config.json"),
            _ => location.weights.clone(),
        };
        let gone = adapters.chain([weights]).find(|path| !path.exists());
        missing.extend(gone.map(|path| format!("model '{id}' lacks {}", path.display())));
    }
    if missing.is_empty() {
        report.ok("models", format!("the files of all {} are there", models.len()));
    }
    report.fail_each("models", &missing, "put the files back, or delete the model and register it again");
    Ok(())
}

fn names(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().into_string().ok()?, entry.path()))
        })
        .collect()
}

fn bytes_below(path: &Path) -> u64 {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => names(path).iter().map(|(_, path)| bytes_below(path)).sum(),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    }
}
