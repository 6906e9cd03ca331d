//! The server's configuration, in two stages: what was typed ([`ServeArgs`]), then what is used ([`ServeConfig`]).

mod file;

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroU64},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use mrpo::{
    domain::{AllowedHosts, DeviceMemory, JobMemory, QueueRules, ReadMemory, RetentionDefaults},
    http::{Origin, Settings},
    launch::Gpus,
    model::device,
    run_dir::Disk,
};

pub(crate) use self::file::with_file;

/// How many requests are worked on at once. Far above what a team needs, far below what would hurt.
const MAX_REQUESTS: usize = 256;
/// How many uploaded files are checked at once.
const MAX_CHECKS: usize = 2;

/// `mrpo serve`, as typed.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    /// Where to listen. Port 0 takes a free one; the address is printed.
    #[arg(long, env = "MRPO_LISTEN", default_value = "127.0.0.1:8111", value_name = "HOST:PORT")]
    pub(crate) listen: SocketAddr,
    /// Where everything is kept: database, files, runs, models. One server per directory.
    #[arg(long, env = "MRPO_DATA_DIR", default_value = "./mrpo-data", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// How many jobs run at once. A slot is one GPU, or on the CPU one run with all cores. By default every GPU, and one on the CPU.
    #[arg(long, env = "MRPO_SLOTS", value_name = "N")]
    pub(crate) slots: Option<u16>,
    /// How many jobs of one user run at once; those above wait. No limit by default. What is made without a key is nobody's and not limited.
    #[arg(long, env = "MRPO_MAX_RUNNING_PER_USER", value_name = "N")]
    pub(crate) max_running_per_user: Option<NonZeroU32>,
    /// How many jobs of one user may wait; more are refused. No limit by default.
    #[arg(long, env = "MRPO_MAX_QUEUED_PER_USER", value_name = "N")]
    pub(crate) max_queued_per_user: Option<NonZeroU32>,
    /// How many bytes one user's files, checkpoints and exports may take before more files, jobs and exports are refused. No limit by
    /// default.
    #[arg(long, env = "MRPO_MAX_DISK_PER_USER", value_name = "BYTES")]
    pub(crate) max_disk_per_user: Option<NonZeroU64>,
    /// So much of the disk stays free: below, uploads and exports are refused and jobs wait; below half of it jobs that run are paused.
    #[arg(long, env = "MRPO_MIN_FREE_DISK", default_value_t = 2 << 30, value_name = "BYTES")]
    pub(crate) min_free_disk: u64,
    /// How many of a job's newest checkpoints are kept where the job does not say it. All by default.
    #[arg(long, env = "MRPO_KEEP_CHECKPOINTS", value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    pub(crate) keep_checkpoints: Option<u32>,
    /// After how many days from a job's end its run's files go, where the job does not say it; the model it made stays. Never by default.
    #[arg(long, env = "MRPO_KEEP_DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500), value_name = "N")]
    pub(crate) keep_days: Option<u32>,
    /// What jobs compute on: `cpu`, or `cuda`: a job gets the free GPU with the most memory.
    #[arg(long, env = "MRPO_DEVICE", default_value = "cpu")]
    pub(crate) device: Device,
    /// The largest file that may be uploaded, whole or in parts.
    #[arg(long, env = "MRPO_MAX_UPLOAD_BYTES", default_value_t = 8 << 30, value_name = "BYTES")]
    pub(crate) max_upload_bytes: u64,
    /// Whether a client may register a model by its path on this machine (`path:`).
    #[arg(long, env = "MRPO_ALLOW_PATH_MODELS", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub(crate) allow_path_models: bool,
    /// Another server that may be registered as a reference (`remote:`), by name: every port of it, or one. May be given several
    /// times, or with commas. None by default: whoever can register a model could else make this server call any address.
    #[arg(long, env = "MRPO_ALLOW_REMOTE", value_parser = AllowedHosts::entry, value_delimiter = ',', value_name = "HOST[:PORT]")]
    pub(crate) allow_remote: Vec<String>,
    /// A server whose webhooks may be called, by name: every port of it, or one. May be given several times, or with commas. None by
    /// default: whoever can make a webhook could else make this server call any address.
    #[arg(long, env = "MRPO_ALLOW_WEBHOOK", value_parser = AllowedHosts::entry, value_delimiter = ',', value_name = "HOST[:PORT]")]
    pub(crate) allow_webhook: Vec<String>,
    /// After how long without a sign of life of this server the next one may take its runs over. Nothing is lost in the
    /// meantime: runs go on without a server.
    #[arg(long, env = "MRPO_LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=3600),
          value_name = "SECONDS")]
    pub(crate) lease_seconds: u32,
    /// A file with these flags under their own names, as TOML (`slots = 2`); what is typed or in the environment goes before it.
    #[arg(long, env = "MRPO_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A certificate in PEM, its chain behind it: the server then speaks HTTPS.
    #[arg(long, env = "MRPO_TLS_CERT", requires = "tls_key", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key in PEM.
    #[arg(long, env = "MRPO_TLS_KEY", requires = "tls_cert", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// A site whose pages may use the API from a browser. May be given several times, or with commas.
    #[arg(long, env = "MRPO_CORS_ORIGIN", value_delimiter = ',', value_name = "http(s)://HOST[:PORT]")]
    pub(crate) cors_origin: Vec<Origin>,
    /// How many requests a second one key may make, and twice as many at once.
    #[arg(long, env = "MRPO_REQUESTS_PER_SECOND", default_value = "200", value_name = "N")]
    pub(crate) requests_per_second: NonZeroU32,
    /// How many streams of events there are at once; one key has half of them at most. Each is a connection.
    #[arg(long, env = "MRPO_MAX_STREAMS", default_value_t = 2048, value_parser = max_streams, value_name = "N")]
    pub(crate) max_streams: usize,
    /// Where to send a span per request: a collector that speaks OTLP over HTTP. Headers for it are those of the variable
    /// `OTEL_EXPORTER_OTLP_HEADERS`.
    #[arg(long, env = "MRPO_OTLP_ENDPOINT", value_name = "http(s)://HOST[:PORT]")]
    pub(crate) otlp_endpoint: Option<String>,
    /// Listen on more than this machine although there are no keys yet: whoever reaches the port can read every file,
    /// run jobs and delete models.
    #[arg(long)]
    pub(crate) allow_unauthenticated: bool,
}

