//! The configuration, and the machine: devices, memory, open files, certificates.

use std::{num::NonZero, path::Path};

use mrpo::{
    http,
    launch::Gpus,
    model::device::{free_host_memory_bytes, host_memory_bytes},
};
use nix::sys::resource::{Resource, getrlimit};

use super::{Report, size};
use crate::config::{ServeArgs, ServeConfig};

/// Connections, streams and files of a busy server.
const MANY_FILES: u64 = 8192;
/// A certificate is to be renewed in so many days.
const SOON_DAYS: i64 = 14;
const DAY_S: i64 = 86_400;

/// What a server would be told; nothing where it would not start.
pub(super) fn config(args: ServeArgs, report: &mut Report) -> Option<ServeConfig> {
    let config = match args.resolve() {
        Ok(config) => config,
        Err(e) => {
            report.fail("config", format!("a server would not start: {e:#}"), "correct the flag or the file's entry");
            return None;
        }
    };
    report.ok("config", format!("valid; listens on {}, slots: {}", config.listen, config.api.queue.n_slots));
    if let Some((certificate, key)) = &config.tls {
        match http::tls(certificate, key) {
            Ok(_) => expiry(certificate, report),
            Err(e) => report.fail("certificate", format!("{e:#}"), "name files in PEM that belong together"),
        }
    }
    Some(config)
}

fn expiry(certificate: &Path, report: &mut Report) {
    let Some(expires_at) = http::certificate_expires_at(certificate) else {
        report.warn("certificate", "readable, but its end is not", "look at it: openssl x509 -noout -enddate -in FILE");
        return;
    };
    let days = (expires_at - mrpo::store::unix_now()).div_euclid(DAY_S);
    let to_do = "renew it, then restart the server: runs go on meanwhile";
    if days < 0 {
        report.fail("certificate", "it has expired", to_do);
    } else if days < SOON_DAYS {
        report.warn("certificate", format!("it expires in {days} days"), to_do);
    } else {
        report.ok("certificate", format!("readable, {days} days left"));
    }
}

/// Looks at what every server needs.
pub(super) fn look(report: &mut Report) {
    let n_cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    match Gpus::find() {
        Ok(gpus) if !gpus.names().is_empty() => {
            report.ok("devices", format!("{n_cores} cores, GPUs: {}", gpus.names().join(", ")));
        }
        // A machine without is none the worse: where a server is told to use one, its configuration fails.
        _ => report.ok("devices", format!("{n_cores} cores, no GPU")),
    }
    match (free_host_memory_bytes(), host_memory_bytes()) {
        (Some(free), Some(total)) if free < total / 20 => {
            let what = format!("{} free of {}", size(free), size(total));
            report.warn("memory", what, "jobs wait for memory: end what else takes it");
        }
        (Some(free), Some(total)) => report.ok("memory", format!("{} free of {}", size(free), size(total))),
        _ => report.warn("memory", "how much is free is not known", "jobs are started without regard to it"),
    }
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, most)) if most < MANY_FILES => {
            let to_do =
                format!("raise it (`ulimit -Hn {MANY_FILES}`, or LimitNOFILE= of the unit): each stream is a file");
            report.warn("open files", format!("at most {most}"), to_do);
        }
        Ok((_, most)) => report.ok("open files", format!("at most {most}")),
        Err(errno) => report.warn("open files", format!("the limit is not known: {errno}"), "look at `ulimit -Hn`"),
    }
}
