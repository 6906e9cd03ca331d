//! A directory of ours as one tar stream, written while it is sent: memory does not grow with what is in it.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use futures_util::stream;
use tokio::sync::mpsc::{Sender, channel};

use super::{download::attachment, error::ApiError};
use crate::run_dir::Reading;

/// Bytes handed to the connection at a time; up to [`N_WAITING`] of them wait for a slow client.
const CHUNK_BYTES: usize = 64 << 10;
const N_WAITING: usize = 4;
/// Size of a tar record.
const RECORD_BYTES: u64 = 512;

/// Files as they go into the archive.
#[derive(Debug)]
pub(super) struct Archive {
    /// The folder's name in the archive, and the archive's own.
    pub name: String,
    /// Where the files lie.
    pub directory: PathBuf,
    /// Their names and sizes in bytes.
    pub files: Vec<(String, u64)>,
    /// Whether somebody still appends to them: then what they held when their sizes were taken is sent.
    pub grows: bool,
    /// Unix time in seconds that the entries carry.
    pub modified_at: i64,
    /// Keeps the files where they are while they are sent.
    #[expect(dead_code, reason = "held for as long as the archive is written, and asked nothing")]
    pub reading: Option<Reading>,
}

impl Archive {
    /// The answer. Its length is announced, so that a client notices a stream that broke off.
    pub(super) fn respond(self) -> Result<Response, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.n_bytes()));
        let disposition = HeaderValue::try_from(attachment(&format!("{}.tar", self.name)));
        headers.insert(header::CONTENT_DISPOSITION, disposition.map_err(ApiError::internal)?);

        let (chunks, received) = channel::<io::Result<Bytes>>(N_WAITING);
        tokio::task::spawn_blocking(move || {
            let failed = self.write(Outlet { chunks: chunks.clone() }).err();
            // Who is gone needs no news; to all others a broken archive must not look whole.
            if let Some(e) = failed
                && e.kind() != io::ErrorKind::BrokenPipe
            {
                tracing::error!(archive = self.name, cause = %e, "an archive broke off");
                let _ = chunks.blocking_send(Err(e));
            }
        });
        let body =
            stream::unfold(received, |mut received| async { received.recv().await.map(|chunk| (chunk, received)) });
        let mut response = Response::new(Body::from_stream(body));
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// Every entry has one header record and its content filled up to whole records; two empty records end the archive.
    fn n_bytes(&self) -> u64 {
        let entries: u64 = self.files.iter().map(|(_, size)| RECORD_BYTES + size.next_multiple_of(RECORD_BYTES)).sum();
        entries + 2 * RECORD_BYTES
    }

    fn write(&self, outlet: Outlet) -> io::Result<()> {
        let mut tar = tar::Builder::new(io::BufWriter::with_capacity(CHUNK_BYTES, outlet));
        for (name, size) in &self.files {
            let file = fs_err::File::open(self.directory.join(name))?;
            let on_disk = file.metadata()?.len();
            if on_disk < *size || (on_disk > *size && !self.grows) {
                return Err(io::Error::other(format!(
                    "{} has {on_disk} bytes, recorded are {size}",
                    file.path().display()
                )));
            }
            let mut head = tar::Header::new_ustar();
            head.set_size(*size);
            head.set_mode(0o644);
            head.set_mtime(self.modified_at.try_into().unwrap_or(0));
            tar.append_data(&mut head, format!("{}/{name}", self.name), file.take(*size))?;
        }
        tar.into_inner()?.flush()
    }
}

/// The writing end: hands each chunk to the connection and waits while that is slow.
struct Outlet {
    chunks: Sender<io::Result<Bytes>>,
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunks
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
