//! The body of a form, as its parser gets it: no faster than the parser gets on with it, and never so slowly that it takes for ever.
//!
//! The parser keeps what it has read until it finds the end of what it is in. Inside a file it hands on whatever it has; but a part's
//! head, or what stands before the first part, may be without an end, and would fill the memory.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::body::{Body, BodyDataStream, Bytes};
use futures_util::Stream;
use tokio::time::{Duration, Instant};

/// How many bytes the parser is given before it must have got on with them.
const MAX_AHEAD_BYTES: usize = 256 << 10;
/// What a client gets to send anything at all, and how long a pause may be.
const MAX_IDLE: Duration = Duration::from_secs(30);
/// How slowly a body may arrive, in the mean, after that: a connection is held for it.
const MIN_BYTES_PER_SECOND: u64 = 1 << 10;

/// What the reader of a form tells its body, and is told.
#[derive(Debug, Clone)]
pub(super) struct Pace(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    started: Instant,
    n_bytes: u64,
    /// What the parser was given since it last got on.
    n_ahead: usize,
    /// Whether it was made to look at that, before it gets more.
    was_held: bool,
    has_no_end: bool,
}

/// Why a form is read no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The head of a part, or what stands before the first, is longer than any has to be.
    HasNoEnd,
    /// Nothing came for a while.
    Idle,
    /// It comes too slowly.
    Slow,
}

impl Refused {
    /// For the client.
    pub(super) fn message(self) -> String {
        match self {
            Self::HasNoEnd => {
                format!(
                    "the head of a part, or what stands before the first part, has more than {MAX_AHEAD_BYTES} bytes"
                )
            }
            Self::Idle => format!("nothing arrived for {} seconds: send the file again", MAX_IDLE.as_secs()),
            Self::Slow => format!(
                "less than {MIN_BYTES_PER_SECOND} bytes a second arrived: send the file again, in parts (POST /v1/uploads) where the \
                 line is slow"
            ),
        }
    }
}

impl Pace {
    /// Watches over a body that is about to be read.
    pub(super) fn of(body: Body) -> (Self, Body) {
        let state = State { started: Instant::now(), n_bytes: 0, n_ahead: 0, was_held: false, has_no_end: false };
        let pace = Self(Arc::new(Mutex::new(state)));
        let body = Body::from_stream(Paced { body: body.into_data_stream(), pace: pace.clone() });
        (pace, body)
    }

    /// Waits for the parser's next find; each is progress.
    pub(super) async fn wait<T, E>(&self, next: impl Future<Output = Result<T, E>>) -> Result<Result<T, E>, Refused> {
        let (left, is_slow) = self.left(Instant::now());
        match tokio::time::timeout(left, next).await {
            Ok(found) => {
                let mut state = self.state();
                if state.has_no_end {
                    return Err(Refused::HasNoEnd);
                }
                (state.n_ahead, state.was_held) = (0, false);
                Ok(found)
            }
            Err(_) if is_slow => Err(Refused::Slow),
            Err(_) => Err(Refused::Idle),
        }
    }

    /// How long the next find may take, and whether that is because what came so far came too slowly.
    fn left(&self, now: Instant) -> (Duration, bool) {
        let state = self.state();
        let due = state.started + MAX_IDLE + Duration::from_secs(state.n_bytes / MIN_BYTES_PER_SECOND);
        let left = due.saturating_duration_since(now);
        if left < MAX_IDLE && state.n_bytes > 0 { (left, true) } else { (left.min(MAX_IDLE), false) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Paced {
    body: BodyDataStream,
    pace: Pace,
}

impl Stream for Paced {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        {
            let mut state = self.pace.state();
            if state.n_ahead > MAX_AHEAD_BYTES {
                if state.was_held {
                    state.has_no_end = true;
                    return Poll::Ready(Some(Err(axum::Error::new(std::io::Error::other(
                        Refused::HasNoEnd.message(),
                    )))));
                }
                // The parser reads as long as there is something to read: this makes it look at what it has.
                state.was_held = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let polled = Pin::new(&mut self.body).poll_next(cx);
        if let Poll::Ready(Some(Ok(bytes))) = &polled {
            let mut state = self.pace.state();
            state.n_bytes += bytes.len() as u64;
            state.n_ahead += bytes.len();
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt, stream};

    use super::*;

    /// A client that sends a byte every so many seconds.
    fn trickle(seconds: u64) -> Body {
        Body::from_stream(stream::repeat(()).then(move |()| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok::<_, Infallible>(Bytes::from_static(b"x"))
        }))
    }

    /// Reads as one that takes whatever comes. Why it ended, and after how long.
    async fn read(body: Body) -> (Option<Refused>, Duration) {
        let started = Instant::now();
        let (pace, body) = Pace::of(body);
        let mut bytes = body.into_data_stream();
        loop {
            let next = async { Ok::<_, Infallible>(bytes.next().await) };
            match pace.wait(next).await {
                Ok(Ok(Some(_))) => {}
                Ok(_) => return (None, started.elapsed()),
                Err(refused) => return (Some(refused), started.elapsed()),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up() {
        assert_eq!(read(trickle(5)).await, (Some(Refused::Slow), MAX_IDLE));
        assert_eq!(read(trickle(60)).await, (Some(Refused::Idle), MAX_IDLE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_line_is_none_of_a_sloth() {
        // A mebibyte at two kibibytes a second, with a pause in the middle.
        let chunks = stream::iter(0..512_u64).then(|i| async move {
            tokio::time::sleep(Duration::from_secs(if i == 256 { 25 } else { 1 })).await;
            Ok::<_, Infallible>(Bytes::from(vec![b'x'; 2048]))
        });
        assert_eq!(read(Body::from_stream(chunks)).await.0, None);
    }

    #[tokio::test]
    async fn what_gets_on_with_nothing_gets_no_more() {
        let chunk = Bytes::from(vec![b'x'; 1 << 16]);
        let endless = Body::from_stream(stream::repeat_with(move || Ok::<_, Infallible>(chunk.clone())));
        let (pace, body) = Pace::of(endless);
        let mut bytes = body.into_data_stream();
        let n_bytes = async {
            let mut n_bytes = 0;
            while let Some(Ok(chunk)) = bytes.next().await {
                n_bytes += chunk.len();
            }
            Ok::<_, Infallible>(n_bytes)
        };
        assert_eq!(pace.wait(n_bytes).await, Err(Refused::HasNoEnd));
    }
}
