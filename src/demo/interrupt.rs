//! Control-C and SIGTERM as a flag, so that a wait ends with an error and everything that was started is stopped on the way out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// How often a wait looks again.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Whether somebody asked the demo to stop.
pub(super) struct Interrupt {
    raised: Arc<AtomicBool>,
}

impl Interrupt {
    /// Listens from now on; the signals no longer end the process.
    pub(super) fn listen() -> Result<Self> {
        let raised = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut interrupt, mut terminate) = {
            let _context = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        let flag = Arc::clone(&raised);
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                });
                flag.store(true, Ordering::Relaxed);
            })
            .context("cannot start the thread that waits for signals")?;
        Ok(Self { raised })
    }

    /// Asks `attempt` again and again until it has something; ends with an error when interrupted or after `limit`.
    pub(super) fn poll<T>(
        &self,
        what: &str,
        limit: Duration,
        mut attempt: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let started = Instant::now();
        loop {
            if self.raised.load(Ordering::Relaxed) {
                bail!("interrupted while waiting for {what}");
            }
            if let Some(found) = attempt()? {
                return Ok(found);
            }
            if started.elapsed() > limit {
                bail!("waited {} s for {what}: nothing came", limit.as_secs());
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_what_came_with_its_limit_or_with_a_signal() {
        let raised = Arc::new(AtomicBool::new(false));
        let interrupt = Interrupt { raised: Arc::clone(&raised) };
        assert_eq!(interrupt.poll("it", Duration::ZERO, || Ok(Some(7))).expect("there at once"), 7);
        // A limit of zero is over after the first look.
        let error = interrupt.poll("it", Duration::ZERO, || Ok(None::<()>)).expect_err("never comes");
        assert!(error.to_string().contains("nothing came"));
        raised.store(true, Ordering::Relaxed);
        let error = interrupt.poll("it", Duration::ZERO, || Ok(Some(7))).expect_err("interrupted");
        assert_eq!(error.to_string(), "interrupted while waiting for it");
    }
}
