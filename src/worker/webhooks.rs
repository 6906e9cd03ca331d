//! Sending what webhooks are to be told: the worker claims and records, the requests are made beside it.

use std::time::Duration;

use tokio::{
    sync::oneshot,
    task::{JoinError, JoinSet},
};

use super::{Result, Worker};
use crate::{
    deliver::Client,
    domain::{AllowedHosts, Attempt, DueDelivery},
};

/// How many requests are made at once.
const MAX_AT_ONCE: usize = 8;
/// How long a worker that stops waits for requests under way. What is not told by then is sent again, under the same id.
const PATIENCE: Duration = Duration::from_secs(5);

/// The requests under way.
#[derive(Debug, Default)]
pub(super) struct Sending {
    client: Client,
    attempts: JoinSet<(DueDelivery, Attempt)>,
}

impl Worker {
    /// Records the attempts that have ended and begins those that are due.
    pub(super) async fn tell_webhooks(&mut self, now: i64) -> Result<bool> {
        let mut changed = false;
        while let Some(ended) = self.sending.attempts.try_join_next() {
            self.end_attempt(ended, now).await?;
            changed = true;
        }
        let mut n_refused = 0;
        while self.sending.attempts.len() + n_refused < MAX_AT_ONCE {
            let Some(due) = self.store.claim_delivery(now).await? else { break };
            changed = true;
            // Asked again although it was asked when the address was given: the operator may have another mind since.
            if !self.config.webhook_hosts.allow(&due.url) {
                let refusal = AllowedHosts::refusal(&due.url, AllowedHosts::WEBHOOK_FLAG);
                self.store.end_attempt(&due, &Attempt::unanswered(refusal), now).await?;
                n_refused += 1;
                continue;
            }
            let client = self.sending.client.clone();
            self.sending.attempts.spawn(async move {
                let attempt = attempt(client, due.clone()).await;
                (due, attempt)
            });
        }
        Ok(changed)
    }

    /// Waits a little for the requests under way, so that a stop in good order sends nothing twice.
    pub(super) async fn finish_telling(&mut self) {
        let finish = async {
            while let Some(ended) = self.sending.attempts.join_next().await {
                self.end_attempt(ended, crate::store::unix_now()).await?;
            }
            Ok::<_, super::WorkerError>(())
        };
        match tokio::time::timeout(PATIENCE, finish).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "what became of a delivery could not be recorded"),
            Err(_) => tracing::info!("deliveries under way are sent again after the next start"),
        }
    }

    async fn end_attempt(&self, ended: std::result::Result<(DueDelivery, Attempt), JoinError>, now: i64) -> Result<()> {
        match ended {
            Ok((due, attempt)) => {
                let DueDelivery { event, webhook, n_attempts, .. } = &due;
                let (status, error) = (attempt.status_code, attempt.error.as_deref());
                tracing::info!(event = %event.id, %webhook, n_attempts, status, error, "told a webhook");
                self.store.end_attempt(&due, &attempt, now).await?;
            }
            // Its claim ends by itself.
            Err(error) => tracing::error!(%error, "an attempt to tell a webhook has crashed"),
        }
        Ok(())
    }
}

/// Makes the request on a thread of its own: one that hangs is in nobody's way, also when the server ends. It is signed as of now, because
/// whoever takes it refuses what is old.
async fn attempt(client: Client, due: DueDelivery) -> Attempt {
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("webhook".to_owned()).spawn(move || {
        // Nobody waits for it any more: the server ends.
        let _ = tell.send(client.send(&due, crate::store::unix_now()));
    });
    match thread {
        Ok(_) => told.await.unwrap_or_else(|_| Attempt::unanswered("the attempt has crashed")),
        Err(e) => Attempt::unanswered(format!("the server has no thread for it: {}", e.kind())),
    }
}
