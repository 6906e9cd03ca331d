//! The sign of life of a worker, for whoever must not know the worker itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The sign of life of a worker; a clone is another view of the same.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    began: Instant,
    /// Milliseconds from `began` to the newest beat.
    newest_ms: Arc<AtomicU64>,
    patience: Duration,
}

impl Heartbeat {
    pub(super) fn new(patience: Duration) -> Self {
        Self { began: Instant::now(), newest_ms: Arc::new(AtomicU64::new(0)), patience }
    }

    pub(super) fn beat(&self) {
        self.newest_ms.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Whether the worker has looked at everything, without an error, not too long ago.
    pub fn is_alive(&self) -> bool {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.newest_ms.load(Ordering::Relaxed)))
            < self.patience
    }
}
