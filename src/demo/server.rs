//! The server the demo starts: a child of this very program, stopped when the demo ends, however it ends.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{client::Client, interrupt::Interrupt};

/// What the server writes before its address, once it is bound.
const ANNOUNCEMENT: &str = "listening on ";
/// How long it may take to bind and to become ready.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to end after SIGTERM, before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// How many lines of its log an error shows.
const N_LOG_LINES: usize = 15;

/// A running server.
pub(super) struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Starts `mrpo serve` on a free port of this machine and waits until it is ready.
    pub(super) fn start(data_dir: &Path, interrupt: &Interrupt) -> Result<Self> {
        let log = data_dir.join("server.log");
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut child = Command::new(program)
            .arg("serve")
            .args(["--listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs_err::File::create(&log)?.into_file())
            // Its own group: Control-C reaches the demo alone, which cancels its job before it stops the server.
            .process_group(0)
            .spawn()
            .context("cannot start the server")?;
        let lines = read_lines(child.stdout.take().context("the server's stdout is not piped")?)?;
        let mut server = Self { child, address: String::new() };
        server.address = interrupt
            .poll("the server's address", START_LIMIT, || server.announced(&lines))
            .with_context(|| log_tail(&log))?;
        let client = Client::new(server.address());
        interrupt
            .poll("the server to be ready", START_LIMIT, || Ok(client.is_ready().then_some(())))
            .with_context(|| log_tail(&log))?;
        Ok(server)
    }

    /// Its address, as `http://127.0.0.1:PORT`.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The address if it has been announced by now; an error if the server ended instead.
    fn announced(&mut self, lines: &Receiver<String>) -> Result<Option<String>> {
        if let Some(address) = lines.try_iter().find_map(|line| address_in(&line)) {
            return Ok(Some(address));
        }
        if let Some(status) = self.child.try_wait()? {
            bail!("the server ended ({status}) before it listened");
        }
        Ok(None)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A failure means that it has ended already.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let asked = Instant::now();
        while asked.elapsed() < STOP_LIMIT {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the server's stdout to its end, so that it never blocks on a full pipe.
fn read_lines(stdout: ChildStdout) -> Result<Receiver<String>> {
    let (sender, lines) = mpsc::channel();
    thread::Builder::new().name("server stdout".into()).spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(std::io::Result::ok) {
            // Nobody listens after the address came; the rest is read and dropped.
            let _ = sender.send(line);
        }
    })?;
    Ok(lines)
}

fn address_in(line: &str) -> Option<String> {
    let (_, address) = line.split_once(ANNOUNCEMENT)?;
    let address = address.split_whitespace().next()?;
    address.starts_with("http://").then(|| address.trim_end_matches('/').to_owned())
}

/// The end of the server's log, for an error.
fn log_tail(log: &PathBuf) -> String {
    let text = fs_err::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(N_LOG_LINES)..].join("\n");
    format!("the server did not start; the end of {}:\n{tail}", log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_taken_from_the_announcement_only() {
        assert_eq!(address_in("listening on http://127.0.0.1:40123"), Some("http://127.0.0.1:40123".into()));
        assert_eq!(address_in("opening ./mrpo-demo/mrpo.sqlite"), None);
        assert_eq!(address_in("listening on "), None);
    }
}
