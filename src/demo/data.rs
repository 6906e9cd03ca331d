//! The demo's preference pairs, made by `scripts/make_demo_data.py`, and their place on disk.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Pairs to train on.
pub(super) const N_TRAIN: usize = 256;
/// Held-out pairs.
pub(super) const N_VALIDATION: usize = 64;
/// How long the server may take to check one of the files.
pub(super) const CHECK_LIMIT: Duration = Duration::from_mins(1);

const TRAIN: &str = include_str!("train.jsonl");
const VALIDATION: &str = include_str!("validation.jsonl");

/// Where the two files lie.
pub(super) struct DataFiles {
    pub(super) train: PathBuf,
    pub(super) validation: PathBuf,
}

/// Writes both files below `data_dir`, so that the printed curl lines have something to upload.
pub(super) fn write(data_dir: &Path) -> io::Result<DataFiles> {
    let files = DataFiles { train: data_dir.join("train.jsonl"), validation: data_dir.join("validation.jsonl") };
    fs_err::write(&files.train, TRAIN)?;
    fs_err::write(&files.validation, VALIDATION)?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, process::Command};

    use super::*;

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pair {
        prompt: String,
        chosen: String,
        rejected: String,
    }

    fn pairs(text: &str) -> Vec<Pair> {
        text.lines().map(|line| serde_json::from_str(line).expect("a pair")).collect()
    }

    fn n_words(text: &str) -> usize {
        text.split_whitespace().count()
    }

    #[test]
    fn the_sets_are_as_large_as_promised_and_share_no_prompt() {
        let (train, validation) = (pairs(TRAIN), pairs(VALIDATION));
        assert_eq!((train.len(), validation.len()), (N_TRAIN, N_VALIDATION));
        let prompts: BTreeSet<_> = train.iter().chain(&validation).map(|p| &p.prompt).collect();
        assert_eq!(prompts.len(), N_TRAIN + N_VALIDATION);
    }

    #[test]
    fn every_chosen_side_keeps_the_rule_and_no_rejected_side_does() {
        for pair in pairs(TRAIN).into_iter().chain(pairs(VALIDATION)) {
            assert!(pair.chosen.to_lowercase().contains("next step: "), "{}", pair.chosen);
            assert!(!pair.rejected.to_lowercase().contains("next step"), "{}", pair.rejected);
        }
    }

    #[test]
    fn length_does_not_tell_the_sides_apart() {
        let all: Vec<_> = pairs(TRAIN).into_iter().chain(pairs(VALIDATION)).collect();
        let chosen: usize = all.iter().map(|p| n_words(&p.chosen)).sum();
        let rejected: usize = all.iter().map(|p| n_words(&p.rejected)).sum();
        assert!(chosen.abs_diff(rejected) * 2 < all.len(), "{chosen} and {rejected} words in {} pairs", all.len());
    }

    #[test]
    fn the_committed_files_are_what_the_script_writes() {
        // Only where there is a Python: the product needs none.
        if Command::new("python3").arg("--version").output().is_err() {
            return;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/make_demo_data.py");
        let check = Command::new("python3").arg(script).arg("--check").output().expect("python3 starts");
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    }
}
