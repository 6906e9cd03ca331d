//! What a run's process is told of the server's environment: what it needs by name, nothing else, so no stray key of the
//! server's ends up in a run.

use std::ffi::{OsStr, OsString};

use super::Work;

/// What every process may need.
const FOR_ALL: &[&str] = &[
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "RAYON_NUM_THREADS",
    "OMP_NUM_THREADS",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_HOME",
];

/// What fetching a model needs besides: caches, mirrors, proxies, certificates, and the token of the hub.
const FOR_FETCHING: &[&str] = &[
    "XDG_CACHE_HOME",
    "VIRTUAL_ENV",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "MRPO_PIP",
];

/// What asking another server needs: keys, one per model or one for all, and how patient to be.
const FOR_REMOTES: &str = "MRPO_REMOTE_";

/// The same, by how the name begins.
const FOR_FETCHING_FAMILIES: &[&str] = &["HF_", "PIP_"];

/// The part of an environment that a process for this work gets.
pub(super) fn inherited(
    work: Work,
    all: impl Iterator<Item = (OsString, OsString)>,
) -> impl Iterator<Item = (OsString, OsString)> {
    all.filter(move |(name, _)| is_needed(work, name))
}

fn is_needed(work: Work, name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    FOR_ALL.contains(&name)
        || matches!(work, Work::Train { .. } | Work::Register) && name.starts_with(FOR_REMOTES)
        || work == Work::Register
            && (FOR_FETCHING.contains(&name) || FOR_FETCHING_FAMILIES.iter().any(|family| name.starts_with(family)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_gets_the_keys_of_remotes_alone_and_a_registration_those_of_fetching() {
        let all =
            ["PATH", "MRPO_REMOTE_KEY_JUDGE", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PIP_INDEX_URL", "https_proxy"];
        let names = |work| {
            let pairs = all.iter().map(|name| (OsString::from(name), OsString::from("x")));
            inherited(work, pairs).map(|(name, _)| name.into_string().expect("text")).collect::<Vec<_>>()
        };
        assert_eq!(names(Work::Train { slot: 0 }), ["PATH", "MRPO_REMOTE_KEY_JUDGE"]);
        assert_eq!((names(Work::Inspect), names(Work::Export)), (vec!["PATH".to_owned()], vec!["PATH".to_owned()]));
        assert_eq!(
            names(Work::Register),
            ["PATH", "MRPO_REMOTE_KEY_JUDGE", "HF_TOKEN", "PIP_INDEX_URL", "https_proxy"]
        );
    }
}
