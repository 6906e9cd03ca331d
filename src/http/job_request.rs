//! From a job's request to what is stored: everything that is wrong with it, looked up and listed in one answer.

use uuid::Uuid;

use super::{access::Seen, error::ApiError};
use crate::{
    domain::{
        DatasetReport, FieldSummary, FileId, FilePurpose, FileStatus, JobMemory, JobRequest, JobSpec, Method, ModelId,
        ModelRecord, ModelSource, ModelStatus, Problems, Reference, ReferencesRequest, RetentionDefaults,
        TargetModules, needed_bytes, needed_disk_bytes,
    },
    run_dir::Disk,
    store::StoreError,
};

/// Fills in the defaults and checks all of it; nothing is stored.
///
/// # Errors
/// Every problem at once: of the values, of the files, of the models.
pub(super) async fn accept(
    seen: &Seen<'_>,
    request: &JobRequest,
    retention: RetentionDefaults,
) -> Result<JobSpec, ApiError> {
    let mut problems = Problems::default();
    let listed = listed(seen, request, &mut problems).await?;
    let mut spec = JobSpec::resolve(request, listed.as_deref(), new_seed(), &mut problems);
    spec.resolve_retention(request, retention, &mut problems);

    let base = check_model(seen, &request.model, "/model", &mut problems).await?;
    if let Some(base) = &base
        && base.source.as_ref().is_some_and(ModelSource::is_reference_only)
    {
        problems.at("/model", "reference_only", reference_only(&request.model));
    } else if let Some(base) = base.and_then(|base| base.info) {
        name_targets(&mut spec, request, &base.architecture, &mut problems);
    }
    let section = request.method.pointer();
    let inline = request.method.references().and_then(|references| match references {
        ReferencesRequest::Inline(references) => Some(references.as_slice()),
        ReferencesRequest::List(_) => None,
    });
    for (i, reference) in inline.or(listed.as_deref()).unwrap_or_default().iter().enumerate() {
        // A stored list has no places in this body: all of its problems are the list's.
        let pointer = match inline {
            Some(_) => format!("{section}/references/{i}/model"),
            None => format!("{section}/references"),
        };
        if reference.model != request.model {
            let model = check_model(seen, &reference.model, &pointer, &mut problems).await?;
            check_scores(model.as_ref(), &spec, &pointer, &mut problems);
        }
    }
    if let Method::Spo(settings) = &spec.method {
        for (i, model) in settings.earlier.iter().enumerate() {
            let pointer = format!("{section}/earlier/{i}");
            let model = check_model(seen, model, &pointer, &mut problems).await?;
            check_scores(model.as_ref(), &spec, &pointer, &mut problems);
        }
    }
    check_file(seen, &request.training_file, &spec.method, "/training_file", &mut problems).await?;
    if let Some(file) = request.validation_file.as_ref().filter(|f| **f != request.training_file) {
        check_file(seen, file, &spec.method, "/validation_file", &mut problems).await?;
    }
    if problems.is_empty() { Ok(spec) } else { Err(ApiError::invalid(problems)) }
}

/// Refuses a job that needs more memory than there is, even if nothing else ran. While a model is not ready its run is left to find out.
///
/// # Errors
/// With what it needs and the way out.
pub(super) async fn check_memory(seen: &Seen<'_>, spec: &JobSpec, memory: Option<&JobMemory>) -> Result<(), ApiError> {
    let Some(memory_bytes) = memory.map(JobMemory::most_bytes) else { return Ok(()) };
    let Some(base) = seen.model(&spec.model).await?.info else { return Ok(()) };
    let mut references = Vec::with_capacity(spec.references.len());
    for reference in &spec.references {
        references.extend(seen.model(&reference.model).await?.info);
    }
    let needed = needed_bytes(spec, &base, &references);
    if needed <= memory_bytes {
        return Ok(());
    }
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let message = format!(
        "the job would need about {:.1} GiB of memory and the most that it can have here is {:.1} GiB: take smaller models, LoRA, bfloat16 or a smaller \
         micro_batch_tokens",
        gib(needed),
        gib(memory_bytes)
    );
    Err(ApiError::invalid_at("/model", "too_large", message))
}

/// Refuses a job whose checkpoints could never lie on this disk, even if nothing else did. One that only has to wait waits. While the
/// model or the file is not ready its run is left to find out.
///
/// # Errors
/// With what it needs and the way out.
pub(super) async fn check_disk(seen: &Seen<'_>, spec: &JobSpec, disk: &Disk) -> Result<(), ApiError> {
    let Ok(space) = disk.space() else { return Ok(()) };
    let Some(base) = seen.model(&spec.model).await?.info else { return Ok(()) };
    let Some(report) = seen.file(&spec.training_file).await?.report else { return Ok(()) };
    let needed = needed_disk_bytes(spec, &base, report.n_pairs);
    if needed <= space.total_bytes.saturating_sub(disk.reserve_bytes()) {
        return Ok(());
    }
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let message = format!(
        "the job's checkpoints would take about {:.1} GiB and the server's whole disk has {:.1} GiB: keep fewer (retention.keep_last), \
         write fewer (checkpoint_every_n_steps), or take LoRA or a smaller model",
        gib(needed),
        gib(space.total_bytes)
    );
    Err(ApiError::invalid_at("/retention/keep_last", "too_large", message))
}

