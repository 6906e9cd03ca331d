//! A multipart form streamed to disk: any order of parts, digest computed on the way, and nothing left behind when it fails.

use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

use axum::{
    extract::{
        FromRequest, Multipart, Request,
        multipart::{Field, MultipartError},
    },
    http::header,
};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::{
    disk_room::Room,
    error::{ApiError, ErrorCode},
    extract::{content_length, refuse_body, refuse_packed},
    form_body::{Pace, Refused},
};
use crate::run_dir::sync_dir;

/// What the names of temporary files begin with: those that a crash leaves behind are removed at the next start.
pub(super) const TEMP_PREFIX: &str = "upload-";
/// The longest text part (`purpose`, `format`).
pub(super) const MAX_TEXT_BYTES: usize = 64;
/// The longest file name that is kept.
pub(super) const MAX_NAME_CHARS: usize = 255;
/// What the form may add to the file: boundaries, headers, the other parts.
pub(super) const FORM_BYTES: u64 = 64 << 10;
/// How much of a file that is too large is read away, so that the client gets to read the answer.
const MAX_DRAINED_BYTES: u64 = 8 << 20;

/// What a form must hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// The name of the part that is the file.
    pub(super) file: &'static str,
    /// The names of the parts that may stand beside it, as texts.
    pub(super) texts: &'static [&'static str],
    /// How to send it with curl.
    pub(super) curl: &'static str,
    /// What to do about a file that is too large.
    pub(super) way_out: &'static str,
}

/// What a form held. The file lies in a temporary place until it is [kept](TempFile::keep).
#[derive(Debug)]
pub(super) struct Form {
    /// The file's name as the client wrote it; shown, never used as a path; empty if it has none.
    pub(super) filename: String,
    /// The other parts, by name.
    pub(super) texts: BTreeMap<String, String>,
    /// Size in bytes.
    pub(super) size_bytes: u64,
    /// SHA-256 in hexadecimal.
    pub(super) sha256: String,
    /// The content.
    pub(super) content: TempFile,
}

/// A file that is removed again unless it is kept.
#[derive(Debug)]
pub(super) struct TempFile {
    path: PathBuf,
}

impl TempFile {
    /// What will be written to `path`.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it lies for now.
    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Moves it to its final name; durable when this returns.
    pub(super) fn keep(self, path: &std::path::Path) -> std::io::Result<()> {
        fs_err::rename(&self.path, path)?;
        if let Some(directory) = path.parent() {
            sync_dir(directory)?;
        }
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // After a rename there is nothing here any more.
        if let Err(e) = std::fs::remove_file(&self.path)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), cause = %e, "a temporary file stays behind");
        }
    }
}

/// Removes what uploads left that a crash of the server cut off.
pub(super) fn clear(directory: &std::path::Path) -> std::io::Result<()> {
    fs_err::create_dir_all(directory)?;
    for entry in fs_err::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TEMP_PREFIX) {
            fs_err::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Reads a form whose file has at most `max_bytes` into the file `temp`, for which there is `room`.
pub(super) async fn receive(
    req: Request,
    shape: &Shape,
    temp: PathBuf,
    max_bytes: u64,
    room: &mut Room,
) -> Result<Form, ApiError> {
    let is_form = req
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|v| v.as_bytes().to_ascii_lowercase().starts_with(b"multipart/form-data"));
    if !is_form {
        refuse_body(req).await;
        let message = format!("send a multipart form: curl {}", shape.curl);
        return Err(ApiError::new(ErrorCode::UnsupportedMediaType, message));
    }
    refuse_packed(req.headers())?;
    if content_length(req.headers()).is_some_and(|n| n > max_bytes.saturating_add(FORM_BYTES)) {
        refuse_body(req).await;
        return Err(too_large(shape, max_bytes));
    }
    let (head, body) = req.into_parts();
    let (pace, body) = Pace::of(body);
    let mut form = Multipart::from_request(Request::from_parts(head, body), &()).await.map_err(|e| {
        ApiError::new(ErrorCode::InvalidMultipart, "the Content-Type header names no boundary").caused_by(e)
    })?;
    let mut texts = BTreeMap::new();
    let mut file = None;
    while let Some(field) = wait(&pace, form.next_field()).await? {
        let name = field.name().unwrap_or_default().to_owned();
        let is_file = name == shape.file;
        if !is_file && !shape.texts.contains(&name.as_str()) {
            return Err(unknown_part(shape, &name));
        }
        if texts.contains_key(&name) || (is_file && file.is_some()) {
            let message = format!("the form has two parts '{name}'");
            return Err(ApiError::invalid_at(&pointer(&name), "duplicate_field", message));
        }
        if is_file {
            file = Some(receive_file(field, &pace, (shape, max_bytes), temp.clone(), room).await?);
        } else {
            let text = receive_text(field, &pace, &pointer(&name)).await?;
            texts.insert(name, text);
        }
    }
    let Some((filename, size_bytes, sha256, content)) = file else {
        let message = format!("the form has no part '{}': curl {}", shape.file, shape.curl);
        return Err(ApiError::invalid_at(&pointer(shape.file), "missing_field", message));
    };
    Ok(Form { filename, texts, size_bytes, sha256, content })
}

