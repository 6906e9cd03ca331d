//! A server in this process and a client of it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mrpo::{
    domain::{
        AllowedHosts, Failure, FailureCode, ModelId, ModelInfo, ModelLocation, QueueRules, ReadMemory,
        RetentionDefaults, WeightsFormat,
    },
    http::{self, App, Settings},
    run_dir::Disk,
    store::Store,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot};
use ureq::{
    Agent, Body,
    http::{HeaderMap, Method, Request, Response},
};

/// How long a test waits for what happens in the background.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server with a data directory of its own; both end with it.
pub(crate) struct Server {
    address: SocketAddr,
    agent: Agent,
    worker_alive: Arc<AtomicBool>,
    stop: Option<oneshot::Sender<()>>,
    runtime: Runtime,
    data_dir: TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().expect("text"))
    }

    /// The body of a success.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// The body of an error with this status and code, in the shape every error has.
    pub(crate) fn error(&self, status: u16, code: &str) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{text}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{text}");
        assert!(self.header("x-request-id").is_some());
        let body = self.json();
        assert_eq!(body["error"]["code"], code, "{text}");
        assert_eq!(body["status"], status);
        assert_eq!(body["error"]["message"], body["detail"]);
        assert!(body["type"].as_str().expect("type").starts_with("urn:mrpo:error:"));
        assert!(body["title"].is_string() && body["error"]["type"].is_string());
        assert!(body["error"].as_object().expect("error").contains_key("param"));
        let should_retry = if code == "in_progress" { "true" } else { "false" };
        assert_eq!(self.header("x-should-retry"), matches!(status, 409 | 507).then_some(should_retry));
        body
    }
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    /// A server whose settings are changed first.
    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::on(tempfile::tempdir().expect("temp dir"), change)
    }

    /// A server on a data directory that exists.
    pub(crate) fn on(data_dir: TempDir, change: impl FnOnce(&mut Settings)) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
        let mut settings = Settings {
            data_dir: data_dir.path().to_owned(),
            max_upload_bytes: 1 << 20,
            max_requests: 64,
            max_streams: 16,
            max_checks: 2,
            allow_path_models: true,
            requests_per_second: None,
            origins: Vec::new(),
            remotes: AllowedHosts::default(),
            webhook_hosts: AllowedHosts::new(["hooks.example".into()]),
            queue: QueueRules::new(1),
            disk: Disk::new(data_dir.path(), 0),
            retention: RetentionDefaults::default(),
            memory: ReadMemory::unknown(),
        };
        change(&mut settings);
        let worker_alive = Arc::new(AtomicBool::new(true));
        let (stop, stopped) = oneshot::channel::<()>();
        let address = runtime.block_on(async {
            let store = Store::open(&settings.data_dir).await.expect("store");
            let alive = worker_alive.clone();
            let app = App::open(store, settings, Arc::new(move || alive.load(Ordering::Relaxed))).await.expect("app");
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
            let address = listener.local_addr().expect("address");
            tokio::spawn(http::serve(listener, None, app, async {
                let _ = stopped.await;
            }));
            address
        });
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        Self { address, agent, worker_alive, stop: Some(stop), runtime, data_dir }
    }

    /// Ends the server and keeps its data directory.
    pub(crate) fn stop(mut self) -> TempDir {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let Self { runtime, data_dir, .. } = self;
        runtime.shutdown_timeout(PATIENCE);
        data_dir
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    pub(crate) fn set_worker_alive(&self, alive: bool) {
        self.worker_alive.store(alive, Ordering::Relaxed);
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[])
    }

    pub(crate) fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, path, headers, None)
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[("content-type", "application/json")], None)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &[("content-type", "application/json")], Some(body.to_string().into_bytes()))
    }

    /// As the OpenAI SDK sends it: a content type, and no content.
    pub(crate) fn post_empty(&self, path: &str) -> Answer {
        self.send(Method::POST, path, &[("content-type", "application/json")], Some(Vec::new()))
    }

    pub(crate) fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Vec<u8>>) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = match body {
            Some(body) => self.agent.run(request.body(body).expect("request")),
            None => self.agent.run(request.body(()).expect("request")),
        };
        read(response.expect("an answer"))
    }

    /// Sends a form with these parts, in this order; a part with a file name is a file.
    pub(crate) fn upload(&self, parts: &[(&str, Option<&str>, &[u8])]) -> Answer {
        let mut body = Vec::new();
        for (name, filename, content) in parts {
            let filename = filename.map_or(String::new(), |f| format!("; filename=\"{f}\""));
            write!(body, "--XX\r\nContent-Disposition: form-data; name=\"{name}\"{filename}\r\n\r\n").expect("memory");
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--XX--\r\n");
        self.send(Method::POST, "/v1/files", &[("content-type", "multipart/form-data; boundary=XX")], Some(body))
    }

    /// Uploads preference data and waits for the end of its check.
    pub(crate) fn checked_file(&self, content: &str) -> Value {
        let file =
            self.upload(&[("purpose", None, b"fine-tune"), ("file", Some("pairs.jsonl"), content.as_bytes())]).ok();
        self.wait_for_check(file["id"].as_str().expect("id"))
    }

    pub(crate) fn wait_for_check(&self, id: &str) -> Value {
        let file = || self.get(&format!("/v1/files/{id}")).ok();
        wait_until("the file is checked", || file()["status"] != "uploaded");
        file()
    }

    /// Registers a model and leaves it pending: no worker is here to fetch it.
    pub(crate) fn add_model(&self, id: &str) {
        self.post("/v1/models", &json!({"id": id, "source": format!("path:/models/{id}")})).ok();
    }

    /// Makes a job on a checked file and a pending model `smol`.
    pub(crate) fn add_job(&self) -> String {
        if self.get("/v1/models/smol").status == 404 {
            self.add_model("smol");
        }
        let file = self.checked_file(&pairs(4));
        let body = json!({"model": "smol", "training_file": file["id"], "method": {"type": "dpo"}});
        self.post("/v1/fine_tuning/jobs", &body).ok()["id"].as_str().expect("id").to_owned()
    }

    /// Writes what the worker would have written. The tests of the API need rows that no request makes.
    pub(crate) fn execute(&self, sql: &'static str, values: &[&str]) {
        self.runtime.block_on(async {
            let url = format!("sqlite://{}", self.data_dir().join(Store::FILE_NAME).display());
            let pool = sqlx::SqlitePool::connect(&url).await.expect("database");
            let query = values.iter().fold(sqlx::query(sql), |query, value| query.bind((*value).to_owned()));
            query.execute(&pool).await.expect("statement");
            pool.close().await;
        });
    }

    /// Marks a model as the worker does when its registration succeeded.
    pub(crate) fn make_ready(&self, id: &str) {
        let id: ModelId = id.parse().expect("id");
        let info = ModelInfo {
            location: ModelLocation {
                format: WeightsFormat::Huggingface,
                weights: format!("/models/{id}").into(),
                adapters: Vec::new(),
            },
            digest: format!("sha256:{}", "0".repeat(64)),
            architecture: "LlamaForCausalLM".into(),
            n_parameters: 134_515_008,
            vocab_size: 49_152,
            max_position_embeddings: 8192,
            has_chat_template: true,
            size_bytes: 269_060_552,
            scores: None,
        };
        self.set_ready(&info, id.as_str());
    }

    /// The same of scores made elsewhere.
    pub(crate) fn make_ready_with_scores(&self, id: &str, scores: &Value) {
        let location =
            ModelLocation { format: WeightsFormat::Scores, weights: "/scores.jsonl".into(), adapters: Vec::new() };
        let info = ModelInfo {
            location,
            digest: format!("sha256:{}", "1".repeat(64)),
            architecture: "scores".into(),
            n_parameters: 0,
            vocab_size: 0,
            max_position_embeddings: 0,
            has_chat_template: false,
            size_bytes: 40,
            scores: Some(serde_json::from_value(scores.clone()).expect("a summary")),
        };
        self.set_ready(&info, id);
    }

    fn set_ready(&self, info: &ModelInfo, id: &str) {
        let info = serde_json::to_string(info).expect("serialises");
        self.execute("update models set status = 'ready', info = ? where id = ?", &[&info, id]);
    }

    /// Marks a model as the worker does when its registration failed.
    pub(crate) fn make_broken(&self, id: &str) {
        let failure = Failure::new(FailureCode::UnsupportedModel, "the architecture 'Mamba' is not supported");
        let failure = serde_json::to_string(&failure).expect("serialises");
        self.execute("update models set status = 'error', error = ? where id = ?", &[&failure, id]);
    }

    /// Sends bytes as they are; dropping the connection hangs up.
    pub(crate) fn begin(&self, request: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("connect");
        stream.write_all(request).expect("write");
        stream
    }

    /// Sends bytes as they are and reads whatever comes back.
    pub(crate) fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.begin(request);
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }
}

fn read(response: Response<Body>) -> Answer {
    let (head, mut body) = response.into_parts();
    let body = body.read_to_vec().expect("the whole body");
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}

/// Waits for what happens in the background.
pub(crate) fn wait_until(what: &str, done: impl Fn() -> bool) {
    let asked = Instant::now();
    while !done() {
        assert!(asked.elapsed() < PATIENCE, "it never comes that {what}");
        std::thread::yield_now();
    }
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// Well-formed preference data of so many pairs.
pub(crate) fn pairs(n: usize) -> String {
    (0..n).map(|i| pair(&format!("question {i}"), "yes", "no") + "\n").collect()
}

/// One pair in TRL's standard format.
pub(crate) fn pair(prompt: &str, chosen: &str, rejected: &str) -> String {
    json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}).to_string()
}

/// The id of a thing.
pub(crate) fn id_of(body: &Value) -> String {
    body["id"].as_str().expect("an id").to_owned()
}

/// The ids of a list.
pub(crate) fn ids(list: &Value) -> Vec<String> {
    list["data"].as_array().expect("data").iter().map(|x| x["id"].as_str().expect("id").to_owned()).collect()
}