/// The references of the stored list that the request names.
async fn listed(
    seen: &Seen<'_>,
    request: &JobRequest,
    problems: &mut Problems,
) -> Result<Option<Vec<Reference>>, ApiError> {
    let Some(ReferencesRequest::List(id)) = request.method.references() else { return Ok(None) };
    match seen.reference_list(id).await {
        Ok(list) => Ok(Some(list.references)),
        Err(e @ StoreError::NotFound { .. }) => {
            problems.at(format!("{}/references", request.method.pointer()), "reference_list_not_found", e.to_string());
            Ok(None)
        }
        Err(e) => Err(e.into()),
    }
}

async fn check_model(
    seen: &Seen<'_>,
    id: &ModelId,
    pointer: &str,
    problems: &mut Problems,
) -> Result<Option<ModelRecord>, ApiError> {
    match seen.model(id).await {
        Ok(model) if model.status == ModelStatus::Error => {
            let why = model.error.map_or_else(String::new, |e| format!(": {e}"));
            let message = format!("the model '{id}' cannot be used{why}; delete it and register it anew");
            problems.at(pointer, "model_in_error", message);
        }
        // Pending is well: the job waits until it is ready.
        Ok(model) => return Ok(Some(model)),
        Err(StoreError::NotFound { .. }) => {
            let message = format!("there is no model '{id}': register it with POST /v1/models first");
            problems.at(pointer, "model_not_found", message);
        }
        Err(e) => return Err(e.into()),
    }
    Ok(None)
}

fn reference_only(id: &ModelId) -> String {
    format!(
        "the model '{id}' has scores and no weights, so nothing can start from it: name it among the references, and as model \
         one with weights"
    )
}

/// Whether the method can use what has scores and no weights. While it is not known what they cover the run is left to find out.
fn check_scores(model: Option<&ModelRecord>, spec: &JobSpec, pointer: &str, problems: &mut Problems) {
    let Some(model) = model else { return };
    if !model.source.as_ref().is_some_and(ModelSource::is_reference_only) {
        return;
    }
    let summary = model.info.as_ref().and_then(|info| info.scores.clone()).unwrap_or_default();
    if let Some(why) = summary.unfit_for(&spec.method, &spec.hyperparameters.objective) {
        problems.at(pointer, "unfit_scores", format!("the model '{}': {why}", model.id));
    }
}

/// The layers LoRA is attached to, by the architecture of the base. While that is not known the run is left to find out.
fn name_targets(spec: &mut JobSpec, request: &JobRequest, architecture: &str, problems: &mut Problems) {
    let Some(lora) = &mut spec.hyperparameters.lora else { return };
    match lora.target_modules.of_architecture(architecture) {
        Ok(targets) => lora.target_modules = TargetModules::Listed(targets),
        Err(message) => {
            let pointer = format!("{}/hyperparameters/lora/target_modules", request.method.pointer());
            problems.at(pointer, "unknown_layer", message);
        }
    }
}

async fn check_file(
    seen: &Seen<'_>,
    id: &FileId,
    method: &Method,
    pointer: &str,
    problems: &mut Problems,
) -> Result<(), ApiError> {
    let file = match seen.file(id).await {
        Ok(file) => file,
        Err(StoreError::NotFound { .. }) => {
            problems.at(
                pointer,
                "file_not_found",
                format!("there is no file '{id}': upload it with POST /v1/files first"),
            );
            return Ok(());
        }
        Err(e) => return Err(e.into()),
    };
    if file.purpose != FilePurpose::FineTune {
        problems.at(pointer, "wrong_purpose", format!("the file '{id}' was not uploaded with the purpose 'fine-tune'"));
    }
    // A file that is still being checked is looked at by the run.
    if let (FileStatus::Processed, Some(report)) = (file.status, &file.report) {
        check_fields(report, method, pointer, problems);
    }
    if file.status == FileStatus::Error {
        let found = file.report.unwrap_or_default().problems;
        let message = format!(
            "the file '{id}' ({}) cannot be used, number of problems: {}; correct them and upload it anew",
            file.filename, found.n_total
        );
        problems.at(pointer, "file_in_error", message);
        problems.n_total += found.n_total.saturating_sub(found.first.len() as u64);
        found.first.into_iter().for_each(|problem| problems.push(problem));
    }
    Ok(())
}

/// Whether every row of a file has what the method needs.
fn check_fields(report: &DatasetReport, method: &Method, pointer: &str, problems: &mut Problems) {
    let Some(field) = method.row_field() else { return };
    let kind = method.kind().as_str();
    if let Some(lacks) = report.lacks(field) {
        problems.at(pointer, "missing_row_field", format!("{kind} needs {field} on every line: {lacks}"));
        return;
    }
    let Some(summary) = report.fields.get(&field) else { return };
    if let (Some(expected), Some(found)) = (method.n_row_values(), summary.n_values)
        && expected as u64 != found
    {
        let message = format!("{kind} has {expected} weights for {found} {field} per row: give one weight per reward");
        problems.at(pointer, "inconsistent_length", message);
    }
    if let Method::Spo(settings) = method
        && summary.values.len() < FieldSummary::MAX_VALUES
        && !summary.values.contains_key(&settings.dimension)
    {
        let values = summary.values.keys().map(String::as_str).collect::<Vec<_>>().join("', '");
        let message = format!("no line has the dimension '{}'; there are '{values}'", settings.dimension);
        problems.at(pointer, "unknown_dimension", message);
    }
}

/// A seed for a job that brings none, between 0 and 2147483647.
fn new_seed() -> u32 {
    // The last bits of a version 7 UUID are random.
    Uuid::now_v7().as_u128() as u32 >> 1
}
