//! `mrpo run`: one run, in this process.

use std::path::Path;

use anyhow::{Result, ensure};
use mrpo::{
    model::ops::{operation_times, time_operations},
    run_dir::RunDir,
};

/// Executes the run in `directory` on `device`. With `op_times` it tells afterwards where the seconds went.
pub(crate) fn run(directory: &Path, device: &str, op_times: bool) -> Result<()> {
    let run = RunDir::new(directory);
    ensure!(
        run.root().join("spec.json").is_file(),
        "{} is not a run's directory: it has no spec.json",
        directory.display()
    );
    keep_freed_memory();
    if op_times {
        time_operations();
    }
    mrpo::run::execute(&run, device)?;
    if let Some(table) = operation_times() {
        eprint!("{table}");
    }
    Ok(())
}

/// A step needs what the step before has freed: giving it back to the kernel in between costs a tenth of the time.
pub(super) fn keep_freed_memory() {
    // `mi_option_purge_delay` of mimalloc.h (versions 2 and 3), which the crate has no name for; -1: never.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: the call sets one number of the allocator this binary is linked with; any thread may do so at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}
