//! `/metrics`: the server in numbers, for Prometheus. What the database knows is counted when it is asked for; requests are counted as
//! they are answered.

use std::{fs, sync::atomic::AtomicU64, time::Duration};

use axum::{
    extract::State,
    http::{Method, header},
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    access::{By, only_admins},
    error::ApiError,
    observe::known,
};
use crate::{domain::JobMemory, store::Totals};

/// The format's media type.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_metrics))
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Slot {
    slot: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Device {
    device: String,
}

/// Requests, counted by route: never by address, or every id would be a series of its own.
#[derive(Debug)]
pub(super) struct Requests {
    registry: Registry,
    answered: Family<Answered, Counter>,
    seconds: Family<Route, Histogram>,
}

impl Requests {
    pub(super) fn new() -> Self {
        // A millisecond to four minutes: a download is a request too.
        let buckets: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 4.0, 10));
        let seconds = Family::new_with_constructor(buckets);
        let (mut registry, answered) = (Registry::with_prefix("mrpo"), Family::default());
        registry.register("http_requests", "Requests that were answered", Family::clone(&answered));
        let help = "Time from a request's head to its answer's";
        registry.register_with_unit("http_request_duration", help, Unit::Seconds, Family::clone(&seconds));
        Self { registry, answered, seconds }
    }

    /// Counts one.
    pub(super) fn count(&self, method: &Method, route: &str, status: u16, took: Duration) {
        // Series stay as long as the server.
        let method = known(method).unwrap_or("other").to_owned();
        let route = route.to_owned();
        self.seconds.get_or_create(&Route { route: route.clone() }).observe(took.as_secs_f64());
        self.answered.get_or_create(&Answered { method, route, status }).inc();
    }
}

