//! Registration from a Hugging Face hub: the real program against a server on loopback that answers as the hub does.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
};

use mrpo::{
    domain::{FailureCode, RegisterSpec, RunEvent, RunSpec},
    run_dir::RunDir,
};

use crate::{tiny, world::failure};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The files of one repository, `org/tiny`, served as the hub serves them; asks for `Bearer secret` where `is_gated`.
struct Hub {
    endpoint: String,
}

impl Hub {
    fn serve(directory: &Path, is_gated: bool) -> Self {
        let files: BTreeMap<String, Vec<u8>> = std::fs::read_dir(directory)
            .expect("readable")
            .map(|entry| entry.expect("readable").path())
            .map(|path| {
                let name = path.file_name().expect("a file").to_string_lossy().into_owned();
                (name, std::fs::read(&path).expect("readable"))
            })
            .collect();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        // Ends with the test's process; a connection that breaks is the client's to notice.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &files, is_gated);
            }
        });
        Self { endpoint }
    }
}

fn answer(mut stream: TcpStream, files: &BTreeMap<String, Vec<u8>>, is_gated: bool) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let headers: Vec<String> =
        lines.map_while(Result::ok).take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let name = path.rsplit('/').next().unwrap_or_default();
    let is_known = path.starts_with("/org/tiny/resolve/");
    let (status, body) = match files.get(name) {
        _ if is_gated && !headers.iter().any(|h| h == "authorization: bearer secret") => ("401 Unauthorized", &b""[..]),
        Some(file) if is_known => {
            let first_only = headers.iter().any(|h| h == "range: bytes=0-0");
            ("206 Partial Content", if first_only { &file[..1] } else { file.as_slice() })
        }
        _ => ("404 Not Found", &b""[..]),
    };
    let size = files.get(name).map_or(0, Vec::len);
    write!(
        stream,
        "HTTP/1.1 {status}\r\nx-repo-commit: {COMMIT}\r\netag: \"{name}-1\"\r\ncontent-range: bytes 0-{}/{size}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len().saturating_sub(1),
        body.len()
    )?;
    stream.write_all(body)
}

/// Registers `source` in a run directory of its own; returns what it said last and before.
fn register(home: &Path, name: &str, source: &str, hub: &Hub, token: Option<&str>) -> Vec<RunEvent> {
    let run = RunDir::new(home.join(name));
    let spec = RegisterSpec {
        model: "tiny".parse().expect("legal"),
        source: source.parse().expect("legal"),
        store_dir: home.join("models"),
        files_dir: home.join("files"),
        tokenizer: None,
    };
    run.create(&RunSpec::Register(Box::new(spec))).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mrpo"));
    command.arg("run").arg(run.root()).env("HF_ENDPOINT", &hub.endpoint).env("HF_HOME", home.join("hf"));
    command.env_remove("HF_TOKEN");
    if let Some(token) = token {
        command.env("HF_TOKEN", token);
    }
    command.output().expect("started");
    run.read_events(0, 1 << 20).expect("readable").0.into_iter().map(|e| e.record.event).collect()
}

#[test]
fn a_repository_is_fetched_once_and_then_works_offline() {
    let home = tempfile::tempdir().expect("temp dir");
    tiny::write_model(&home.path().join("published"), 3);
    let hub = Hub::serve(&home.path().join("published"), false);
    let events = register(home.path(), "first", "hf:org/tiny", &hub, None);
    assert!(matches!(events.last(), Some(RunEvent::Succeeded { .. })), "{events:?}");
    let Some(RunEvent::Registered { model }) = events.iter().rev().nth(1) else { panic!("{events:?}") };
    assert!(model.location.weights.ends_with(COMMIT), "the commit is pinned: {}", model.location.weights.display());
    assert!(model.location.weights.starts_with(home.path().join("hf")), "HF_HOME is the cache");

    let offline = Hub { endpoint: "http://127.0.0.1:9".to_owned() };
    let again = register(home.path(), "again", "hf:org/tiny", &offline, None);
    assert_eq!(again.iter().rev().nth(1), events.iter().rev().nth(1));
}

#[test]
fn what_the_hub_refuses_is_said_in_words() {
    let home = tempfile::tempdir().expect("temp dir");
    tiny::write_model(&home.path().join("published"), 3);
    let hub = Hub::serve(&home.path().join("published"), true);
    let refused = register(home.path(), "refused", "hf:org/tiny", &hub, None);
    let refused = failure(refused.last().expect("said").clone());
    assert_eq!(refused.code, FailureCode::SourceUnavailable);
    assert!(refused.message.contains("HF_TOKEN"), "{refused}");
    let missing = register(home.path(), "missing", "hf:org/other", &hub, Some("secret"));
    let missing = failure(missing.last().expect("said").clone());
    assert!(missing.message.contains("org/other"), "{missing}");
    let allowed = register(home.path(), "allowed", "hf:org/tiny", &hub, Some("secret"));
    assert!(matches!(allowed.last(), Some(RunEvent::Succeeded { .. })), "{allowed:?}");
}
