//! What webhooks are told: signed, as often as it takes, and never under two ids.

use std::{net::TcpListener, path::Path, sync::Arc, time::Instant};

use mrpo::{
    domain::{
        AllowedHosts, Attempt, Delivery, DeliveryStatus, JobId, NewKey, Ownership, Role, Scope, UserName, Webhook,
        WebhookChange, WebhookEventType, WebhookId, WebhookSecret,
    },
    launch::{Launcher, Local},
    store::JobTerms,
    worker::{Worker, WorkerConfig},
};
use serde_json::json;
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, crypto,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::{
    receiver::{Received, Receiver, Reply},
    records::{bad_report, spec, succeeded, uploaded_file},
    world::{PATIENCE, World},
};

const DAY: i64 = 24 * 3600;

impl World {
    /// A world at the time of the clock, whose worker may call this host.
    async fn with_webhooks(host: &str) -> Self {
        let mut world = Self::new().await;
        world.now = 0;
        world.catch_up();
        world.may_call(host);
        world
    }

    /// From here on another worker, which may call this host.
    fn may_call(&mut self, host: &str) {
        let webhook_hosts = AllowedHosts::new([host.to_owned()]);
        let config = WorkerConfig { webhook_hosts, ..WorkerConfig::new(self.dir.path().to_owned(), 1) };
        self.worker = Worker::new(self.store.clone(), Launcher::Local(Local::on_cpu("/bin/true".into())), config);
    }

    async fn webhook(&self, url: &str, event_types: &[WebhookEventType]) -> (WebhookId, WebhookSecret) {
        self.webhook_of(&Ownership::default(), url, event_types).await
    }

    async fn webhook_of(
        &self,
        ownership: &Ownership,
        url: &str,
        event_types: &[WebhookEventType],
    ) -> (WebhookId, WebhookSecret) {
        let secret = WebhookSecret::new().expect("random numbers");
        let webhook = Webhook {
            id: WebhookId::new(),
            name: "mine".into(),
            url: url.parse().expect("an address"),
            event_types: event_types.to_vec(),
            secret_hint: secret.hint(),
            disabled: None,
            created_at: self.now,
            updated_at: self.now,
            ownership: ownership.clone(),
        };
        self.store.insert_webhook(&webhook, &secret).await.expect("inserted");
        assert_eq!(self.store.webhook(&webhook.id).await.expect("found"), webhook);
        (webhook.id, secret)
    }

    /// A job that somebody has cancelled before it began.
    async fn cancelled_job(&mut self, ownership: &Ownership) -> JobId {
        let job = self.job_of("a", ownership, &JobTerms::default()).await;
        self.store.cancel_job(&job).await.expect("cancelled");
        self.catch_up();
        job
    }

    /// No earlier than by the clock, by which jobs end: what has just ended is due.
    fn catch_up(&mut self) {
        self.now = self.now.max(mrpo::store::unix_now());
    }

    async fn deliveries(&self, webhook: &WebhookId) -> Vec<Delivery> {
        self.store.deliveries(webhook, None, 100).await.expect("listed").items
    }

    async fn delivery(&self, webhook: &WebhookId) -> Delivery {
        self.deliveries(webhook).await.swap_remove(0)
    }

    /// Looks until the newest delivery of a webhook has been tried so often and its attempt has ended.
    async fn tried(&mut self, webhook: &WebhookId, n_attempts: u32) -> Delivery {
        let now = self.now;
        let has_ended = |delivery: &Delivery| delivery.next_attempt_at.is_none_or(|at| at > now);
        self.until(webhook, |delivery| delivery.n_attempts == n_attempts && has_ended(delivery)).await
    }

    async fn until(&mut self, webhook: &WebhookId, is_so: impl Fn(&Delivery) -> bool) -> Delivery {
        let asked = Instant::now();
        loop {
            self.tick().await;
            let delivery = self.delivery(webhook).await;
            if is_so(&delivery) {
                return delivery;
            }
            assert!(asked.elapsed() < PATIENCE, "it stays {delivery:?}");
            tokio::task::yield_now().await;
        }
    }
}

