//! How much a packed file may unpack to.

use super::refusal::Refusal;

/// The most bytes that one file is unpacked to.
const MAX_UNPACKED_BYTES: u64 = 8 << 30;
/// How many bytes each packed byte may become. Text packs to a tenth, the same prompt over and over to a fiftieth.
const MAX_RATIO: u64 = 100;
/// What may be unpacked whatever the ratio: small files of equal rows pack well.
const FREE_BYTES: u64 = 64 << 20;

/// Counts what has been unpacked.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    spent: u64,
}

impl Budget {
    /// That of a file of so many bytes as it is packed.
    pub(super) fn of(n_packed: u64) -> Self {
        Self { limit: n_packed.saturating_mul(MAX_RATIO).clamp(FREE_BYTES, MAX_UNPACKED_BYTES), spent: 0 }
    }

    /// Counts `n_bytes` more; refuses what goes beyond the limit.
    pub(super) fn spend(&mut self, n_bytes: u64) -> Result<(), Refusal> {
        self.spent = self.spent.saturating_add(n_bytes);
        if self.spent <= self.limit {
            return Ok(());
        }
        let message = format!(
            "the file unpacks to more than {} MiB; it may have {MAX_RATIO} times the bytes it is packed in, and {} GiB in all: \
             split it, or upload it unpacked",
            self.limit >> 20,
            MAX_UNPACKED_BYTES >> 30
        );
        Err(Refusal::new("unpacks_to_too_much", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_may_grow_and_large_ones_by_the_ratio() {
        let most = |n_packed| Budget::of(n_packed).limit;
        assert_eq!(most(20), 64 << 20);
        assert_eq!(most(1 << 20), 100 << 20);
        assert_eq!(most(1 << 40), 8 << 30);
        let mut budget = Budget::of(20);
        assert!(budget.spend(64 << 20).is_ok());
        assert_eq!(budget.spend(1).expect_err("refused").code, "unpacks_to_too_much");
    }
}