/// Below the limit of connections, so that streams leave room for requests.
fn max_streams(text: &str) -> Result<usize, String> {
    let n: usize = text.parse().map_err(|e| format!("{e}"))?;
    if n <= 3072 { Ok(n) } else { Err("at most 3072: the server has 4096 connections in all".to_owned()) }
}

/// What jobs compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Device {
    /// The processor.
    Cpu,
    /// One NVIDIA GPU per slot.
    Cuda,
}

/// `mrpo serve`, as used: checked, paths absolute.
#[derive(Debug, Clone)]
pub(crate) struct ServeConfig {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// What jobs compute on, if not on the processor.
    pub(crate) gpus: Option<Gpus>,
    /// How long a server that gives no sign of life keeps its runs.
    pub(crate) lease: Duration,
    /// Whether a port that other machines reach may be served before there are keys.
    pub(crate) allow_unauthenticated: bool,
    /// The collector of spans.
    pub(crate) otlp_endpoint: Option<String>,
    /// Certificate and key.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    /// What the API is allowed to do; `data_dir` is absolute.
    pub(crate) api: Settings,
}

impl ServeArgs {
    /// Checks what was typed.
    ///
    /// # Errors
    /// With the way out in words.
    pub(crate) fn resolve(self) -> Result<ServeConfig> {
        let gpus = match self.device {
            Device::Cpu => None,
            Device::Cuda => {
                device::has_kernels().context("--device cuda")?;
                Some(Gpus::find().context("--device cuda")?)
            }
        };
        let slots = match &gpus {
            None => self.slots.unwrap_or(1),
            Some(gpus) => {
                let names = gpus.names();
                let slots = self.slots.unwrap_or(u16::try_from(names.len())?);
                ensure!(
                    usize::from(slots) <= names.len(),
                    "--slots {slots} with --device cuda needs as many GPUs, and there are {}: {}",
                    names.len(),
                    names.join(", ")
                );
                slots
            }
        };
        let memory = match gpus.clone() {
            Some(gpus) => ReadMemory::new(move || Some(gpus.memory())),
            None => ReadMemory::new(host_memory),
        };
        ensure!(slots > 0, "--slots 0 would never run a job: give at least 1");
        ensure!(self.max_upload_bytes > 0, "--max-upload-bytes 0 would refuse every file");
        let data_dir = std::path::absolute(&self.data_dir)?;
        Ok(ServeConfig {
            listen: self.listen,
            gpus,
            lease: Duration::from_secs(self.lease_seconds.into()),
            allow_unauthenticated: self.allow_unauthenticated,
            otlp_endpoint: self.otlp_endpoint,
            tls: self.tls_cert.zip(self.tls_key),
            api: Settings {
                max_upload_bytes: self.max_upload_bytes,
                max_requests: MAX_REQUESTS,
                max_streams: self.max_streams,
                max_checks: MAX_CHECKS,
                allow_path_models: self.allow_path_models,
                origins: self.cors_origin,
                requests_per_second: Some(self.requests_per_second),
                remotes: AllowedHosts::new(self.allow_remote),
                webhook_hosts: AllowedHosts::new(self.allow_webhook),
                queue: QueueRules {
                    n_slots: slots,
                    max_running_per_user: self.max_running_per_user.map(NonZeroU32::get),
                    max_waiting_per_user: self.max_queued_per_user.map(NonZeroU32::get),
                    max_disk_bytes_per_user: self.max_disk_per_user.map(NonZeroU64::get),
                },
                disk: Disk::new(&data_dir, self.min_free_disk),
                retention: RetentionDefaults { keep_last: self.keep_checkpoints, keep_days: self.keep_days },
                memory,
                data_dir,
            },
        })
    }
}

