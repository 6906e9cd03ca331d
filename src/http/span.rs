//! A request as OpenTelemetry knows it: a span below its client's, if that named one (`traceparent`). Nothing where no collector is named.

use axum::http::{HeaderMap, Method};
use opentelemetry::{
    KeyValue, global,
    trace::{Span as _, SpanKind, Status, Tracer},
};
use opentelemetry_http::HeaderExtractor;

use super::observe::known;

/// A request's span; it ends when it is dropped.
pub(super) struct Span(global::BoxedSpan);

impl Span {
    /// Begins one. Names of attributes are OpenTelemetry's semantic conventions for HTTP.
    pub(super) fn begin(method: &Method, route: &str, headers: &HeaderMap, request_id: &str) -> Self {
        let parent = global::get_text_map_propagator(|propagator| propagator.extract(&HeaderExtractor(headers)));
        let tracer = global::tracer("mrpo");
        let method = known(method).unwrap_or("_OTHER");
        let attributes = [
            KeyValue::new("http.request.method", method.to_owned()),
            KeyValue::new("http.route", route.to_owned()),
            KeyValue::new("mrpo.request_id", request_id.to_owned()),
        ];
        let span =
            tracer.span_builder(format!("{method} {route}")).with_kind(SpanKind::Server).with_attributes(attributes);
        Self(span.start_with_context(&tracer, &parent))
    }

    /// Notes how the request was answered.
    pub(super) fn answered(&mut self, status: u16) {
        self.0.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            self.0.set_status(Status::error(""));
        }
    }
}
