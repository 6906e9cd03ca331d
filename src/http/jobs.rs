//! `/v1/fine_tuning/jobs`: what clients ask for, and where it stands.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    access::{By, Seen},
    disk_room::check_share,
    dry_runs::{self, DryRunObject},
    error::ApiError,
    extract::{Id, Json, Query},
    job_query, job_request,
    method_object::MethodObject,
    paging::List,
    user_limits,
};
use crate::{
    domain::{
        EvaluationPair, FailureCode, FileId, Hyperparameters, Job, JobId, JobRequest, JobStatus, ModelId, Ownership,
        Priority, Reference, ReferenceListId, Retention, RunId, ScoringCount, UserName, Waiting,
    },
    store::{JobQuery, Page, unix_now},
};

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_job, list_jobs))
        .routes(routes!(get_job))
        .routes(routes!(cancel_job))
        .routes(routes!(pause_job))
        .routes(routes!(resume_job))
}

/// A fine-tuning job.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct FineTuningJob {
    id: JobId,
    /// `fine_tuning.job`.
    #[schema(example = "fine_tuning.job")]
    object: &'static str,
    /// Unix time in seconds.
    created_at: i64,
    /// When a process was first started for it.
    started_at: Option<i64>,
    /// When it got its final status.
    finished_at: Option<i64>,
    /// When it will be done, as far as one can tell; null unless it runs.
    estimated_finish: Option<i64>,
    /// The model it starts from.
    model: ModelId,
    /// The model it made.
    fine_tuned_model: Option<ModelId>,
    /// Always `mrpo`: this server knows no organizations.
    #[schema(example = "mrpo")]
    organization_id: &'static str,
    status: JobStatus,
    /// Whose it is; null where nobody was asked for a key.
    owner: Option<UserName>,
    /// Whether the team sees it.
    shared: bool,
    training_file: FileId,
    validation_file: Option<FileId>,
    /// Its metrics by step, as CSV and as JSON Lines, once it has succeeded.
    result_files: Vec<FileId>,
    /// Tokens trained on.
    trained_tokens: Option<u64>,
    /// Seed of everything random.
    seed: u32,
    /// Why it failed.
    error: Option<JobError>,
    /// All settings, as they are used.
    hyperparameters: Hyperparameters,
    /// The method with all its settings, as they are used.
    method: MethodObject,
    /// Always empty.
    integrations: [String; 0],
    /// The client's own texts.
    metadata: Option<BTreeMap<String, String>>,
    /// Part of the tuned model's name.
    suffix: Option<String>,
    /// The references; number 0 is the model it starts from.
    references: Vec<Reference>,
    /// The list they were taken from, if they were.
    reference_list: Option<ReferenceListId>,
    /// What their scores have cost, once they are all there.
    reference_scores: Option<ScoringCount>,
    /// The validation set before the first step and after the last.
    evaluation: EvaluationPair,
    /// Optimizer steps, once their number is known.
    progress: Option<JobProgress>,
    /// How often a process was started for it.
    n_attempts: u32,
    /// Its directory's name below `runs/`, once there is one.
    run_id: Option<RunId>,
    /// What of it is kept on the disk, as it is used.
    retention: Retention,
    /// How soon it is to run beside others.
    priority: Priority,
    /// Where it stands while it waits; null when it does not.
    queue: Option<Waiting>,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct JobError {
    code: FailureCode,
    /// The cause and the way out, for people.
    message: String,
    /// Always null: no single parameter is to blame.
    param: Option<String>,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct JobProgress {
    /// Steps done.
    n_steps_done: u64,
    /// Steps in all.
    n_steps: u64,
}

/// What creating a job answers with.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
enum Created {
    /// The job.
    Job(Box<FineTuningJob>),
    /// What it would take (`dry_run`).
    DryRun(Box<DryRunObject>),
}

impl FineTuningJob {
    fn of(job: Job, queue: Option<Waiting>) -> Self {
        let spec = job.spec;
        let method = MethodObject::of(&spec);
        Self {
            id: job.id,
            object: "fine_tuning.job",
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            estimated_finish: job.estimated_finish,
            model: spec.model,
            fine_tuned_model: job.fine_tuned_model,
            organization_id: "mrpo",
            status: job.status,
            owner: job.ownership.owner,
            shared: job.ownership.is_shared,
            training_file: spec.training_file,
            validation_file: spec.validation_file,
            result_files: job.result_files,
            trained_tokens: job.n_trained_tokens,
            seed: spec.seed,
            error: job.error.map(|e| JobError { code: e.code, message: e.message, param: None }),
            hyperparameters: spec.hyperparameters,
            method,
            integrations: [],
            metadata: spec.metadata,
            suffix: spec.suffix,
            references: spec.references,
            reference_list: spec.reference_list,
            reference_scores: job.reference_scores,
            evaluation: job.evaluation,
            progress: job.progress.map(|(n_steps_done, n_steps)| JobProgress { n_steps_done, n_steps }),
            n_attempts: job.n_attempts,
            run_id: job.run_id,
            retention: spec.retention,
            priority: job.priority,
            queue,
        }
    }
}

/// Jobs as they are shown, with where they stand in the queue.
async fn shown(app: &App, jobs: Vec<Job>) -> Result<Vec<FineTuningJob>, ApiError> {
    let standing = {
        let jobs: Vec<&Job> = jobs.iter().collect();
        app.store().waiting(&app.settings().queue, &jobs, unix_now()).await?
    };
    Ok(jobs.into_iter().zip(standing).map(|(job, waiting)| FineTuningJob::of(job, waiting)).collect())
}

/// One job as it is shown.
pub(super) async fn answer(app: &App, job: Job) -> Result<FineTuningJob, ApiError> {
    Ok(shown(app, vec![job]).await?.remove(0))
}

/// Creates a fine-tuning job
///
/// Whatever is left out or `"auto"` gets its documented default; the answer has all settings as they are used. It waits
/// while a file or a model it reads is still being checked.
///
/// With `dry_run` the request is checked in the same way and no job is made. The answer tells what the job would take in memory, disk and
/// time, what is known of each reference, what it says of a sample of the pairs, and warns in words. The request waits for it, two minutes
/// at most.
#[utoipa::path(
    post, path = "/v1/fine_tuning/jobs", tag = "fine-tuning jobs", request_body = JobRequest,
    responses(
        (status = 200, description = "The job, or what it would take", body = Created),
        (status = 400, description = "The body is not valid, or names a file or a model that cannot be used: `errors` has \
                                      every problem"),
        (status = 403, description = "The priority `high`, and whoever asks is no admin: `admins_only`"),
        (status = 409, description = "As many jobs of this user wait as may (`too_many_waiting`), or as much is on disk (`disk_limit`); \
                                      of a dry run: a file or a model is still being checked (`not_ready`)"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body is not JSON"),
        (status = 422, description = "Of a dry run: what would end the job before training (`inspection_failed`)"),
        (status = 504, description = "Of a dry run: there was no answer in time (`inspection_timeout`)"),
    )
)]
async fn create_job(
    State(app): State<App>,
    By(caller): By,
    Json(request): Json<JobRequest>,
) -> Result<axum::Json<Created>, ApiError> {
    let spec = job_request::accept(&Seen::by(&caller, &app), &request, app.settings().retention).await?;
    Ok(axum::Json(if request.dry_run {
        Created::DryRun(Box::new(dry_runs::answer(&app, spec).await?))
    } else {
        let terms = user_limits::job_terms(&app, &caller, request.priority)?;
        job_request::check_memory(&Seen::by(&caller, &app), &spec, app.settings().memory.read().as_ref()).await?;
        job_request::check_disk(&Seen::by(&caller, &app), &spec, &app.settings().disk).await?;
        check_share(&app, &caller).await?;
        let job = app.store().insert_job(&spec, &Ownership::of(&caller, false), &terms).await?;
        Created::Job(Box::new(answer(&app, job).await?))
    }))
}