/// An address without who it is for: what is printed is read by others.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    authority.rsplit_once('@').map_or_else(|| url.to_owned(), |(_, host)| format!("{scheme}://***@{host}{path}"))
}

/// The memory that jobs on the processor share.
fn host_memory() -> Option<JobMemory> {
    let (free_bytes, all_bytes) = (device::free_host_memory_bytes()?, device::host_memory_bytes()?);
    Some(JobMemory::Shared(DeviceMemory { device: "cpu".to_owned(), free_bytes, all_bytes }))
}

impl ServeArgs {
    /// What is used, as the lines of a configuration file.
    pub(crate) fn entries(&self) -> Vec<(&'static str, String)> {
        let quoted = |text: String| format!("{text:?}");
        let path = |path: &PathBuf| quoted(path.display().to_string());
        let list = |texts: Vec<String>| format!("{texts:?}");
        let mut entries = vec![
            ("listen", quoted(self.listen.to_string())),
            ("data-dir", path(&self.data_dir)),
            ("device", quoted(if self.device == Device::Cuda { "cuda".into() } else { "cpu".into() })),
            ("min-free-disk", self.min_free_disk.to_string()),
            ("max-upload-bytes", self.max_upload_bytes.to_string()),
            ("allow-path-models", self.allow_path_models.to_string()),
            ("allow-remote", list(self.allow_remote.clone())),
            ("allow-webhook", list(self.allow_webhook.clone())),
            ("cors-origin", list(self.cors_origin.iter().map(ToString::to_string).collect())),
            ("requests-per-second", self.requests_per_second.to_string()),
            ("max-streams", self.max_streams.to_string()),
            ("lease-seconds", self.lease_seconds.to_string()),
            ("allow-unauthenticated", self.allow_unauthenticated.to_string()),
        ];
        let limits = [
            ("slots", self.slots.map(u64::from)),
            ("max-running-per-user", self.max_running_per_user.map(|n| n.get().into())),
            ("max-queued-per-user", self.max_queued_per_user.map(|n| n.get().into())),
            ("max-disk-per-user", self.max_disk_per_user.map(NonZeroU64::get)),
            ("keep-checkpoints", self.keep_checkpoints.map(u64::from)),
            ("keep-days", self.keep_days.map(u64::from)),
        ];
        entries.extend(limits.into_iter().filter_map(|(name, limit)| Some((name, limit?.to_string()))));
        entries.extend(self.otlp_endpoint.iter().map(|url| ("otlp-endpoint", quoted(without_password(url)))));
        entries.extend(self.tls_cert.iter().map(|file| ("tls-cert", path(file))));
        entries.extend(self.tls_key.iter().map(|file| ("tls-key", path(file))));
        entries
    }
}