/// `expires_after[seconds]` as a JSON pointer.
fn pointer(name: &str) -> String {
    format!("/{}", name.replace('[', "/").replace(']', ""))
}

async fn receive_file(
    mut field: Field<'_>,
    pace: &Pace,
    (shape, max_bytes): (&Shape, u64),
    path: PathBuf,
    room: &mut Room,
) -> Result<(String, u64, String, TempFile), ApiError> {
    let filename = field.file_name().map(clean_name).unwrap_or_default();
    let mut file = tokio::fs::File::create_new(&path).await?;
    let content = TempFile { path };
    let mut hash = Sha256::new();
    let mut n_bytes = 0_u64;
    while let Some(chunk) = wait(pace, field.chunk()).await? {
        n_bytes += chunk.len() as u64;
        if n_bytes > max_bytes {
            drain(field, pace).await;
            return Err(too_large(shape, max_bytes));
        }
        hash.update(&chunk);
        file.write_all(&chunk).await?;
        room.written(chunk.len() as u64);
    }
    // tokio's file writes behind: only after the flush is every write's error known.
    file.flush().await?;
    file.sync_all().await?;
    let sha256 = hex(&hash.finalize());
    Ok((filename, n_bytes, sha256, content))
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

async fn receive_text(mut field: Field<'_>, pace: &Pace, pointer: &str) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = wait(pace, field.chunk()).await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_TEXT_BYTES {
            return Err(ApiError::invalid_at(pointer, "too_long", format!("at most {MAX_TEXT_BYTES} bytes")));
        }
    }
    String::from_utf8(bytes).map_err(|_| ApiError::invalid_at(pointer, "invalid_value", "the part is not UTF-8"))
}

/// Waits for the next piece, but not for ever.
async fn wait<T>(pace: &Pace, next: impl Future<Output = Result<T, MultipartError>>) -> Result<T, ApiError> {
    match pace.wait(next).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => {
            Err(ApiError::new(ErrorCode::InvalidMultipart, "the form is malformed or was cut off before its end")
                .caused_by(e))
        }
        Err(why @ Refused::HasNoEnd) => Err(ApiError::new(ErrorCode::InvalidMultipart, why.message())),
        Err(why @ (Refused::Idle | Refused::Slow)) => Err(ApiError::new(ErrorCode::RequestTimeout, why.message())),
    }
}

async fn drain(mut field: Field<'_>, pace: &Pace) {
    let mut n_bytes = 0;
    while let Ok(Some(chunk)) = wait(pace, field.chunk()).await {
        n_bytes += chunk.len() as u64;
        if n_bytes > MAX_DRAINED_BYTES {
            break;
        }
    }
}

fn too_large(shape: &Shape, max_bytes: u64) -> ApiError {
    let message = format!("the part '{}' has at most {max_bytes} bytes here: {}", shape.file, shape.way_out);
    ApiError::new(ErrorCode::BodyTooLarge, message).param(shape.file)
}

fn unknown_part(shape: &Shape, name: &str) -> ApiError {
    let shown: String = name.chars().take(64).collect();
    let expected = [&[shape.file], shape.texts].concat().join("', '");
    let message = format!("the form has a part '{shown}'; expected are '{expected}'");
    ApiError::invalid_at(&pointer(&shown), "unknown_field", message)
}

/// The last part of what may be a path, without control characters, not too long.
pub(super) fn clean_name(name: &str) -> String {
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    name.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_a_path() {
        assert_eq!(clean_name("../../etc/passwd"), "passwd");
        assert_eq!(clean_name("C:\\data\\pairs.jsonl"), "pairs.jsonl");
        assert_eq!(clean_name("a\r\nb"), "ab");
        assert_eq!(clean_name("x/"), "");
    }
}
