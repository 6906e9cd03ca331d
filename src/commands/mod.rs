//! The subcommands, one file each.

pub(crate) mod backup;
pub(crate) mod check_device;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod keys;
pub(crate) mod models;
pub(crate) mod run;
pub(crate) mod serve;
mod telemetry;
