//! Reading a request: path, query and JSON body, whose refusals look like every other error of ours.

use std::{str::FromStr, time::Duration};

use axum::{
    body::{Bytes, HttpBody},
    extract::{FromRequest, FromRequestParts, Query as AxumQuery, Request},
    http::{HeaderMap, header, request::Parts},
};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use super::error::{ApiError, ErrorCode};
use crate::domain::InvalidId;

/// The longest JSON body that is read.
pub(super) const MAX_JSON_BYTES: usize = 1 << 20;
/// How long a JSON body may take to arrive.
pub(super) const MAX_JSON_TIME: Duration = Duration::from_secs(30);
/// How much of a body that is refused is read all the same, so that the client gets to read the answer.
const MAX_DRAINED_BYTES: usize = 8 << 20;
/// How long that may take.
const MAX_DRAIN_TIME: Duration = Duration::from_secs(5);

/// The segments of an address that stand for something, as texts.
#[derive(Debug)]
pub(super) struct Path<T>(pub T);

/// The one segment of an address that stands for something, as an id. A text that cannot be one names nothing: 404.
#[derive(Debug)]
pub(super) struct Id<T>(pub(super) T);

/// The query string.
#[derive(Debug)]
pub(super) struct Query<T>(pub T);

/// A JSON body.
#[derive(Debug)]
pub(super) struct Json<T>(pub T);

/// A JSON body that may be left out, or be null.
#[derive(Debug)]
pub(super) struct JsonOrNothing<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            // Texts fit every segment: what remains is a segment that is not UTF-8.
            Err(e) => Err(ApiError::new(ErrorCode::RouteNotFound, "the address is not UTF-8").caused_by(e)),
        }
    }
}

impl<T: FromStr<Err = InvalidId>, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await?;
        Ok(Self(text.parse()?))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match AxumQuery::from_request_parts(parts, state).await {
            Ok(AxumQuery(value)) => Ok(Self(value)),
            Err(e) => {
                let text = e.body_text();
                let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
                let error = ApiError::new(ErrorCode::InvalidQuery, text);
                // "limit: invalid digit found in string": the part before the colon is the parameter.
                Err(match text.split_once(": ") {
                    Some((param, _)) if !param.contains(' ') => error.param(param),
                    _ => error,
                })
            }
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(req: Request, _: &S) -> Result<Self, ApiError> {
        if !is_json(req.headers()) {
            refuse_body(req).await;
            return Err(ApiError::new(
                ErrorCode::UnsupportedMediaType,
                "the body must be JSON and say so: send the header 'Content-Type: application/json'",
            ));
        }
        refuse_packed(req.headers())?;
        parse(&body_of(req).await?).map(Self)
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for JsonOrNothing<T> {
    type Rejection = ApiError;

    async fn from_request(req: Request, state: &S) -> Result<Self, ApiError> {
        if req.body().is_end_stream() {
            return Ok(Self(T::default()));
        }
        Json::<Option<T>>::from_request(req, state).await.map(|Json(value)| Self(value.unwrap_or_default()))
    }
}

/// A body is read as it is.
///
/// # Errors
/// Where it says that it is packed.
pub(super) fn refuse_packed(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            let message =
                "the body is packed (Content-Encoding): send it as it is; a file may be packed, with gzip or Zstandard";
            Err(ApiError::new(ErrorCode::UnsupportedMediaType, message))
        }
        _ => Ok(()),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(media_type) = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()) else { return false };
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json") || media_type.to_ascii_lowercase().ends_with("+json")
}

/// The whole of a body that is to be JSON, within the limits of size and time.
pub(super) async fn body_of(req: Request) -> Result<Vec<u8>, ApiError> {
    tokio::time::timeout(MAX_JSON_TIME, read(req)).await.map_err(|_| {
        ApiError::new(
            ErrorCode::RequestTimeout,
            format!("the body did not arrive within {} seconds", MAX_JSON_TIME.as_secs()),
        )
    })?
}

async fn read(req: Request) -> Result<Vec<u8>, ApiError> {
    let too_large =
        || ApiError::new(ErrorCode::BodyTooLarge, format!("a JSON body has at most {MAX_JSON_BYTES} bytes"));
    if content_length(req.headers()).is_some_and(|n| n > MAX_JSON_BYTES as u64) {
        refuse_body(req).await;
        return Err(too_large());
    }
    let mut stream = req.into_body().into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(cut_off)?;
        if bytes.len() + chunk.len() > MAX_JSON_BYTES {
            drain(stream).await;
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The body ended before its end.
pub(super) fn cut_off(source: axum::Error) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, "the body was cut off before its end: send it again").caused_by(source)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.is_empty() {
        return Err(ApiError::new(ErrorCode::InvalidJson, "the body is empty; a JSON object is expected"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let pointer = pointer(e.path());
        let inner = e.into_inner();
        if inner.is_data() {
            // serde_json ends its texts with the position in the body, which the pointer says better.
            let text = inner.to_string();
            let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
            ApiError::invalid_at(&pointer, data_code(text), text)
        } else {
            ApiError::new(ErrorCode::InvalidJson, format!("the body is not JSON: {inner}"))
        }
    })?;
    json.end().map_err(|e| ApiError::new(ErrorCode::InvalidJson, format!("the body is not one JSON value: {e}")))?;
    Ok(value)
}

/// The kind of problem behind one of serde's texts, which is all it tells.
fn data_code(text: &str) -> &'static str {
    if text.starts_with("unknown field") {
        "unknown_field"
    } else if text.starts_with("missing field") {
        "missing_field"
    } else if text.starts_with("invalid type") {
        "wrong_type"
    } else {
        "invalid_value"
    }
}

/// `method.mrpo.references[0]` as a JSON pointer.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        pointer.push('/');
        match segment {
            Segment::Seq { index } => pointer.push_str(&index.to_string()),
            Segment::Map { key } => pointer.push_str(&key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => pointer.push_str(variant),
            Segment::Unknown => pointer.push('?'),
        }
    }
    pointer
}

/// The length the client announced.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads away some of a body that is refused.
///
/// A client that writes its whole body before it reads would otherwise find the connection reset and never see why. One that
/// asked first (`Expect: 100-continue`) waits for our word and sends nothing.
pub(super) async fn refuse_body(req: Request) {
    if !req.headers().contains_key(header::EXPECT) {
        drain(req.into_body().into_data_stream()).await;
    }
}

async fn drain(stream: impl futures_util::Stream<Item = Result<Bytes, axum::Error>>) {
    let mut left = MAX_DRAINED_BYTES;
    let read_away = async {
        let mut stream = std::pin::pin!(stream);
        while let Some(Ok(chunk)) = stream.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(MAX_DRAIN_TIME, read_away).await;
}
