//! The data directory and its disk, and whether a server works there.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use mrpo::run_dir::Disk;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::statvfs::statvfs,
    unistd::{AccessFlags, access},
};

use super::{Report, size};

/// Folders between which files are renamed.
const FOLDERS: [&str; 4] = ["tmp", "files", "uploads", "runs"];
/// Fewer inodes than this are few.
const FEW_INODES: u64 = 10_000;
/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether there is a data directory to look into.
pub(super) fn look(data_dir: &Path, reserve_bytes: u64, report: &mut Report) -> bool {
    let shown = data_dir.display();
    let metadata = match std::fs::metadata(data_dir) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => {
            report.fail("data dir", format!("{shown} is no directory"), "name another with --data-dir");
            return false;
        }
        Err(e) => {
            report.warn("data dir", format!("{shown}: {e}"), "`mrpo serve` makes it, or name another with --data-dir");
            return false;
        }
    };
    let mode = metadata.mode() & 0o7777;
    if let Err(errno) = access(data_dir, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK) {
        let to_do = "run the server and this command as its owner, or mount it writable";
        report.fail("data dir", format!("{shown} cannot be written by this user: {errno}"), to_do);
    } else if mode & 0o022 != 0 {
        report.warn("data dir", format!("{shown} can be written by other users (mode {mode:o})"), "chmod go-w");
    } else {
        report.ok("data dir", format!("{shown} can be written, mode {mode:o}"));
    }
    let others = FOLDERS.map(|name| data_dir.join(name));
    let elsewhere = others.iter().filter(|path| path.metadata().is_ok_and(|other| other.dev() != metadata.dev()));
    let elsewhere: Vec<String> = elsewhere.map(|path| path.display().to_string()).collect();
    if elsewhere.is_empty() {
        report.ok("filesystem", "all folders lie on one filesystem");
    } else {
        let what = format!("on another filesystem: {}", elsewhere.join(", "));
        report.fail("filesystem", what, "files are renamed between the folders: put all on one filesystem");
    }
    disk(data_dir, reserve_bytes, report);
    true
}

fn disk(data_dir: &Path, reserve_bytes: u64, report: &mut Report) {
    let disk = Disk::new(data_dir, reserve_bytes);
    match disk.space() {
        Err(e) => report.warn("disk", e.to_string(), "look at `df`"),
        Ok(space) => {
            let what = format!("{} free of {}", size(space.free_bytes), size(space.total_bytes));
            let reserve = size(reserve_bytes);
            if disk.is_low_at(space.free_bytes) {
                let to_do =
                    format!("the server keeps {reserve} free and refuses uploads below: delete files, exports or runs");
                report.fail("disk", what, to_do);
            } else if disk.is_low_at(space.free_bytes / 2) {
                report.warn(
                    "disk",
                    what,
                    format!("at {reserve} the server refuses uploads and starts no job: make room"),
                );
            } else {
                report.ok("disk", what);
            }
        }
    }
    // Some filesystems count none.
    match statvfs(data_dir) {
        Ok(counts) if counts.files() > 0 && counts.files_available() < FEW_INODES => {
            let what = format!("{} inodes left of {}", counts.files_available(), counts.files());
            report.warn(
                "inodes",
                what,
                "files cannot be made without: delete many small ones, or use a larger filesystem",
            );
        }
        Ok(counts) if counts.files() > 0 => report.ok("inodes", format!("{} left", counts.files_available())),
        _ => {}
    }
}

/// Whether a server holds the directory; and whether it answers where it should.
pub(super) fn server(data_dir: &Path, listen: SocketAddr, has_tls: bool, report: &mut Report) -> bool {
    let is_served = match File::open(data_dir.join("server.lock")) {
        // Shared, and for a moment: whoever holds it holds it alone.
        Ok(file) => matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK))),
        Err(_) => false,
    };
    if !is_served {
        report.ok("server", "no server works in this directory");
        return false;
    }
    let way = "give its address (--listen or --config) to have it asked";
    if listen.port() == 0 {
        report.warn("server", "a server works in this directory, at a port that is not known", way);
        return true;
    }
    let mut address = listen;
    if listen.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let answer = if has_tls { connects(address) } else { is_ready(address) };
    match answer {
        Ok(what) => report.ok("server", format!("a server works in this directory; {address} {what}")),
        Err(why) => {
            let to_do = format!("{way}; restart it if that is the right one");
            report.fail("server", format!("a server works in this directory, but {address} {why}"), to_do);
        }
    }
    true
}

fn connects(address: SocketAddr) -> Result<String, String> {
    TcpStream::connect_timeout(&address, PATIENCE).map_err(|e| format!("does not answer: {e}"))?;
    Ok("takes connections".to_owned())
}

fn is_ready(address: SocketAddr) -> Result<String, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let mut answer =
        agent.get(format!("http://{address}/readyz")).call().map_err(|e| format!("does not answer /readyz: {e}"))?;
    if answer.status().is_success() {
        return Ok("is ready".to_owned());
    }
    let body: serde_json::Value = answer.body_mut().with_config().limit(64 << 10).read_json().unwrap_or_default();
    Err(format!("is not ready: {}", body["detail"].as_str().unwrap_or("it does not say why")))
}
