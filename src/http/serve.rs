//! Taking connections: limits on how long a request's head may take and on how many there are, and an orderly end.

use std::{io, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

use super::{App, router};

/// How long the head of a request may take, and how long an idle connection is kept.
const MAX_HEAD_TIME: Duration = Duration::from_secs(30);
/// How long a client may take to agree on how to encrypt.
const MAX_HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long requests that are being answered may go on after the server was told to stop.
const MAX_FAREWELL: Duration = Duration::from_secs(10);
/// The most connections at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;

/// Serves until `stop` is done, then ends every stream and finishes what is being answered, for ten seconds at most; encrypted, where
/// `tls` is given.
pub async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, app: App, stop: impl Future<Output = ()>) {
    let router = router(app.clone());
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(MAX_HEAD_TIME);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = async {
            let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
            (accept(&listener).await, slot)
        };
        let (stream, slot) = tokio::select! {
            () = &mut stop => break,
            accepted = accepted => accepted,
        };
        let service = TowerToHyperService::new(router.clone());
        let (builder, tls, watcher) = (builder.clone(), tls.clone(), graceful.watcher());
        tokio::spawn(async move {
            let Some(stream) = encrypted(tls, stream).await else { return };
            let connection = watcher.watch(builder.serve_connection(TokioIo::new(stream), service));
            // A client that hangs up or sends nonsense is its own affair.
            if let Err(e) = connection.await {
                tracing::debug!(cause = %e, "a connection ended early");
            }
            drop(slot);
        });
    }
    drop(listener);
    app.live().end();
    if tokio::time::timeout(MAX_FAREWELL, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still being answered after {} seconds: cut off", MAX_FAREWELL.as_secs());
    }
}

/// The stream as it is to be read; nothing where the client did not agree on how in time.
async fn encrypted(
    tls: Option<TlsAcceptor>,
    stream: TcpStream,
) -> Option<Either<tokio_rustls::server::TlsStream<TcpStream>, TcpStream>> {
    let Some(tls) = tls else { return Some(Either::Right(stream)) };
    match tokio::time::timeout(MAX_HANDSHAKE_TIME, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(Either::Left(stream)),
        Ok(Err(e)) => {
            tracing::debug!(cause = %e, "a client did not agree on how to encrypt");
            None
        }
        Err(_) => None,
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(e) if is_of_one_connection(&e) => {}
            // Out of file descriptors or of memory: trying again at once would only burn the processor.
            Err(e) => {
                tracing::error!(cause = %e, "no connection could be accepted");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn is_of_one_connection(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(e.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_head_that_trickles_is_given_up() {
        let dir = tempfile::tempdir().expect("temp dir");
        let app = App::for_tests(dir.path()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        tokio::spawn(serve(listener, None, app, std::future::pending()));
        client.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ").await.expect("sent");
        // From here on time passes as soon as everybody waits.
        tokio::time::pause();
        let started = tokio::time::Instant::now();
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(started.elapsed() >= MAX_HEAD_TIME);
    }
}
