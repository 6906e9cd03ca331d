//! Processes on this machine. Each is the leader of a session of its own, so neither the server's end nor the terminal's
//! reaches it.

use std::{
    collections::HashMap,
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill, killpg},
    unistd::{Pid, setsid},
};

use super::{Gpus, ProcessStatus, Stop, Work, environment, gpus};
use crate::run_dir::RunDir;

/// Starts processes on this machine.
#[derive(Debug)]
pub struct Local {
    program: PathBuf,
    /// Those of the slots; none: the processor.
    gpus: Option<Gpus>,
    /// By run directory: this server's own children. They are waited for, or they would stay as zombies; and until one has
    /// taken its lock, only its handle tells that it lives.
    children: HashMap<PathBuf, Child>,
}

impl Local {
    /// A launcher that computes on the processor. `program` is called as `program run DIR --device cpu`.
    pub fn on_cpu(program: PathBuf) -> Self {
        Self { program, gpus: None, children: HashMap::new() }
    }

    /// A launcher whose slots compute on GPUs.
    pub fn on_gpus(program: PathBuf, gpus: Gpus) -> Self {
        Self { program, gpus: Some(gpus), children: HashMap::new() }
    }

    pub(super) fn device(&self) -> &'static str {
        if self.gpus.is_some() { "cuda" } else { "cpu" }
    }

    pub(super) fn launch(&mut self, dir: &RunDir, work: Work) -> io::Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.stderr())?;
        let gpu = match work {
            Work::Train { slot } => self.gpus.as_ref().and_then(|gpus| gpus.uuid(slot)),
            _ => None,
        };
        let mut command = Command::new(&self.program);
        command
            .arg("run")
            .arg(dir.root())
            .args(["--device", if gpu.is_some() { "cuda" } else { "cpu" }])
            .current_dir(dir.root())
            .env_clear()
            .envs(environment::inherited(work, std::env::vars_os()))
            .envs(gpu.map(|uuid| (gpus::VISIBLE, uuid)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // SAFETY: between fork and exec only `setsid` is called, which is async-signal-safe and allocates nothing.
        unsafe {
            command.pre_exec(|| setsid().map(drop).map_err(io::Error::from));
        }
        self.children.insert(dir.root().to_owned(), command.spawn()?);
        Ok(())
    }

    pub(super) fn status(&mut self, dir: &RunDir) -> io::Result<ProcessStatus> {
        let mut how = None;
        if let Some(child) = self.children.get_mut(dir.root()) {
            match child.try_wait()? {
                None => return Ok(ProcessStatus::Live),
                Some(status) => how = Some(in_words(status)),
            }
            self.children.remove(dir.root());
        }
        // Not a child of this server, or one that is gone. Its lock cannot be mistaken for another's, as a pid can.
        Ok(if dir.is_live()? { ProcessStatus::Live } else { ProcessStatus::Gone { how } })
    }

    pub(super) fn stop(&mut self, dir: &RunDir, how: Stop) -> io::Result<()> {
        // A child that has not been waited for keeps its pid; another's pid counts only while it holds the lock.
        let pid = match self.children.get(dir.root()) {
            Some(child) => Some(child.id()),
            None => dir.holder()?,
        };
        let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw) else { return Ok(()) };
        let sent = match how {
            Stop::Gently => kill(pid, Signal::SIGTERM),
            // Started by hand it leads no group of its own.
            Stop::AtOnce => killpg(pid, Signal::SIGKILL).or_else(|_| kill(pid, Signal::SIGKILL)),
        };
        match sent {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (_, Some(9)) => "it was killed (signal 9): often for want of memory".to_owned(),
        (_, Some(signal)) => format!("it was ended by signal {signal}"),
        (Some(code), None) => format!("it ended with code {code}"),
        (None, None) => "it ended in an unknown way".to_owned(),
    }
}
