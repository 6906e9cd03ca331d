//! What a run is told: a job or an export with its names replaced by paths, a question about a job, or a model's source.

use super::{Result, WorkerConfig};
use crate::{
    domain::{
        AllowedHosts, DatasetFormat, ExportId, ExportSpec, Failure, FailureCode, FileId, JobId, JobSpec, ModelId,
        ModelRecord, ModelSource, ModelStatus, Reference, RegisterSpec, RemoteTokenizer, ResolvedReference, TrainSpec,
    },
    store::{Store, StoreError},
};

/// The spec of a job's run. The inner error is the job's fault, not the store's.
pub(super) async fn train(
    store: &Store,
    config: &WorkerConfig,
    id: &JobId,
    job: &JobSpec,
) -> Result<std::result::Result<TrainSpec, Failure>> {
    let earlier = job.earlier().iter().map(|model| Reference { model: model.clone(), weight: None });
    let mut resolved = Vec::with_capacity(job.references.len());
    for reference in job.references.iter().cloned().chain(earlier) {
        match resolve(&reference, model(store, &reference.model).await?, &config.remotes) {
            Ok(model) => resolved.push(model),
            Err(failure) => return Ok(Err(failure)),
        }
    }
    let earlier = resolved.split_off(job.references.len());
    let file = |id: &FileId| config.data_dir.join("files").join(id.as_str());
    let training_format = format(store, &job.training_file).await?;
    let validation_format = match &job.validation_file {
        Some(file) => format(store, file).await?,
        None => None,
    };
    Ok(Ok(TrainSpec {
        job: id.clone(),
        seed: job.seed,
        references: resolved,
        method: job.method.clone(),
        earlier,
        training_file: file(&job.training_file),
        training_format,
        validation_file: job.validation_file.as_ref().map(file),
        validation_format,
        hyperparameters: job.hyperparameters.clone(),
    }))
}

/// The format a file was checked in: a run reads what the check read.
async fn format(store: &Store, id: &FileId) -> Result<Option<DatasetFormat>> {
    match store.file(id).await {
        Ok(file) => Ok(file.report.and_then(|report| report.format)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

async fn model(store: &Store, id: &ModelId) -> Result<Option<ModelRecord>> {
    match store.model(id).await {
        Ok(model) => Ok(Some(model)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn resolve(
    reference: &Reference,
    model: Option<ModelRecord>,
    remotes: &AllowedHosts,
) -> std::result::Result<ResolvedReference, Failure> {
    let id = &reference.model;
    let unusable = |why: &str| Failure::new(FailureCode::InvalidModel, format!("the model '{id}' {why}"));
    let model = model.ok_or_else(|| unusable("has been deleted: register it again, then ask anew"))?;
    check_allowed(&model, remotes)?;
    let info = model.info.filter(|_| model.status == ModelStatus::Ready).ok_or_else(|| unusable("is not ready"))?;
    Ok(ResolvedReference { model: id.clone(), digest: info.digest, location: info.location, weight: reference.weight })
}

/// Asked again although it was asked when the model was registered: the operator may have another mind since.
fn check_allowed(model: &ModelRecord, remotes: &AllowedHosts) -> std::result::Result<(), Failure> {
    match &model.source {
        Some(ModelSource::Remote(remote)) if !remotes.allow(&remote.url) => {
            let message =
                format!("the model '{}': {}", model.id, AllowedHosts::refusal(&remote.url, AllowedHosts::REMOTE_FLAG));
            Err(Failure::new(FailureCode::RemoteUnavailable, message))
        }
        _ => Ok(()),
    }
}

/// The spec of a registration. The inner error is the model's fault, not the store's.
pub(super) async fn register(
    store: &Store,
    config: &WorkerConfig,
    record: &ModelRecord,
) -> Result<std::result::Result<RegisterSpec, Failure>> {
    let Some(source) = record.source.clone() else {
        let message = format!("the model '{}' has no source to be fetched from", record.id);
        return Ok(Err(Failure::new(FailureCode::Internal, message)));
    };
    if let Err(failure) = check_allowed(record, &config.remotes) {
        return Ok(Err(failure));
    }
    let tokenizer = match &source {
        ModelSource::Remote(remote) => match &remote.tokenizer {
            // One that is gone or not ready is not there: the run says so.
            Some(id) => model(store, id).await?.and_then(|model| model.info),
            None => None,
        },
        _ => None,
    };
    let tokenizer = tokenizer.map(|info| RemoteTokenizer { digest: info.digest, location: info.location });
    let (store_dir, files_dir) = (config.data_dir.join("models"), config.data_dir.join("files"));
    Ok(Ok(RegisterSpec { model: record.id.clone(), source, store_dir, files_dir, tokenizer }))
}

/// The spec of an export. The inner error is the model's fault, not the store's.
pub(super) async fn export(
    store: &Store,
    config: &WorkerConfig,
    id: &ExportId,
) -> Result<std::result::Result<ExportSpec, Failure>> {
    let export = match store.export(id).await {
        Ok(export) => export,
        Err(StoreError::NotFound { .. }) => {
            return Ok(Err(Failure::new(FailureCode::InvalidSpec, "the export has been deleted")));
        }
        Err(e) => return Err(e.into()),
    };
    let reference = Reference { model: export.model, weight: None };
    let model = resolve(&reference, model(store, &reference.model).await?, &config.remotes);
    Ok(model.map(|model| ExportSpec { export: export.id, model, format: export.format, dtype: export.dtype }))
}
