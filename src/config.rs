//! The server's configuration, in two stages: what was typed ([`ServeArgs`]), then what is used ([`ServeConfig`]).

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::Args;
use mrpo::{domain::AllowedRemotes, http::Settings};

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
    /// How many jobs run at once. A slot is one GPU, or on the CPU one run with all cores.
    #[arg(long, env = "MRPO_SLOTS", default_value_t = 1, value_name = "N")]
    pub(crate) slots: u16,
    /// What jobs compute on: `cpu`, or `cuda`: slot N takes GPU N.
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
    #[arg(long, env = "MRPO_ALLOW_REMOTE", value_delimiter = ',', value_name = "HOST[:PORT]")]
    pub(crate) allow_remote: Vec<String>,
    /// After how long without a sign of life of this server the next one may take its runs over. Nothing is lost in the
    /// meantime: runs go on without a server.
    #[arg(long, env = "MRPO_LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=3600),
          value_name = "SECONDS")]
    pub(crate) lease_seconds: u32,
    /// How many requests a second one key may make, and twice as many at once.
    #[arg(long, env = "MRPO_REQUESTS_PER_SECOND", default_value = "200", value_name = "N")]
    pub(crate) requests_per_second: NonZeroU32,
    /// Listen on more than this machine although there are no keys yet: whoever reaches the port can read every file,
    /// run jobs and delete models.
    #[arg(long)]
    pub(crate) allow_unauthenticated: bool,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServeConfig {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// Jobs at once, at least 1.
    pub(crate) slots: u16,
    /// What jobs compute on.
    pub(crate) device: Device,
    /// How long a server that gives no sign of life keeps its runs.
    pub(crate) lease: Duration,
    /// Whether a port that other machines reach may be served before there are keys.
    pub(crate) allow_unauthenticated: bool,
    /// What the API is allowed to do; `data_dir` is absolute and exists.
    pub(crate) api: Settings,
}

impl ServeArgs {
    /// Checks what was typed and makes the data directory.
    ///
    /// # Errors
    /// With the way out in words.
    pub(crate) fn resolve(self) -> Result<ServeConfig> {
        if self.device == Device::Cuda {
            let names = mrpo::model::device::gpu_names().context("--device cuda")?;
            ensure!(
                usize::from(self.slots) <= names.len(),
                "--slots {} with --device cuda needs as many GPUs, and this machine has {}: {}",
                self.slots,
                names.len(),
                names.join(", ")
            );
        }
        ensure!(self.slots > 0, "--slots 0 would never run a job: give at least 1");
        ensure!(self.max_upload_bytes > 0, "--max-upload-bytes 0 would refuse every file");
        fs_err::create_dir_all(&self.data_dir).context("the data directory cannot be made")?;
        let data_dir = fs_err::canonicalize(&self.data_dir)?;
        Ok(ServeConfig {
            listen: self.listen,
            slots: self.slots,
            device: self.device,
            lease: Duration::from_secs(self.lease_seconds.into()),
            allow_unauthenticated: self.allow_unauthenticated,
            api: Settings {
                data_dir,
                max_upload_bytes: self.max_upload_bytes,
                max_requests: MAX_REQUESTS,
                max_checks: MAX_CHECKS,
                allow_path_models: self.allow_path_models,
                requests_per_second: Some(self.requests_per_second),
                remotes: AllowedRemotes::new(self.allow_remote),
            },
        })
    }
}

impl ServeConfig {
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
        assert_eq!((config.slots, config.device, config.api.max_upload_bytes), (1, Device::Cpu, 8 << 30));
        assert!(config.api.allow_path_models && config.api.data_dir.is_absolute());
        assert!(!resolve(&["--allow-path-models=false"]).expect("valid").api.allow_path_models);
    }

    #[test]
    fn other_servers_are_called_only_if_named() {
        let remote = |text: &str| text.parse().expect("an address");
        assert!(!resolve(&[]).expect("valid").api.remotes.allow(&remote("http://localhost:1/v1#x")));
        let remotes = resolve(&["--allow-remote", "a,b:2", "--allow-remote", "c"]).expect("valid").api.remotes;
        for text in ["http://a:7/v1#x", "http://b:2/v1#x", "https://c/v1#x"] {
            assert!(remotes.allow(&remote(text)), "{text}");
        }
        assert!(!remotes.allow(&remote("http://b/v1#x")));
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
