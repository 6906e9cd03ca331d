//! `mrpo check-device`: what a device computes, and how fast.

use std::io::Write;

use anyhow::{Result, ensure};
use mrpo::device_check::check;

use super::run::keep_freed_memory;

/// Checks `device`. Findings are printed as they are made.
///
/// # Errors
/// If the device cannot be used, or computed something wrong.
pub(crate) fn check_device(device: &str, json: bool, only_accuracy: bool) -> Result<()> {
    keep_freed_memory();
    let (mut n_wrong, mut unwritten) = (0, None);
    check(device, only_accuracy, &mut |finding| {
        n_wrong += usize::from(!finding.is_good());
        let line = if json { serde_json::to_string(finding).expect("plain records") } else { finding.to_string() };
        if let Err(error) = writeln!(std::io::stdout(), "{line}") {
            unwritten.get_or_insert(error);
        }
    })?;
    if let Some(error) = unwritten {
        return Err(error.into());
    }
    ensure!(n_wrong == 0, "{n_wrong} results are wrong: do not train on this device, and report what stands above");
    Ok(())
}
