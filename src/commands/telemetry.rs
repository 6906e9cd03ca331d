//! What the server tells of itself while it runs: its log on stderr, and spans for a collector that speaks OTLP, if one is named.

use std::{io::IsTerminal, pin::Pin, time::Duration};

use anyhow::{Context, Result};
use opentelemetry::global;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use tracing_subscriber::EnvFilter;
use ureq::Agent;

/// How long the collector may take for what it is sent, and for the last of it when the server stops.
const MAX_SEND_TIME: Duration = Duration::from_secs(5);

/// Lines for people on a terminal, JSON elsewhere; `RUST_LOG` sets the level.
pub(super) fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        log.with_target(false).init();
    } else {
        log.json().flatten_event(true).with_span_list(false).with_target(false).init();
    }
}

/// Spans on their way to a collector; what is still here is sent when this is dropped.
#[derive(Debug)]
pub(super) struct Spans(SdkTracerProvider);

impl Spans {
    /// Sends them to the collector at this address from now on, in batches, on a thread of their own. A collector that does not answer
    /// costs spans and nothing else.
    ///
    /// # Errors
    /// If the address cannot be one.
    pub(super) fn to(collector: &str) -> Result<Self> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Sender::new())
            .with_endpoint(format!("{}/v1/traces", collector.trim_end_matches('/')))
            .with_timeout(MAX_SEND_TIME)
            .build()
            .with_context(|| format!("--otlp-endpoint {collector}"))?;
        let resource = Resource::builder()
            .with_service_name(env!("CARGO_PKG_NAME"))
            .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        // Whether a request is seen is not its client's to say (`traceparent` can ask not to be).
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::AlwaysOn)
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        global::set_tracer_provider(provider.clone());
        global::set_text_map_propagator(TraceContextPropagator::new());
        Ok(Self(provider))
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        if let Err(e) = self.0.shutdown_with_timeout(MAX_SEND_TIME) {
            tracing::warn!(cause = %e, "the last spans were not sent");
        }
    }
}

/// The HTTP client that is here anyway. It blocks, on the exporter's own thread.
#[derive(Debug)]
struct Sender(Agent);

impl Sender {
    fn new() -> Self {
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(MAX_SEND_TIME));
        Self(config.build().new_agent())
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, mut body) = self.0.run(request.map(|bytes| bytes.to_vec()))?.into_parts();
        let body = body.with_config().limit(1 << 20).read_to_vec()?;
        Ok(Response::from_parts(head, body.into()))
    }
}

impl HttpClient for Sender {
    fn send_bytes<'a, 'sent>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'sent>>
    where
        'a: 'sent,
        Self: 'sent,
    {
        Box::pin(std::future::ready(self.send(request)))
    }
}
