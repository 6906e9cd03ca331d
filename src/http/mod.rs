//! The REST API: one file per resource, each with its `router()` first, then its bodies, then its handlers.
//!
//! Nothing here waits for training: a request reads or writes rows, or streams a file. `error_code.rs` holds the only table of
//! error codes; whatever goes wrong anywhere is answered in its shape.

mod access;
mod api_keys;
mod archive;
mod checkpoint_files;
mod checkpoints;
mod cors;
mod disk_room;
mod docs;
mod download;
mod dry_runs;
mod elsewhere;
mod error;
mod error_body;
mod error_code;
mod event_stream;
mod events;
mod export_files;
mod exports;
mod extract;
mod file_checks;
mod file_object;
mod file_overlap;
mod file_request;
mod files;
mod form;
mod form_body;
mod frame;
mod health;
mod in_flight;
mod inspections;
mod job_query;
mod job_request;
mod jobs;
mod join;
mod live;
mod method_object;
mod metrics;
mod models;
mod name;
mod objective_batch;
mod objective_numbers;
mod objective_request;
mod objectives;
mod observe;
mod openapi;
mod paging;
mod previews;
mod prometheus;
mod queue;
mod rate;
mod reference_lists;
mod reference_scores;
mod replay;
mod serve;
mod sharing;
mod span;
mod stream_tokens;
mod tensorboard;
mod tls;
mod upload_object;
mod uploads;
mod user_limits;
mod webhook_deliveries;
mod webhooks;

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Router,
    http::{Method, Uri},
    middleware,
};
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use self::{
    access::{KeysAsked, guard},
    disk_room::Arriving,
    error::{ApiError, ErrorCode},
    file_checks::FileChecks,
    in_flight::InFlight,
    live::Live,
    observe::observe,
    prometheus::Requests,
    rate::Rate,
    replay::replay,
    stream_tokens::StreamTokens,
    uploads::AtWork,
};
pub use self::{cors::Origin, openapi::document, serve::serve, tls::certificate_expires_at, tls::tls};
use crate::{
    domain::{AllowedHosts, QueueRules, ReadMemory, RetentionDefaults},
    run_dir::Disk,
    store::Store,
};

/// What the API is allowed to do.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where everything lies.
    pub data_dir: PathBuf,
    /// The largest file that may be uploaded, in bytes.
    pub max_upload_bytes: u64,
    /// How many requests are worked on at once, half of them with one key at most; more are told to come back.
    pub max_requests: usize,
    /// How many streams of events there are at once; one key has half of them at most.
    pub max_streams: usize,
    /// How many uploaded files are checked at once.
    pub max_checks: usize,
    /// Whether a client may register a model that lies on this machine (`path:`).
    pub allow_path_models: bool,
    /// How many requests a second a key may make; any, without a number.
    pub requests_per_second: Option<NonZeroU32>,
    /// The sites whose pages may use the API from a browser.
    pub origins: Vec<Origin>,
    /// The other servers that may be registered as references (`remote:`).
    pub remotes: AllowedHosts,
    /// The servers whose webhooks may be called.
    pub webhook_hosts: AllowedHosts,
    /// How many jobs run at once, and what one user may have; the worker's.
    pub queue: QueueRules,
    /// The disk that everything is kept on; the worker's.
    pub disk: Disk,
    /// What is kept of jobs that do not say it.
    pub retention: RetentionDefaults,
    /// The memory that jobs find.
    pub memory: ReadMemory,
}

/// Tells whether the worker is alive; http must not know the worker itself.
pub type IsWorkerAlive = Arc<dyn Fn() -> bool + Send + Sync>;

/// What every handler works with; a clone is another handle to the same.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    store: Store,
    settings: Settings,
    is_worker_alive: IsWorkerAlive,
    in_flight: InFlight,
    keys_asked: KeysAsked,
    rate: Rate,
    requests: Requests,
    checks: FileChecks,
    live: Arc<Live>,
    stream_tokens: StreamTokens,
    uploads_at_work: AtWork,
    arriving: Arriving,
}

impl App {
    /// Makes the folders it needs, removes what broken uploads left, and begins to check the files that are unchecked.
    pub async fn open(store: Store, settings: Settings, is_worker_alive: IsWorkerAlive) -> anyhow::Result<Self> {
        let files = settings.data_dir.join("files");
        fs_err::create_dir_all(&files)?;
        form::clear(&settings.data_dir.join("tmp"))?;
        uploads::clear_orphans(&store, &settings.data_dir.join(uploads::PARTS)).await?;
        store.free_unanswered().await?;
        let checks = FileChecks::new(store.clone(), files, settings.max_checks);
        for file in store.unchecked_files().await? {
            checks.begin(&file);
        }
        let in_flight = InFlight::new(settings.max_requests);
        let rate = Rate::new(settings.requests_per_second);
        let (keys_asked, requests) = (KeysAsked::default(), Requests::new());
        let live = Live::open(store.clone(), settings.max_streams).await?;
        let (stream_tokens, uploads_at_work) = (StreamTokens::default(), AtWork::default());
        Ok(Self(Arc::new(Inner {
            store,
            settings,
            is_worker_alive,
            in_flight,
            keys_asked,
            rate,
            requests,
            checks,
            live,
            stream_tokens,
            uploads_at_work,
            arriving: Arriving::default(),
        })))
    }

