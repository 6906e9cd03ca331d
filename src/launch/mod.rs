//! Where `mrpo run DIR` is started: a launcher starts a run's process, tells whether it lives, and stops it.
//!
//! A launcher keeps nothing that a restart would lose: whether a process lives is told by the lock of its run directory.

mod environment;
mod gpus;
mod local;

use std::io;

pub use self::{
    gpus::{GpuError, Gpus},
    local::Local,
};
use crate::run_dir::RunDir;

/// Where processes are started.
#[derive(Debug)]
pub enum Launcher {
    /// On this machine, as children of the server that outlive it.
    Local(Local),
}

/// What a process is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A fine-tuning run on a device slot, counted from 0.
    Train {
        /// The slot.
        slot: u16,
    },
    /// The registration of a model.
    Register,
    /// A question about a model.
    Inspect,
    /// A model written for other programs.
    Export,
}

/// Whether a run's process lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessStatus {
    /// It works, or was started and is about to.
    Live,
    /// It is gone.
    Gone {
        /// How it ended, in words, where that is known: not after a restart of the server.
        how: Option<String>,
    },
}

/// How urgently a process is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Save and stop (SIGTERM).
    Gently,
    /// End at once, with everything it started (SIGKILL to its group).
    AtOnce,
}

impl Launcher {
    /// What jobs compute on: `cpu` or `cuda`.
    pub fn device(&self) -> &'static str {
        match self {
            Self::Local(local) => local.device(),
        }
    }

    /// Starts a process in a run's directory, which has its `spec.json`.
    pub fn launch(&mut self, dir: &RunDir, work: Work) -> io::Result<()> {
        match self {
            Self::Local(local) => local.launch(dir, work),
        }
    }

    /// Tells whether a run's process lives.
    pub fn status(&mut self, dir: &RunDir) -> io::Result<ProcessStatus> {
        match self {
            Self::Local(local) => local.status(dir),
        }
    }

    /// Tells a run's process to stop. One that is gone already has obeyed.
    pub fn stop(&mut self, dir: &RunDir, how: Stop) -> io::Result<()> {
        match self {
            Self::Local(local) => local.stop(dir, how),
        }
    }
}
