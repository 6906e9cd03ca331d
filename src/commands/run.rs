//! `mrpo run`: one run, in this process.

use std::path::Path;

use anyhow::{Result, ensure};
use mrpo::run_dir::RunDir;

/// Executes the run in `directory` on `device`.
pub(crate) fn run(directory: &Path, device: &str) -> Result<()> {
    let run = RunDir::new(directory);
    ensure!(
        run.root().join("spec.json").is_file(),
        "{} is not a run's directory: it has no spec.json",
        directory.display()
    );
    mrpo::run::execute(&run, device)
}
