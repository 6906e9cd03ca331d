//! What a run is told: a job with its names replaced by paths, or a model's source.

use std::path::Path;

use super::Result;
use crate::{
    domain::{
        Failure, FailureCode, FileId, Job, ModelRecord, ModelStatus, Reference, RegisterSpec, ResolvedReference,
        TrainSpec,
    },
    store::{Store, StoreError},
};

/// The spec of a job's run. The inner error is the job's fault, not the store's.
pub(super) async fn train(
    store: &Store,
    data_dir: &Path,
    job: &Job,
) -> Result<std::result::Result<TrainSpec, Failure>> {
    let earlier = job.spec.earlier().iter().map(|model| Reference { model: model.clone(), weight: None });
    let mut resolved = Vec::with_capacity(job.spec.references.len());
    for reference in job.spec.references.iter().cloned().chain(earlier) {
        let model = match store.model(&reference.model).await {
            Ok(model) => Some(model),
            Err(StoreError::NotFound { .. }) => None,
            Err(e) => return Err(e.into()),
        };
        match resolve(&reference, model) {
            Ok(model) => resolved.push(model),
            Err(failure) => return Ok(Err(failure)),
        }
    }
    let earlier = resolved.split_off(job.spec.references.len());
    let file = |id: &FileId| data_dir.join("files").join(id.as_str());
    Ok(Ok(TrainSpec {
        job: job.id.clone(),
        seed: job.spec.seed,
        references: resolved,
        method: job.spec.method.clone(),
        earlier,
        training_file: file(&job.spec.training_file),
        validation_file: job.spec.validation_file.as_ref().map(file),
        hyperparameters: job.spec.hyperparameters.clone(),
    }))
}

fn resolve(reference: &Reference, model: Option<ModelRecord>) -> std::result::Result<ResolvedReference, Failure> {
    let id = &reference.model;
    let unusable = |why: &str| Failure::new(FailureCode::InvalidModel, format!("the model '{id}' {why}"));
    let model = model.ok_or_else(|| unusable("has been deleted: register it again and create the job anew"))?;
    let info = model.info.filter(|_| model.status == ModelStatus::Ready).ok_or_else(|| unusable("is not ready"))?;
    Ok(ResolvedReference { model: id.clone(), digest: info.digest, location: info.location, weight: reference.weight })
}

/// The spec of a registration.
pub(super) fn register(data_dir: &Path, model: &ModelRecord) -> std::result::Result<RegisterSpec, Failure> {
    let source = model.source.clone().ok_or_else(|| {
        Failure::new(FailureCode::Internal, format!("the model '{}' has no source to be fetched from", model.id))
    })?;
    let (store_dir, files_dir) = (data_dir.join("models"), data_dir.join("files"));
    Ok(RegisterSpec { model: model.id.clone(), source, store_dir, files_dir })
}