    /// An app on an empty data directory.
    #[cfg(test)]
    async fn for_tests(data_dir: &Path) -> Self {
        let settings = Settings {
            data_dir: data_dir.to_owned(),
            max_upload_bytes: 1000,
            max_requests: 8,
            max_streams: 8,
            max_checks: 1,
            allow_path_models: true,
            requests_per_second: None,
            origins: Vec::new(),
            remotes: AllowedHosts::default(),
            webhook_hosts: AllowedHosts::default(),
            queue: QueueRules::new(1),
            disk: Disk::new(data_dir, 0),
            retention: RetentionDefaults::default(),
            memory: ReadMemory::unknown(),
        };
        let store = Store::open(data_dir).await.expect("store");
        Self::open(store, settings, Arc::new(|| true)).await.expect("app")
    }

    fn store(&self) -> &Store {
        &self.0.store
    }

    fn settings(&self) -> &Settings {
        &self.0.settings
    }

    fn data_dir(&self) -> &Path {
        &self.0.settings.data_dir
    }

    fn in_flight(&self) -> &InFlight {
        &self.0.in_flight
    }

    fn keys_asked(&self) -> &KeysAsked {
        &self.0.keys_asked
    }

    fn requests(&self) -> &Requests {
        &self.0.requests
    }

    fn rate(&self) -> &Rate {
        &self.0.rate
    }

    fn checks(&self) -> &FileChecks {
        &self.0.checks
    }

    fn live(&self) -> &Arc<Live> {
        &self.0.live
    }

    fn stream_tokens(&self) -> &StreamTokens {
        &self.0.stream_tokens
    }

    /// A name for a file that is on its way in.
    fn temp_file(&self) -> PathBuf {
        self.data_dir().join("tmp").join(format!("{}{}", form::TEMP_PREFIX, Uuid::now_v7().simple()))
    }

    fn uploads_at_work(&self) -> &AtWork {
        &self.0.uploads_at_work
    }

    fn arriving(&self) -> &Arriving {
        &self.0.arriving
    }

    fn is_worker_alive(&self) -> bool {
        (self.0.is_worker_alive)()
    }
}

/// Every route, with its description.
fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(files::router())
        .merge(uploads::router())
        .merge(file_overlap::router())
        .merge(models::router())
        .merge(previews::router())
        .merge(exports::router())
        .merge(export_files::router())
        .merge(reference_lists::router())
        .merge(reference_scores::router())
        .merge(jobs::router())
        .merge(queue::router())
        .merge(events::router())
        .merge(stream_tokens::router())
        .merge(metrics::router())
        .merge(tensorboard::router())
        .merge(checkpoints::router())
        .merge(checkpoint_files::router())
        .merge(objectives::router())
        .merge(webhooks::router())
        .merge(webhook_deliveries::router())
        .merge(sharing::router())
        .merge(api_keys::router())
        .merge(health::router())
        .merge(docs::router())
        .merge(prometheus::router())
}

/// The service: every route, and around it what every request gets.
fn router(app: App) -> Router {
    let (router, _) = routes().split_for_parts();
    let cors = cors::layer(&app.settings().origins);
    router
        .route_layer(middleware::from_fn_with_state(app.clone(), replay))
        .route_layer(middleware::from_fn_with_state(app.clone(), guard))
        .fallback(async |uri: Uri| {
            let path: String = uri.path().chars().take(200).collect();
            let listed = "GET /openapi.json lists what there is, and /docs shows it";
            let without_slash =
                "leave out the slash at the end; GET /openapi.json lists what there is, and /docs shows it";
            let otherwise = if path.ends_with('/') { without_slash } else { listed };
            let way_out = elsewhere::way_out(&path).unwrap_or(otherwise);
            ApiError::new(ErrorCode::RouteNotFound, format!("there is nothing at {path}: {way_out}"))
        })
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            let path: String = uri.path().chars().take(200).collect();
            ApiError::new(ErrorCode::MethodNotAllowed, format!("{path} does not know {method}: see the Allow header"))
        })
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        .layer(cors)
        .with_state(app)
}