/// Waits for a request.
async fn has_come(receiver: &Receiver) {
    let asked = Instant::now();
    while receiver.received().is_empty() {
        assert!(asked.elapsed() < PATIENCE, "it never comes");
        tokio::task::yield_now().await;
    }
}

/// What came in each request, as far as it must be the same in all of them.
fn same(received: &[Received]) -> Vec<(String, String)> {
    received.iter().map(|request| (request.header("webhook-id").to_owned(), request.body.clone())).collect()
}

#[tokio::test]
async fn the_end_of_a_job_is_told_once_and_signed() {
    let receiver = Receiver::start(&[]);
    let mut w = World::with_webhooks(&receiver.address).await;
    let began = w.now;
    let (all, secret) = w.webhook(&receiver.url(), &WebhookEventType::ALL).await;
    let (failures, _) = w.webhook(&receiver.url(), &[WebhookEventType::JobFailed]).await;

    let job = w.job("a").await;
    w.is(&["a running"]).await;
    let mut process = w.process(&job).await;
    process.say(succeeded());
    drop(process);
    w.becomes(&["a succeeded"]).await;
    w.catch_up();
    let delivery = w.until(&all, |delivery| delivery.status == DeliveryStatus::Delivered).await;
    assert_eq!((delivery.n_attempts, delivery.status_code, delivery.error), (1, Some(200), None));
    assert_eq!((delivery.next_attempt_at, delivery.ended_at), (None, Some(w.now)));

    let received = receiver.received();
    assert_eq!(received.len(), 1, "{received:?}");
    let expected = json!({"id": delivery.event.id, "object": "event", "created_at": delivery.event.created_at,
        "type": "fine_tuning.job.succeeded", "data": {"id": job}});
    assert_eq!(received[0].json(), expected);
    assert_eq!(received[0].header("webhook-id"), delivery.event.id.as_str());
    let signed_at: i64 = received[0].header("webhook-timestamp").parse().expect("a number");
    assert!((began..=mrpo::store::unix_now()).contains(&signed_at), "by the clock, not by when a look began");
    assert_eq!(received[0].header("content-type"), "application/json");
    assert_eq!(received[0].n_signatures_by(secret.reveal()), 1);
    assert!(w.deliveries(&failures).await.is_empty());
}

#[tokio::test]
async fn every_way_to_an_end_is_told() {
    let mut w = World::with_webhooks("nowhere").await;
    let (webhook, _) = w.webhook("http://nowhere/hook", &WebhookEventType::ALL).await;
    let cancelled = w.cancelled_job(&Ownership::default()).await;
    // Its file does not pass the check.
    let file = uploaded_file(&w.store).await;
    let model = "smol".parse().expect("legal");
    let of_file = spec(&model, &file);
    let waiting = w.store.insert_job(&of_file, &Ownership::default(), &JobTerms::default()).await.expect("inserted").id;
    w.store.set_file_report(&file, &bad_report()).await.expect("reported");
    w.store.promote_validating_jobs().await.expect("looked");
    let told: Vec<_> = w.deliveries(&webhook).await.into_iter().map(|d| (d.event.event_type, d.event.job)).collect();
    let expected = [(WebhookEventType::JobFailed, Some(waiting)), (WebhookEventType::JobCancelled, Some(cancelled))];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn what_fails_is_sent_again_later_and_stays_the_same() {
    let replies = [Reply::Status(500, ""), Reply::Status(503, "retry-after: 600\r\n"), Reply::Status(204, "")];
    let receiver = Receiver::start(&replies);
    let mut w = World::with_webhooks(&receiver.address).await;
    let (webhook, _) = w.webhook(&receiver.url(), &WebhookEventType::ALL).await;
    w.cancelled_job(&Ownership::default()).await;

    let first = w.tried(&webhook, 1).await;
    assert_eq!((first.status_code, first.error.as_deref()), (Some(500), Some("it answers 500")));
    let next = first.next_attempt_at.expect("again");
    assert!((10..=12).contains(&(next - w.now)), "{}", next - w.now);
    w.now = next - 1;
    assert!(!w.tick().await, "it is not due yet");
    w.now = next;
    let second = w.tried(&webhook, 2).await;
    assert_eq!((second.status_code, second.next_attempt_at), (Some(503), Some(w.now + 600)));
    w.now += 600;
    let third = w.tried(&webhook, 3).await;
    assert_eq!((third.status, third.status_code, third.error), (DeliveryStatus::Delivered, Some(204), None));

    let received = receiver.received();
    assert_eq!(received.len(), 3);
    assert!(same(&received).windows(2).all(|two| two[0] == two[1]), "{received:?}");
    w.now += 40 * DAY;
    w.tick().await;
    assert!(w.deliveries(&webhook).await.is_empty(), "forgotten");
}

#[tokio::test]
async fn a_webhook_that_is_down_is_given_up_after_days() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let mut w = World::with_webhooks("127.0.0.1").await;
    let (webhook, _) = w.webhook(&format!("http://{nobody}/hook"), &WebhookEventType::ALL).await;
    w.cancelled_job(&Ownership::default()).await;
    let began = w.now;
    let mut n_attempts = 1;
    let last = loop {
        let delivery = w.tried(&webhook, n_attempts).await;
        assert!(delivery.error.as_ref().expect("said").starts_with("it cannot be reached"), "{delivery:?}");
        let Some(next) = delivery.next_attempt_at else { break delivery };
        (w.now, n_attempts) = (next, n_attempts + 1);
    };
    assert_eq!((last.status, last.n_attempts), (DeliveryStatus::Failed, Delivery::MAX_ATTEMPTS));
    assert!((2 * DAY..3 * DAY).contains(&(w.now - began)), "{}", w.now - began);
    // Its owner may have it sent once more.
    w.store.retry_delivery(&webhook, &last.event.id, w.now).await.expect("there");
    let once_more = w.tried(&webhook, Delivery::MAX_ATTEMPTS + 1).await;
    assert_eq!(once_more.status, DeliveryStatus::Failed);
}