/// Lists the jobs
///
/// One's own, those that are shared and the team's, newest first.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs", tag = "fine-tuning jobs",
    params(
        ("after" = Option<String>, Query, description = "The id of the last job of the page before"),
        ("limit" = Option<usize>, Query, description = "How many at most, 1 to 100; 20 by default", minimum = 1, maximum = 100),
        ("metadata" = Option<BTreeMap<String, String>>, Query, style = DeepObject, explode,
         description = "`metadata[key]=value`: only jobs with this entry; `metadata=null`: only jobs without metadata"),
    ),
    responses(
        (status = 200, description = "One page, newest first", body = List<FineTuningJob>),
        (status = 400, description = "A parameter is not valid, or `after` is not in the list"),
    )
)]
async fn list_jobs(
    State(app): State<App>,
    By(caller): By,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<axum::Json<List<FineTuningJob>>, ApiError> {
    let page = app.store().jobs(&JobQuery { viewer: caller.viewer(), ..job_query::read(pairs)? }).await?;
    let page = Page { items: shown(&app, page.items).await?, has_more: page.has_more };
    Ok(axum::Json(List::of(page, |job| job.id.to_string(), |job| job)))
}

/// Shows a job
///
/// With its settings as they are used, its progress, and where it stands while it waits.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{job_id}", tag = "fine-tuning jobs",
    params(("job_id" = String, Path, description = "The job")),
    responses((status = 200, description = "The job", body = FineTuningJob), (status = 404, description = "No such job"))
)]
async fn get_job(State(app): State<App>, Id(id): Id<JobId>) -> Result<axum::Json<FineTuningJob>, ApiError> {
    Ok(axum::Json(answer(&app, app.store().job(&id).await?).await?))
}

