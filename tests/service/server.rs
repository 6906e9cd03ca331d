//! `mrpo serve` on a free port, and a client of it that polls.
#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::{
    Agent, SendBody,
    config::ConfigBuilder,
    http::{HeaderValue, Request, Response},
    middleware::MiddlewareNext,
    tls::{Certificate, RootCerts, TlsConfig},
    typestate::AgentScope,
    unversioned::multipart::{Form, Part},
};

use crate::tiny;

/// How often, and how long apart, a test asks whether something has come about: two minutes in all.
const N_POLLS: u32 = 4800;
const BETWEEN_POLLS: Duration = Duration::from_millis(25);

/// A server and its data directory.
pub(crate) struct Server {
    child: Child,
    base: String,
    agent: Agent,
    directory: TempDir,
    /// Flags beside the usual ones.
    flags: Vec<String>,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The body of an error with this status and code.
    pub(crate) fn error(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        let body = self.json();
        assert_eq!(body["error"]["code"], code, "{body}");
        body
    }

    /// The body of a success.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// One with these flags, also when it is started again.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let (child, base) = spawn(directory.path(), &flags);
        Self { child, base, agent: agent(TlsConfig::default()), directory, flags }
    }

    /// One with these flags whose log, at this level, is in the file `log`.
    pub(crate) fn start_with_log(level: &str, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let mut command = command(directory.path());
        command
            .args(&flags)
            .env("RUST_LOG", level)
            .stderr(std::fs::File::create(directory.path().join("log")).unwrap());
        let (child, base) = listening(command);
        Self { child, base, agent: agent(TlsConfig::default()), directory, flags }
    }

    /// Shows a key with every request from now on.
    pub(crate) fn use_key(&mut self, key: &str) {
        let value = HeaderValue::try_from(format!("Bearer {key}")).unwrap();
        let show = move |mut request: Request<SendBody<'_>>, next: MiddlewareNext<'_>| {
            request.headers_mut().insert("authorization", value.clone());
            next.handle(request)
        };
        self.agent = config(self.agent.config().tls_config().clone()).middleware(show).build().new_agent();
    }

    /// One that speaks TLS with the certificate of the fixtures, which its client trusts alone, and is configured by a file.
    pub(crate) fn start_with_tls() -> Self {
        let fixture = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name);
        let directory = tempfile::tempdir().unwrap();
        let (certificate, file) = (fixture("certificate.pem"), directory.path().join("mrpo.toml"));
        let (certificate_path, key_path) = (certificate.display(), fixture("key.pem"));
        let lines = format!("tls-cert = '{certificate_path}'\ntls-key = '{}'\n", key_path.display());
        std::fs::write(&file, lines).unwrap();
        let flags = vec!["--config".to_owned(), file.to_str().unwrap().to_owned()];
        let (child, base) = spawn(directory.path(), &flags);
        let trusted = Certificate::from_pem(&std::fs::read(certificate).unwrap()).unwrap();
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[trusted])).build();
        Self { child, base, agent: agent(tls), directory, flags }
    }

    /// Kills the server, not its runs, and starts another on the same data.
    pub(crate) fn kill_and_start_again(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Kills the server, not its runs.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Tells the server to stop, and waits until it has.
    pub(crate) fn terminate(&mut self) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        self.child.wait().unwrap();
    }

    /// Starts another on the same data.
    pub(crate) fn start_again(&mut self) {
        (self.child, self.base) = spawn(self.directory.path(), &self.flags);
    }

    /// Kills the process of a job's run.
    pub(crate) fn kill_run(&self, job: &Value) {
        let lock = self.path("data/runs").join(text(&job["run_id"])).join("run.lock");
        let pid = std::fs::read_to_string(lock).unwrap().parse().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }

    /// Makes the first key, an admin's: from then on everybody is asked for one.
    pub(crate) fn first_key(&self, user: &str) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_mrpo"))
            .args(["keys", "create", "--user", user, "--role", "admin", "--data-dir"])
            .arg(self.path("data"))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Where it listens, without the scheme.
    pub(crate) fn address(&self) -> &str {
        self.base.split_once("://").unwrap().1
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        read(self.agent.get(format!("{}{path}", self.base)).call().unwrap())
    }

    pub(crate) fn get_range(&self, path: &str, range: &str) -> Answer {
        self.get_with(path, "range", range)
    }

    pub(crate) fn get_with(&self, path: &str, header: &str, value: &str) -> Answer {
        read(self.agent.get(format!("{}{path}", self.base)).header(header, value).call().unwrap())
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        read(self.agent.delete(format!("{}{path}", self.base)).call().unwrap())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, body.to_string())
    }

    pub(crate) fn post_text(&self, path: &str, body: String) -> Answer {
        let request = Request::post(format!("{}{path}", self.base)).header("content-type", "application/json");
        read(self.agent.run(request.body(body).unwrap()).unwrap())
    }

    /// Uploads pairs and waits for the end of their check.
    pub(crate) fn upload(&self, lines: &str) -> Value {
        self.upload_for("fine-tune", lines)
    }

    /// Uploads lines for a purpose and waits for the end of their check.
    pub(crate) fn upload_for(&self, purpose: &str, lines: &str) -> Value {
        let file = Part::bytes(lines.as_bytes()).file_name("pairs.jsonl");
        let form = Form::new().text("purpose", purpose).part("file", file);
        let file = read(self.agent.post(format!("{}/v1/files", self.base)).send(form).unwrap()).ok();
        self.until(&format!("/v1/files/{}", text(&file["id"])), |file| file["status"] != "uploaded")
    }

    /// Registers what lies at a path and waits for the end of its check.
    pub(crate) fn register(&self, id: &str, path: &Path) -> Value {
        self.register_from(id, &format!("path:{}", path.display()))
    }

    /// The same with any source.
    pub(crate) fn register_from(&self, id: &str, source: &str) -> Value {
        self.post("/v1/models", &json!({"id": id, "source": source})).ok();
        self.until(&format!("/v1/models/{id}"), |model| model["status"] != "pending")
    }

    /// Registers the tiny model and uploads so many pairs. Returns the files' ids.
    pub(crate) fn with_model_and_files(&self, n_pairs: usize, n_chars: usize) -> [String; 2] {
        let directory = self.path("tiny");
        tiny::write_model(&directory, 1);
        let model = self.register("tiny", &directory);
        assert_eq!(model["status"], "ready", "{model}");
        [tiny::pairs(n_pairs, 0, n_chars), tiny::pairs(3, 900, n_chars)].map(|lines| {
            let file = self.upload(&lines);
            assert_eq!(file["status"], "processed", "{file}");
            text(&file["id"]).to_owned()
        })
    }

    /// Creates a job. Returns its address.
    pub(crate) fn job(&self, body: &Value) -> String {
        let job = self.post("/v1/fine_tuning/jobs", body).ok();
        format!("/v1/fine_tuning/jobs/{}", text(&job["id"]))
    }

    /// Waits until a job has a status; it must not end in another one.
    pub(crate) fn job_becomes(&self, job: &str, status: &str) -> Value {
        let found = self.until(job, |job| {
            job["status"] == status || ["succeeded", "failed", "cancelled"].iter().any(|word| job["status"] == *word)
        });
        assert_eq!(found["status"], status, "{found}");
        found
    }

    /// Waits until a job has done a step.
    pub(crate) fn job_steps(&self, job: &str) {
        let found = self.until(job, |job| job["progress"]["n_steps_done"].as_u64() > Some(0));
        assert_eq!(found["status"], "running", "{found}");
    }

    /// The directories of runs.
    pub(crate) fn n_runs(&self) -> usize {
        std::fs::read_dir(self.path("data/runs")).map_or(0, Iterator::count)
    }

    /// Waits until there are so many of them: an inspection's goes a moment after its answer has come.
    pub(crate) fn runs_become(&self, n: usize) {
        for _ in 0..N_POLLS {
            if self.n_runs() == n {
                return;
            }
            std::thread::sleep(BETWEEN_POLLS);
        }
        panic!("there are {} runs, not {n}", self.n_runs());
    }

    /// Questions that the database still knows.
    pub(crate) fn n_questions(&self) -> i64 {
        let database =
            sqlx::sqlite::SqliteConnectOptions::new().filename(self.path("data").join(mrpo::store::Store::FILE_NAME));
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let mut database = sqlx::ConnectOptions::connect(&database).await.unwrap();
            sqlx::query_scalar("select count(*) from inspections").fetch_one(&mut database).await.unwrap()
        })
    }

    pub(crate) fn until(&self, path: &str, done: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..N_POLLS {
            let found = self.get(path).ok();
            if done(&found) {
                return found;
            }
            std::thread::sleep(BETWEEN_POLLS);
        }
        panic!("{path} stays {}", self.get(path).json());
    }

    /// Every page of a list, in the order of its pages.
    pub(crate) fn all(&self, path: &str) -> Vec<Value> {
        let mut found: Vec<Value> = Vec::new();
        loop {
            let after = found.last().map_or(String::new(), |last| format!("&after={}", text(&last["id"])));
            let mut page = self.get(&format!("{path}?limit=100{after}")).ok();
            found.append(page["data"].as_array_mut().unwrap());
            if page["has_more"] == false {
                return found;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Failures mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn agent(tls: TlsConfig) -> Agent {
    config(tls).build().new_agent()
}

fn config(tls: TlsConfig) -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(Duration::from_mins(3)))
        .tls_config(tls)
}

fn spawn(data: &Path, flags: &[String]) -> (Child, String) {
    let mut command = command(data);
    command.args(flags).stderr(Stdio::null());
    listening(command)
}

fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mrpo"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--lease-seconds", "2", "--min-free-disk", "0", "--data-dir"]);
    command.arg(data.join("data")).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Starts a server. Its process and where it listens.
fn listening(mut command: Command) -> (Child, String) {
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let base = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("it says '{line}'")).trim().to_owned();
    (child, base)
}

fn read(mut response: Response<ureq::Body>) -> Answer {
    let status = response.status().as_u16();
    Answer { status, body: response.body_mut().with_config().limit(64 << 20).read_to_vec().unwrap() }
}

/// Waits for what the API does not tell.
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..N_POLLS {
        if is_so() {
            return;
        }
        std::thread::sleep(BETWEEN_POLLS);
    }
    panic!("it never comes that {what}");
}

/// A JSON text.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}
