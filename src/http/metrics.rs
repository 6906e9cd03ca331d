//! `/v1/fine_tuning/jobs/{job_id}/metrics`: a job's metrics by step, as JSON pages or as one CSV file.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::{TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    download::attachment,
    error::{ApiError, ErrorCode},
    extract::{Id, Query},
    paging::{self, List},
};
use crate::{
    domain::JobId,
    store::{MetricKind, MetricPoint, Page, Store, StoreError},
};

/// The longest page as JSON; also the default.
pub(super) const MAX_STEPS: usize = 1000;

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_job_metrics))
}

/// Which metrics, and how.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct MetricsQuery {
    /// `json` (the default): pages. `csv`: all steps in one file.
    #[param(inline)]
    format: Option<Format>,
    /// What they were measured on; `training` by default.
    #[param(inline)]
    kind: Option<Kind>,
    /// Only the steps after this one.
    #[param(minimum = 0)]
    after: Option<i64>,
    /// How many steps at most, 1 to 1000 (the default); only for `json`.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// A format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    Json,
    Csv,
}

/// What metrics were measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// The pairs of each optimizer step.
    Training,
    /// The validation set.
    Evaluation,
}

/// The metrics of one step.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct StepMetrics {
    /// Optimizer steps done.
    step: u64,
    /// Name to value; the names are TRL's, and `refs/{model}/...` for each reference.
    metrics: BTreeMap<String, f64>,
}

/// Lists a job's metrics
///
/// As pages of JSON, or all of them as one CSV file.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{job_id}/metrics", tag = "fine-tuning jobs",
    params(("job_id" = String, Path, description = "The job"), MetricsQuery),
    responses(
        (status = 200, description = "By step, the first step first", content(
            (List<StepMetrics> = "application/json"),
            (String = "text/csv", example = "step,loss,rewards/margins\n1,0.6931471805599453,0\n"),
        )),
        (status = 400, description = "A parameter is not valid"),
        (status = 404, description = "No such job"),
    )
)]
async fn list_job_metrics(
    State(app): State<App>,
    Id(id): Id<JobId>,
    Query(query): Query<MetricsQuery>,
) -> Result<Response, ApiError> {
    let kind = match query.kind.unwrap_or(Kind::Training) {
        Kind::Training => MetricKind::Training,
        Kind::Evaluation => MetricKind::Evaluation,
    };
    let after = query
        .after
        .map(u64::try_from)
        .transpose()
        .map_err(|_| ApiError::new(ErrorCode::InvalidQuery, "after is a step, 0 or more").param("after"))?;
    if query.format == Some(Format::Csv) {
        return Ok(Table { store: app.store().clone(), job: id, kind }.respond(after).await?);
    }
    let limit = paging::limit(query.limit, MAX_STEPS, MAX_STEPS)?;
    let page = app.store().metrics(&id, kind, after, limit).await?;
    let list =
        List::of(page, |point| point.step.to_string(), |point| StepMetrics { step: point.step, metrics: point.values });
    Ok(axum::Json(list).into_response())
}

/// All steps of a job as CSV, read page by page: memory does not grow with the number of steps.
struct Table {
    store: Store,
    job: JobId,
    kind: MetricKind,
}

impl Table {
    async fn respond(self, after: Option<u64>) -> Result<Response, StoreError> {
        // The header line has every name, so all steps are read once before the first line is written.
        let mut names = BTreeSet::new();
        let mut at = Position::After(after);
        while let Position::After(step) = at {
            let page = self.page(step).await?;
            at = Position::behind(&page);
            names.extend(page.items.into_iter().flat_map(|point| point.values.into_keys()));
        }
        let names: Vec<String> = names.into_iter().collect();
        let disposition = attachment(&format!("{}.csv", self.job));
        let start = (self, names, Position::After(after), true);
        let lines = stream::try_unfold(start, |(table, names, at, is_first)| async move {
            let Position::After(step) = at else { return Ok::<_, StoreError>(None) };
            let page = table.page(step).await?;
            let mut text = if is_first { head(&names) } else { String::new() };
            for point in &page.items {
                text.push_str(&line(point, &names));
            }
            Ok(Some((text, (table, names, Position::behind(&page), false))))
        });
        let mut response = Response::new(Body::from_stream(lines.inspect_err(|e| {
            tracing::error!(cause = %e, "a table of metrics broke off");
        })));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
        headers.insert(header::CONTENT_DISPOSITION, HeaderValue::try_from(disposition).expect("a job's id is plain"));
        Ok(response)
    }

    async fn page(&self, after: Option<u64>) -> Result<Page<MetricPoint>, StoreError> {
        self.store.metrics(&self.job, self.kind, after, MAX_STEPS).await
    }
}

/// Where reading goes on.
enum Position {
    /// After this step; at the first one where there is none.
    After(Option<u64>),
    /// Nowhere: all has been read.
    End,
}

impl Position {
    fn behind(page: &Page<MetricPoint>) -> Self {
        if page.has_more { Self::After(page.items.last().map(|point| point.step)) } else { Self::End }
    }
}

fn head(names: &[String]) -> String {
    let mut text = "step".to_owned();
    for name in names {
        text.push(',');
        text.push_str(&quoted(name));
    }
    text.push('\n');
    text
}

fn line(point: &MetricPoint, names: &[String]) -> String {
    let mut text = point.step.to_string();
    for name in names {
        text.push(',');
        if let Some(value) = point.values.get(name) {
            text.push_str(&value.to_string());
        }
    }
    text.push('\n');
    text
}

/// A CSV field (RFC 4180).
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_without_a_metric_leaves_its_field_empty() {
        let names = ["a".to_owned(), "loss".to_owned()];
        let values = BTreeMap::from([("loss".to_owned(), 0.5)]);
        assert_eq!(head(&names), "step,a,loss\n");
        assert_eq!(line(&MetricPoint { kind: MetricKind::Training, step: 3, values }, &names), "3,,0.5\n");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