/// Cancels a job
///
/// One that runs keeps that status until its process has stopped. A body is neither needed nor read.
#[utoipa::path(
    post, path = "/v1/fine_tuning/jobs/{job_id}/cancel", tag = "fine-tuning jobs",
    params(("job_id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "The job", body = FineTuningJob),
        (status = 404, description = "No such job"),
        (status = 409, description = "It has ended already: `illegal_transition`"),
    )
)]
async fn cancel_job(State(app): State<App>, Id(id): Id<JobId>) -> Result<axum::Json<FineTuningJob>, ApiError> {
    Ok(axum::Json(answer(&app, app.store().cancel_job(&id).await?).await?))
}

/// Pauses a job
///
/// One that runs keeps that status until its process has saved its state and stopped.
#[utoipa::path(
    post, path = "/v1/fine_tuning/jobs/{job_id}/pause", tag = "fine-tuning jobs",
    params(("job_id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "The job", body = FineTuningJob),
        (status = 404, description = "No such job"),
        (status = 409, description = "It is paused or has ended already: `illegal_transition`"),
    )
)]
async fn pause_job(State(app): State<App>, Id(id): Id<JobId>) -> Result<axum::Json<FineTuningJob>, ApiError> {
    Ok(axum::Json(answer(&app, app.store().pause_job(&id).await?).await?))
}

/// Resumes a paused job
///
/// It goes back into the queue and on from its newest checkpoint, to the same result as if it had never been paused.
#[utoipa::path(
    post, path = "/v1/fine_tuning/jobs/{job_id}/resume", tag = "fine-tuning jobs",
    params(("job_id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "The job", body = FineTuningJob),
        (status = 404, description = "No such job"),
        (status = 409, description = "It is not paused: `illegal_transition`"),
    )
)]
async fn resume_job(State(app): State<App>, Id(id): Id<JobId>) -> Result<axum::Json<FineTuningJob>, ApiError> {
    Ok(axum::Json(answer(&app, app.store().resume_job(&id).await?).await?))
}
