//! An export: a model written for other programs, below the run's directory, and hashed.

use std::ops::ControlFlow;

use super::{
    hashed_files::hashed_files,
    journal::Journal,
    references::{check_digest, unusable},
    signal,
};
use crate::{
    domain::{ExportFormat, ExportSpec, ExportedFiles, Failure, FailureCode, Level, Phase, RunEvent},
    export::{Export, is_disk_full},
    model::{ModelError, exported_bytes},
    run_dir::{RunDir, free_disk_bytes},
    text::TextError,
};

/// Room that is left on the disk: for the tokenizer's files, and for the database, which has to tell how it went.
const RESERVE_BYTES: u64 = 64 << 20;

/// Executes the run. Returns its last event.
pub(super) fn export(run: &RunDir, spec: &ExportSpec, journal: &mut Journal) -> anyhow::Result<RunEvent> {
    // An attempt that was killed: what it wrote may be anything.
    run.discard_export()?;
    let location = &spec.model.location;
    let needed = exported_bytes(location, spec.format, spec.dtype).map_err(|e| failed(spec, e.into()))?;
    check_room(needed, free_disk_bytes(run.root())?)?;
    check_digest(&spec.model)?;
    let files = run.export_files();
    let out = match spec.format {
        ExportFormat::Huggingface => files.clone(),
        ExportFormat::Gguf => files.join("model.gguf"),
    };
    let mut last_percent = None;
    let mut on_weight = |n_done: usize, n_total: usize| {
        let percent = Some(n_done * 100 / n_total.max(1));
        if percent != last_percent {
            last_percent = percent;
            // A progress line that cannot be written is not worth failing for; the events that matter come later.
            let _ = journal.progress(Phase::Exporting, n_done, n_total, None);
        }
        if signal::stop_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let export = Export { location, format: spec.format, dtype: spec.dtype, name: Some(spec.model.model.as_str()) };
    let warnings = match export.write(&out, &mut on_weight) {
        Ok(exported) => exported.warnings(),
        Err(e) if matches!(e.downcast_ref(), Some(ModelError::Interrupted)) => {
            return Ok(RunEvent::Stopped { step: 0 });
        }
        Err(e) => return Err(failed(spec, e)),
    };
    for warning in &warnings {
        journal.message(Level::Warn, warning)?;
    }
    journal.say(RunEvent::Exported(ExportedFiles { files: hashed_files(&files)?, warnings }))?;
    Ok(RunEvent::Succeeded { model: None, n_trained_tokens: 0 })
}

/// Refuses before anything is written what would fill the disk.
fn check_room(needed: u64, free: u64) -> Result<(), Failure> {
    let with_reserve = needed.saturating_add(RESERVE_BYTES);
    if with_reserve <= free {
        return Ok(());
    }
    let message = format!(
        "the export needs {} MB and {} MB are free where runs are kept: free some space, for instance with \
         DELETE /v1/exports/{{id}}, or ask for a smaller type",
        with_reserve.div_ceil(1_000_000),
        free / 1_000_000
    );
    Err(Failure::new(FailureCode::DiskFull, message))
}

/// What a client is told of it, with the way out.
fn failed(spec: &ExportSpec, error: anyhow::Error) -> anyhow::Error {
    if is_disk_full(&error) {
        let message = "the disk, its quota or the limit of a file's size is reached: free some space, for instance with \
                       DELETE /v1/exports/{id}, and ask for the export again";
        return Failure::new(FailureCode::DiskFull, message).into();
    }
    let code = match (error.downcast_ref::<ModelError>(), error.downcast_ref::<TextError>()) {
        (Some(e), _) => e.code(),
        (_, Some(e)) => e.code(),
        _ => return error,
    };
    let way_out = match (code, spec.format) {
        (FailureCode::UnsupportedModel, ExportFormat::Gguf) => "; ask for the format huggingface, which can say it",
        _ => "",
    };
    Failure::new(code, format!("{}{way_out}", unusable(&spec.model, &error).message)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_fill_the_disk_is_refused_with_both_numbers() {
        assert!(check_room(1_000_000_000, 1_000_000_000 + RESERVE_BYTES).is_ok());
        let failure = check_room(2_000_000_000, 1_500_000_000).expect_err("refused");
        assert_eq!(failure.code, FailureCode::DiskFull);
        assert!(failure.message.contains("2068 MB") && failure.message.contains("1500 MB are free"), "{failure}");
        assert!(check_room(u64::MAX, 0).is_err());
    }
}