#[tokio::test]
async fn a_certificate_that_is_not_accepted_is_said_to_be_that() {
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
    let chain = CertificateDer::pem_file_iter(tls.join("certificate.pem")).expect("read");
    let chain = chain.collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_file(tls.join("key.pem")).expect("PEM");
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("there are some")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they belong together");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut connection = ServerConnection::new(config.clone()).expect("configured");
            // The client breaks it off.
            let _ = connection.complete_io(&mut stream);
        }
    });
    let mut w = World::with_webhooks("localhost").await;
    let (webhook, _) = w.webhook(&format!("https://localhost:{}/hook", address.port()), &WebhookEventType::ALL).await;
    w.cancelled_job(&Ownership::default()).await;
    let error = w.tried(&webhook, 1).await.error.expect("said");
    assert!(error.starts_with("its certificate is not accepted: "), "{error}");
}

#[tokio::test]
async fn nothing_is_sent_elsewhere_than_was_allowed() {
    let elsewhere = Receiver::start(&[]);
    let location: &'static str = format!("location: {}\r\n", elsewhere.url()).leak();
    let receiver = Receiver::start(&[Reply::Status(302, location)]);
    let mut w = World::with_webhooks(&receiver.address).await;
    let (redirected, _) = w.webhook(&receiver.url(), &WebhookEventType::ALL).await;
    let (forbidden, _) = w.webhook(&elsewhere.url(), &WebhookEventType::ALL).await;
    w.cancelled_job(&Ownership::default()).await;
    let delivery = w.tried(&redirected, 1).await;
    assert_eq!(delivery.status_code, Some(302));
    assert!(delivery.error.expect("said").contains("redirects are not followed"));
    let delivery = w.tried(&forbidden, 1).await;
    assert!(delivery.error.expect("said").contains(&format!("--allow-webhook {}", elsewhere.address)));
    assert!(elsewhere.received().is_empty());
}