impl ServeConfig {
    /// Makes the data directory, and knows it by its real path from then on.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn make_data_dir(&mut self) -> Result<()> {
        fs_err::create_dir_all(&self.api.data_dir).context("the data directory cannot be made")?;
        self.api.data_dir = fs_err::canonicalize(&self.api.data_dir)?;
        Ok(())
    }

    /// Refuses a port that other machines reach where nobody would be asked for a key.
    ///
    /// # Errors
    /// With the ways out in words.
    pub(crate) fn check_listen(&self, has_keys: bool) -> Result<()> {
        ensure!(
            self.listen.ip().is_loopback() || has_keys || self.allow_unauthenticated,
            "{} can be reached from other machines, and there are no keys yet, so that nobody would be asked for one: make \
             the first with `mrpo keys create --user NAME --role admin --data-dir {}`, or listen on 127.0.0.1 and come through \
             a tunnel (ssh -L 8111:127.0.0.1:8111 HOST), or say --allow-unauthenticated if the network is trusted",
            self.listen,
            self.api.data_dir.display()
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn resolve(typed: &[&str]) -> Result<ServeConfig> {
        let dir = tempfile::tempdir().expect("temp dir");
        let data_dir = dir.path().join("data").display().to_string();
        let words = ["mrpo", "--data-dir", &data_dir].into_iter().chain(typed.iter().copied());
        Typed::try_parse_from(words).expect("parses").serve.resolve()
    }

    #[test]
    fn what_was_not_typed_has_its_default() {
        let config = resolve(&[]).expect("valid");
        assert_eq!(config.listen.to_string(), "127.0.0.1:8111");
        assert_eq!((config.api.queue.n_slots, config.gpus.is_none(), config.api.max_upload_bytes), (1, true, 8 << 30));
        assert!(config.api.allow_path_models && config.api.data_dir.is_absolute());
        assert!(!resolve(&["--allow-path-models=false"]).expect("valid").api.allow_path_models);
    }

    #[test]
    fn what_is_printed_is_a_configuration_file() {
        use clap::CommandFactory;
        let limits = ["--slots=2", "--max-running-per-user=1", "--max-queued-per-user=1", "--max-disk-per-user=1"];
        let kept = ["--keep-checkpoints=1", "--keep-days=1"];
        let words = ["mrpo", "--tls-cert=a", "--tls-key=b", "--cors-origin=https://a", "--otlp-endpoint=http://b"]
            .into_iter()
            .chain(limits)
            .chain(kept);
        let args = Typed::try_parse_from(words).expect("parses").serve;
        let text: String = args.entries().iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        let table: toml::Table = text.parse().expect("TOML");
        let command = Typed::command();
        let names = command.get_arguments().filter_map(clap::Arg::get_long).filter(|name| *name != "config");
        assert_eq!(names.count(), table.len(), "{text}");
        assert_eq!(table["cors-origin"][0].as_str(), Some("https://a"));
    }

    #[test]
    fn other_servers_are_called_only_if_named() {
        let remote = |text: &str| text.parse().expect("an address");
        assert!(!resolve(&[]).expect("valid").api.remotes.allow(&remote("http://localhost:1/v1")));
        let remotes = resolve(&["--allow-remote", "a,b:2", "--allow-remote", "c"]).expect("valid").api.remotes;
        for text in ["http://a:7/v1", "http://b:2/v1", "https://c/v1"] {
            assert!(remotes.allow(&remote(text)), "{text}");
        }
        assert!(!remotes.allow(&remote("http://b/v1")));
        let api = resolve(&["--allow-webhook", "hooks:1"]).expect("valid").api;
        assert!(
            api.webhook_hosts.allow(&remote("http://hooks:1/x")) && !api.remotes.allow(&remote("http://hooks:1/x"))
        );
    }

    #[test]
    fn an_entry_that_is_no_host_is_refused_and_a_password_is_not_printed() {
        for flag in ["--allow-remote", "--allow-webhook"] {
            let refused = Typed::try_parse_from(["mrpo", flag, "a,http://a.b/x"]).err().expect("refused").to_string();
            assert!(refused.contains("HOST:PORT") && refused.contains(flag), "{refused}");
        }
        for (url, shown) in [("http://u:p@c:1/x", "http://***@c:1/x"), ("http://c/a@b", "http://c/a@b")] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn an_open_port_without_keys_must_be_asked_for() {
        let check = |typed: &[&str], has_keys| resolve(typed).expect("valid").check_listen(has_keys);
        let open = ["--listen", "0.0.0.0:8111"];
        let refused = check(&open, false).expect_err("refused").to_string();
        assert!(refused.contains("mrpo keys create") && refused.contains("--allow-unauthenticated"), "{refused}");
        assert!(check(&open, true).is_ok());
        assert!(check(&["--listen", "0.0.0.0:8111", "--allow-unauthenticated"], false).is_ok());
        assert!(check(&["--listen", "[::1]:0"], false).is_ok());
        assert!(resolve(&["--slots", "0"]).is_err());
        assert_eq!(resolve(&["--lease-seconds", "2"]).expect("valid").lease, Duration::from_secs(2));
    }
}
