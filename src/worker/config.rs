//! How a worker works.

use std::{path::PathBuf, time::Duration};

use crate::{
    domain::{AllowedHosts, QueueRules, ReadMemory},
    run_dir::Disk,
};

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Where everything lies; absolute.
    pub data_dir: PathBuf,
    /// How many jobs run at once, one per device, and whose.
    pub queue: QueueRules,
    /// Asked how much memory there is before a job is started.
    pub memory: ReadMemory,
    /// The disk that everything is kept on: nothing is started where it is low.
    pub disk: Disk,
    /// How many models are fetched at once.
    pub n_registrations: u16,
    /// How many questions about models are answered at once.
    pub n_inspections: u16,
    /// How many models are written for other programs at once.
    pub n_exports: u16,
    /// The other servers that runs may ask.
    pub remotes: AllowedHosts,
    /// The servers whose webhooks may be called.
    pub webhook_hosts: AllowedHosts,
    /// How long a process that was told to stop may take to save its state, before it is killed.
    pub grace: Duration,
    /// How long a worker that gives no sign of life keeps its runs.
    pub lease: Duration,
    /// How often it looks.
    pub interval: Duration,
    /// How often in a row a run may die, without a checkpoint in between, before it has failed. Counted by checkpoints, not by
    /// steps: a run that dies at step 7 every time, and saves at step 10, would otherwise be started for ever.
    pub max_deaths: u32,
}

impl WorkerConfig {
    /// The usual ways.
    pub fn new(data_dir: PathBuf, n_slots: u16) -> Self {
        Self {
            disk: Disk::new(&data_dir, 0),
            data_dir,
            queue: QueueRules::new(n_slots),
            memory: ReadMemory::unknown(),
            n_registrations: 2,
            n_inspections: 2,
            // The processor's and the disk's work: side by side none would be sooner.
            n_exports: 1,
            remotes: AllowedHosts::default(),
            webhook_hosts: AllowedHosts::default(),
            grace: Duration::from_mins(1),
            lease: Duration::from_secs(15),
            interval: Duration::from_millis(250),
            max_deaths: 3,
        }
    }
}