#[tokio::test]
async fn a_webhook_that_is_gone_is_told_nothing_more() {
    let receiver = Receiver::start(&[Reply::Status(410, "")]);
    let mut w = World::with_webhooks(&receiver.address).await;
    let (webhook, _) = w.webhook(&receiver.url(), &WebhookEventType::ALL).await;
    for _ in 0..2 {
        w.cancelled_job(&Ownership::default()).await;
    }
    w.until(&webhook, |newest| newest.status == DeliveryStatus::Failed).await;
    let errors: Vec<_> = w.deliveries(&webhook).await.into_iter().map(|d| (d.status, d.error)).collect();
    let failed = |error: &str| (DeliveryStatus::Failed, Some(error.to_owned()));
    assert_eq!(errors, [failed("the webhook was disabled"), failed("it answers 410")]);
    let disabled = w.store.webhook(&webhook).await.expect("found").disabled.expect("disabled");
    assert!(disabled.at == w.now && disabled.reason.contains("410"), "{disabled:?}");

    w.cancelled_job(&Ownership::default()).await;
    assert_eq!(w.deliveries(&webhook).await.len(), 2);
    let enable = WebhookChange { is_disabled: Some(false), ..WebhookChange::default() };
    assert_eq!(w.store.change_webhook(&webhook, &enable, w.now).await.expect("changed").disabled, None);
    w.cancelled_job(&Ownership::default()).await;
    w.until(&webhook, |newest| newest.status == DeliveryStatus::Delivered).await;
    assert_eq!(receiver.received().len(), 2);
}

#[tokio::test]
async fn a_server_that_is_killed_in_the_middle_sends_it_again_under_the_same_id() {
    let receiver = Receiver::start(&[Reply::Silence]);
    let mut w = World::with_webhooks(&receiver.address).await;
    let (webhook, secret) = w.webhook(&receiver.url(), &WebhookEventType::ALL).await;
    w.cancelled_job(&Ownership::default()).await;
    w.tick().await;
    has_come(&receiver).await;
    // Whether it was taken nobody knows any more.
    w.restart().await;
    w.may_call(&receiver.address);
    receiver.hang_up();
    w.now += 59;
    w.tick().await;
    assert_eq!(w.delivery(&webhook).await.n_attempts, 1, "it may still be under way");
    w.now += 1;
    let delivery = w.tried(&webhook, 2).await;
    assert_eq!(delivery.status, DeliveryStatus::Delivered);
    let received = receiver.received();
    assert_eq!(received.len(), 2);
    assert_eq!(same(&received)[0], same(&received)[1]);
    assert_eq!(received[1].n_signatures_by(secret.reveal()), 1);
}

#[tokio::test]
async fn a_secret_that_is_replaced_signs_beside_the_new_one_while_it_may() {
    let receiver = Receiver::start(&[]);
    let mut w = World::with_webhooks(&receiver.address).await;
    let (webhook, old) = w.webhook(&receiver.url(), &WebhookEventType::ALL).await;
    let new = WebhookSecret::new().expect("random numbers");
    w.store.rotate_webhook_secret(&webhook, &new, Some(w.now + DAY), w.now).await.expect("rotated");
    w.cancelled_job(&Ownership::default()).await;
    w.until(&webhook, |newest| newest.status == DeliveryStatus::Delivered).await;
    w.now += DAY;
    w.cancelled_job(&Ownership::default()).await;
    w.until(&webhook, |newest| newest.status == DeliveryStatus::Delivered).await;
    let by = |request: &Received| [&new, &old].map(|secret| request.n_signatures_by(secret.reveal()));
    assert_eq!(receiver.received().iter().map(by).collect::<Vec<_>>(), [[1, 1], [1, 0]]);
}

#[tokio::test]
async fn only_who_may_see_a_job_is_told_of_it() {
    let mut w = World::with_webhooks("nowhere").await;
    let of = |name: &str, is_shared| Ownership { owner: name.parse().ok(), is_shared };
    let (mut webhooks, mut keys) = (Vec::new(), Vec::new());
    for name in ["ana", "bo", "cy", ""] {
        if let Ok(user) = name.parse() {
            let new = NewKey { user, role: Role::Member, scope: Scope::Write, expires_at: None };
            keys.push(w.store.create_key(&new).await.expect("made").0.id);
        }
        let webhook = w.webhook_of(&of(name, false), "http://nowhere/hook", &WebhookEventType::ALL).await.0;
        webhooks.push(webhook);
    }
    w.store.revoke_key(&keys[2]).await.expect("revoked");
    let mut told = Vec::new();
    for ownership in [of("ana", false), of("ana", true), of("", false), of("cy", false)] {
        let job = w.cancelled_job(&ownership).await;
        let mut of_job = Vec::new();
        for webhook in &webhooks {
            let deliveries = w.deliveries(webhook).await;
            of_job.push(deliveries.iter().filter(|delivery| delivery.event.job.as_ref() == Some(&job)).count());
        }
        told.push(of_job);
    }
    // Ana's, Bo's, that of Cy, who has no key any more, and nobody's.
    assert_eq!(told, [[1, 0, 0, 0], [1, 1, 0, 1], [1, 1, 0, 1], [0, 0, 0, 0]]);
}