/// The server in numbers, for Prometheus (admins)
///
/// Jobs by status and owner, waits, run time, step time, tokens, reference scores found and computed, deliveries to webhooks, slots, requests by route, memory, of
/// devices too, disk.
#[utoipa::path(
    get, path = "/metrics", tag = "server",
    responses(
        (status = 200, description = "OpenMetrics", body = String, content_type = "application/openmetrics-text"),
        (status = 403, description = "It names everybody's jobs: only admins see it: `admins_only`"),
    )
)]
async fn get_metrics(State(app): State<App>, By(caller): By) -> Result<Response, ApiError> {
    only_admins(&caller)?;
    let totals = app.store().totals().await?;
    let free_disk = app.settings().disk.space().ok().map(|space| space.free_bytes);
    let machine = Machine { memory: app.settings().memory.read(), free_disk };
    let mut text = String::new();
    encode(&mut text, &app.requests().registry).map_err(ApiError::internal)?;
    // The first text ends where another begins.
    text.truncate(text.trim_end_matches("# EOF\n").len());
    encode(&mut text, &of_totals(&totals, &machine)).map_err(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

/// What the machine has left.
#[derive(Debug, Default)]
struct Machine {
    memory: Option<JobMemory>,
    free_disk: Option<u64>,
}

fn of_totals(totals: &Totals, machine: &Machine) -> Registry {
    let mut registry = Registry::with_prefix("mrpo");
    let gauge = |n: u64| ConstGauge::new(n as i64);
    let counter = |n: u64| ConstCounter::new(n);
    let jobs = Family::<Vec<(String, String)>, Gauge>::default();
    for count in &totals.jobs {
        let owner = count.owner.as_ref().map_or_else(String::new, ToString::to_string);
        let labels = vec![("status".to_owned(), count.status.as_str().to_owned()), ("owner".to_owned(), owner)];
        jobs.get_or_create(&labels).set(count.n as i64);
    }
    registry.register("jobs", "Jobs by status and owner", jobs);
    let (n_waits, waited) = totals.waits;
    registry.register("jobs_started", "Jobs that were started", counter(n_waits));
    registry.register_with_unit("job_wait", "What started jobs had waited, together", Unit::Seconds, counter(waited));
    let (n_runs, ran) = totals.runs;
    registry.register("jobs_ended", "Started jobs that have ended", counter(n_runs));
    registry.register_with_unit(
        "job_run",
        "What ended jobs took from their start, together",
        Unit::Seconds,
        counter(ran),
    );
    registry.register("trained_tokens", "Tokens that jobs were trained on", counter(totals.n_trained_tokens));
    let (n_known, n_computed) = totals.scores;
    registry.register("reference_scores_found", "Scores of references that jobs found", counter(n_known));
    registry.register("reference_scores_computed", "Scores of references that jobs computed", counter(n_computed));
    let step = Family::<Slot, Gauge<f64, AtomicU64>>::default();
    for (slot, step_ms) in &totals.step_ms {
        step.get_or_create(&Slot { slot: *slot }).set(step_ms / 1000.0);
    }
    let help = "What the latest step of the job in a slot took";
    registry.register_with_unit("step_duration", help, Unit::Seconds, step);
    let deliveries = Family::<Vec<(String, String)>, Gauge>::default();
    for (status, n) in &totals.deliveries {
        deliveries.get_or_create(&vec![("status".to_owned(), status.as_str().to_owned())]).set(*n as i64);
    }
    registry.register("webhook_deliveries", "What webhooks were told in thirty days, by how far it is", deliveries);
    registry.register("slots_busy", "Slots that a run has", gauge(totals.n_busy_slots));
    if let Some(bytes) = resident_bytes() {
        registry.register_with_unit("process_resident_memory", "Memory of this process", Unit::Bytes, gauge(bytes));
    }
    let (free, all) = (Family::<Device, Gauge>::default(), Family::<Device, Gauge>::default());
    for memory in machine.memory.iter().flat_map(JobMemory::devices) {
        let device = Device { device: memory.device.clone() };
        free.get_or_create(&device).set(memory.free_bytes as i64);
        all.get_or_create(&device).set(memory.all_bytes as i64);
    }
    registry.register_with_unit("device_memory_free", "Memory that jobs could have, by device", Unit::Bytes, free);
    registry.register_with_unit("device_memory", "Memory of what jobs compute on, by device", Unit::Bytes, all);
    if let Some(bytes) = machine.free_disk {
        registry.register_with_unit("disk_free", "Free on the data directory's disk", Unit::Bytes, gauge(bytes));
    }
    registry
}

/// Memory of this process, where the system tells.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{DeliveryStatus, DeviceMemory, JobStatus},
        store::JobCount,
    };

    #[test]
    fn numbers_are_told_in_the_format() {
        let requests = Requests::new();
        requests.count(&Method::GET, "/v1/files/{file_id}", 404, Duration::from_millis(3));
        for made_up in ["A", "B"] {
            let method = made_up.parse().expect("a method");
            requests.count(&method, "none", 404, Duration::ZERO);
        }
        let jobs = vec![JobCount { status: JobStatus::Queued, owner: "ana".parse().ok(), n: 7 }];
        let deliveries = vec![(DeliveryStatus::Failed, 3)];
        let mut text = String::new();
        encode(&mut text, &requests.registry).expect("written");
        let memory = DeviceMemory { device: "cpu".to_owned(), free_bytes: 3, all_bytes: 4 };
        let machine = Machine { memory: Some(JobMemory::Shared(memory)), free_disk: Some(9) };
        let totals = Totals { jobs, deliveries, waits: (2, 30), step_ms: vec![(1, 250.0)], ..Totals::default() };
        encode(&mut text, &of_totals(&totals, &machine)).expect("written");
        for line in [
            "mrpo_http_requests_total{method=\"GET\",route=\"/v1/files/{file_id}\",status=\"404\"} 1",
            "mrpo_http_requests_total{method=\"other\",route=\"none\",status=\"404\"} 2",
            "mrpo_http_request_duration_seconds_count{route=\"/v1/files/{file_id}\"} 1",
            "mrpo_jobs{status=\"queued\",owner=\"ana\"} 7",
            "mrpo_job_wait_seconds_total 30",
            "mrpo_step_duration_seconds{slot=\"1\"} 0.25",
            "mrpo_webhook_deliveries{status=\"failed\"} 3",
            "mrpo_disk_free_bytes 9",
            "mrpo_device_memory_free_bytes{device=\"cpu\"} 3",
            "mrpo_device_memory_bytes{device=\"cpu\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
