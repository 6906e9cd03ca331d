//! `mrpo serve`: the database, the API and the worker in one process.

use std::{fs::File, io::Write, path::Path, sync::Arc};

use anyhow::{Context, Result, bail};
use mrpo::{
    http::{self, App},
    launch::{Gpus, Launcher, Local},
    store::Store,
    worker::{Worker, WorkerConfig},
};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::resource::{Resource, getrlimit, setrlimit},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::telemetry::{Spans, log_to_stderr};
use crate::config::{ServeArgs, ServeConfig};

/// Open files at once: more than connections and everything else.
const MAX_FILES: u64 = 16_384;

/// Serves until SIGTERM or SIGINT. Runs go on without the server; the next one picks them up again.
pub(crate) fn serve(args: ServeArgs) -> Result<()> {
    let mut config = args.resolve()?;
    config.make_data_dir()?;
    log_to_stderr();
    let _spans = config.otlp_endpoint.as_deref().map(Spans::to).transpose()?;
    allow_many_connections();
    let _only_server = lock(&config.api.data_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve_until_told(config))
}

async fn serve_until_told(config: ServeConfig) -> Result<()> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        data_dir = %config.api.data_dir.display(),
        slots = config.api.queue.n_slots,
        gpus = ?config.gpus.as_ref().map(Gpus::names),
        "starting"
    );
    let store = Store::open(&config.api.data_dir).await?;
    config.check_listen(store.has_keys().await?)?;
    let tls = config.tls.as_ref().map(|(certificate, key)| http::tls(certificate, key)).transpose()?;
    let program = std::env::current_exe().context("the path of this program is not known")?;
    let launcher = Launcher::Local(match config.gpus {
        None => Local::on_cpu(program),
        Some(gpus) => Local::on_gpus(program, gpus),
    });
    let worker_config = WorkerConfig {
        lease: config.lease,
        remotes: config.api.remotes.clone(),
        webhook_hosts: config.api.webhook_hosts.clone(),
        queue: config.api.queue.clone(),
        disk: config.api.disk.clone(),
        memory: config.api.memory.clone(),
        ..WorkerConfig::new(config.api.data_dir.clone(), config.api.queue.n_slots)
    };
    let worker = Worker::new(store.clone(), launcher, worker_config);
    // Before anything is uploaded or started.
    worker.remove_orphans().await?;
    let heartbeat = worker.heartbeat();
    let (stop_worker, worker_stopped) = tokio::sync::oneshot::channel::<()>();
    let working = tokio::spawn(worker.run(async {
        let _ = worker_stopped.await;
    }));
    let app = App::open(store.clone(), config.api, Arc::new(move || heartbeat.is_alive())).await?;
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "cannot listen on {}: another port is --listen 127.0.0.1:PORT, a free one --listen 127.0.0.1:0",
            config.listen
        )
    })?;
    // Programs that start a server on port 0 read this line; everything else goes to stderr.
    let scheme = if tls.is_some() { "https" } else { "http" };
    println!("listening on {scheme}://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    http::serve(listener, tls, app, told_to_stop()?).await;
    drop(stop_worker);
    working.await.context("the worker has crashed")?;
    store.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Every connection takes a file descriptor, and the usual limit of 1024 leaves no room for the streams: as many as the system lets us.
fn allow_many_connections() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(now, most)| setrlimit(Resource::RLIMIT_NOFILE, most.min(MAX_FILES).max(now), most));
    if let Err(errno) = raised {
        tracing::warn!(%errno, "the limit of open files stays as it is; many streams at once may exceed it");
    }
}

/// Done when the first SIGTERM or SIGINT arrives.
fn told_to_stop() -> Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: no new connections; requests have ten seconds, runs go on");
    })
}

/// Takes the data directory for this server; it is free again when the process ends, however it ends.
fn lock(data_dir: &Path) -> Result<Flock<File>> {
    let path = data_dir.join("server.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => {
            bail!("another mrpo server works in {}: stop it, or give this one its own --data-dir", data_dir.display())
        }
        Err((_, errno)) => bail!("cannot lock {}: {errno}", path.display()),
    }
}