#[tokio::test]
async fn what_is_sent_again_while_an_attempt_is_under_way_stays_due() {
    let receiver = Receiver::start(&[Reply::Silence]);
    let mut w = World::with_webhooks(&receiver.address).await;
    let (webhook, _) = w.webhook(&receiver.url(), &WebhookEventType::ALL).await;
    w.cancelled_job(&Ownership::default()).await;
    let under_way = w.until(&webhook, |newest| newest.n_attempts == 1).await;
    has_come(&receiver).await;
    let again = w.store.retry_delivery(&webhook, &under_way.event.id, w.now).await.expect("there");
    receiver.hang_up();
    w.now = again.next_attempt_at.expect("due") - 1;
    let failed = w.until(&webhook, |newest| newest.error.is_some()).await;
    assert_eq!((failed.n_attempts, failed.next_attempt_at), (1, again.next_attempt_at), "not put off");
    w.now += 1;
    let delivered = w.until(&webhook, |newest| newest.status == DeliveryStatus::Delivered).await;
    assert_eq!(delivered.n_attempts, 2);
}

#[tokio::test]
async fn an_address_that_is_gone_says_nothing_of_the_next() {
    let receiver = Receiver::start(&[Reply::Silence]);
    let mut w = World::with_webhooks(&receiver.address).await;
    let (webhook, _) = w.webhook(&receiver.url(), &WebhookEventType::ALL).await;
    w.cancelled_job(&Ownership::default()).await;
    let due = w.store.claim_delivery(w.now).await.expect("asked").expect("due");
    let moved = WebhookChange { url: Some("http://elsewhere/hook".parse().expect("legal")), ..Default::default() };
    w.store.change_webhook(&webhook, &moved, w.now).await.expect("changed");
    let gone = Attempt { status_code: Some(410), error: Some("it answers 410".into()), asked_s: None };
    w.store.end_attempt(&due, &gone, w.now).await.expect("recorded");
    assert_eq!(w.store.webhook(&webhook).await.expect("found").disabled, None);
    assert_eq!(w.delivery(&webhook).await.status, DeliveryStatus::Pending);
}

#[tokio::test]
async fn nobody_holds_all_senders_and_whoever_has_no_key_is_told_nothing_more() {
    let mut w = World::with_webhooks("nowhere").await;
    let mut keys = Vec::new();
    for name in ["ana", "bo"] {
        let user: UserName = name.parse().expect("legal");
        let new = NewKey { user: user.clone(), role: Role::Member, scope: Scope::Write, expires_at: None };
        keys.push(w.store.create_key(&new).await.expect("made").0.id);
        let ownership = Ownership { owner: Some(user), is_shared: false };
        for _ in 0..4 {
            w.webhook_of(&ownership, "http://nowhere/hook", &WebhookEventType::ALL).await;
        }
        w.cancelled_job(&ownership).await;
    }
    let mut claimed = Vec::new();
    for _ in 0..4 {
        claimed.push(w.store.claim_delivery(w.now).await.expect("asked").expect("due"));
    }
    let mut owners = Vec::new();
    for due in &claimed {
        owners.push(w.store.webhook(&due.webhook).await.expect("found").ownership.owner.expect("somebody").to_string());
    }
    assert_eq!(owners, ["ana", "ana", "ana", "bo"]);
    for key in &keys {
        w.store.revoke_key(key).await.expect("revoked");
    }
    for due in &claimed {
        w.store.end_attempt(due, &Attempt::default(), w.now).await.expect("recorded");
    }
    assert_eq!(w.store.claim_delivery(w.now + DAY).await.expect("asked"), None);
}
