//! One file as an answer: its digest as strong `ETag` and `Repr-Digest`, and byte ranges, so that a download can go on where
//! it broke off (RFC 9110, sections 13 and 14; RFC 9530).

use std::{fmt::Write, path::PathBuf};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::Engine;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::error::{ApiError, ErrorCode};

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
/// Bytes read and sent at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// A file that is served.
#[derive(Debug)]
pub(super) struct Download {
    /// Where it lies. Never made from what a client wrote.
    pub path: PathBuf,
    /// The name it is offered under.
    pub filename: String,
    /// Its media type.
    pub content_type: &'static str,
    /// Its size in bytes, as recorded.
    pub size_bytes: u64,
    /// SHA-256 in hexadecimal, as recorded.
    pub sha256: String,
}

impl Download {
    /// The answer to a request with `headers`: all of it, a part, or that the client has it already.
    pub(super) async fn respond(self, headers: &HeaderMap) -> Result<Response, ApiError> {
        let etag = format!("\"{}\"", self.sha256);
        if text(headers, header::IF_NONE_MATCH).is_some_and(|tags| matches_any(tags, &etag)) {
            return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
        }
        // A part of a file that has changed since would not fit the parts the client has: then it gets all of it.
        let same = text(headers, header::IF_RANGE).is_none_or(|tag| tag == etag);
        let range = text(headers, header::RANGE).filter(|_| same);
        let part = match range.map_or(Asked::All, |range| asked(range, self.size_bytes)) {
            Asked::All => None,
            Asked::Part(first, last) => Some((first, last)),
            Asked::Outside => return Ok(self.outside()),
        };
        let (first, n_bytes) = part.map_or((0, self.size_bytes), |(first, last)| (first, last - first + 1));

        let mut file = tokio::fs::File::open(&self.path).await?;
        let on_disk = file.metadata().await?.len();
        if on_disk != self.size_bytes {
            return Err(ApiError::internal(format!(
                "{} has {on_disk} bytes, recorded are {}",
                self.path.display(),
                self.size_bytes
            )));
        }
        file.seek(std::io::SeekFrom::Start(first)).await?;
        let body = Body::from_stream(ReaderStream::with_capacity(file.take(n_bytes), CHUNK_BYTES));
        let mut response = Response::new(body);
        self.describe(response.headers_mut(), &etag, n_bytes)?;
        if let Some((first, last)) = part {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = value(format!("bytes {first}-{last}/{}", self.size_bytes))?;
            response.headers_mut().insert(header::CONTENT_RANGE, range);
        }
        Ok(response)
    }

    fn describe(&self, headers: &mut HeaderMap, etag: &str, n_bytes: u64) -> Result<(), ApiError> {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(n_bytes));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::ETAG, value(etag.to_owned())?);
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CONTENT_DISPOSITION, value(attachment(&self.filename))?);
        let digest =
            from_hex(&self.sha256).ok_or_else(|| ApiError::internal("a recorded digest is not hexadecimal"))?;
        let digest = base64::engine::general_purpose::STANDARD.encode(digest);
        headers.insert(REPR_DIGEST, value(format!("sha-256=:{digest}:"))?);
        Ok(())
    }

    fn outside(&self) -> Response {
        let size = self.size_bytes;
        let message = format!("the file has {size} bytes; ask for a range inside it, for instance 'Range: bytes=0-'");
        let mut response = ApiError::new(ErrorCode::RangeNotSatisfiable, message).into_response();
        if let Ok(range) = value(format!("bytes */{size}")) {
            response.headers_mut().insert(header::CONTENT_RANGE, range);
        }
        response
    }
}

/// Whether a name stays inside the directory it is looked up in. Ours always do; a run is another process all the same.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn value(text: String) -> Result<HeaderValue, ApiError> {
    HeaderValue::try_from(text).map_err(ApiError::internal)
}

/// Whether `If-None-Match` names `etag` (weak comparison).
fn matches_any(tags: &str, etag: &str) -> bool {
    tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    All,
    /// First and last byte.
    Part(u64, u64),
    Outside,
}

/// What a `Range` header asks for. A unit we do not know, several ranges or nonsense are passed over, as RFC 9110 allows.
fn asked(range: &str, size: u64) -> Asked {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|r| r.trim().split_once('-')) else {
        return Asked::All;
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return Asked::All;
    }
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Err(_), Ok(n)) if first.is_empty() => {
            if n == 0 || size == 0 {
                Asked::Outside
            } else {
                Asked::Part(size.saturating_sub(n), size - 1)
            }
        }
        (Ok(first), _) if first >= size => Asked::Outside,
        (Ok(first), Err(_)) if last.is_empty() => Asked::Part(first, size - 1),
        (Ok(first), Ok(last)) if first <= last => Asked::Part(first, last.min(size - 1)),
        _ => Asked::All,
    }
}

/// `attachment` with the name as plain characters and, where those lose something, in UTF-8 (RFC 6266, RFC 8187).
pub(super) fn attachment(filename: &str) -> String {
    let plain: String =
        filename.chars().map(|c| if c.is_ascii_alphanumeric() || "-_. ".contains(c) { c } else { '_' }).collect();
    if plain == filename {
        return format!("attachment; filename=\"{plain}\"");
    }
    let mut encoded = String::new();
    for byte in filename.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            encoded.push(byte as char);
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_header_is_read_as_rfc_9110_says() {
        let cases = [
            ("bytes=0-4", Asked::Part(0, 4)),
            ("bytes=5-", Asked::Part(5, 9)),
            ("bytes=-3", Asked::Part(7, 9)),
            ("bytes=-99", Asked::Part(0, 9)),
            ("bytes=8-99", Asked::Part(8, 9)),
            ("bytes=10-", Asked::Outside),
            ("bytes=-0", Asked::Outside),
            ("bytes=5-4", Asked::All),
            ("bytes=0-1,4-5", Asked::All),
            ("bytes=+1-2", Asked::All),
            ("bytes=-", Asked::All),
            ("lines=0-4", Asked::All),
        ];
        for (range, expected) in cases {
            assert_eq!(asked(range, 10), expected, "{range}");
        }
        assert_eq!(asked("bytes=0-", 0), Asked::Outside);
    }

    #[test]
    fn a_name_cannot_break_out_of_its_header() {
        assert_eq!(attachment("a b.jsonl"), "attachment; filename=\"a b.jsonl\"");
        assert_eq!(attachment("ü\"\r\n.x"), "attachment; filename=\"____.x\"; filename*=UTF-8''%C3%BC%22%0D%0A.x");
    }

    #[test]
    fn tags_are_compared_weakly() {
        assert!(matches_any("\"x\", W/\"abc\"", "\"abc\""));
        assert!(matches_any("*", "\"abc\""));
        assert!(!matches_any("\"abcd\"", "\"abc\""));
    }
}
