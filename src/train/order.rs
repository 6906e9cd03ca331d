//! In which order an epoch visits the pairs: a function of the seed and the epoch, so that a resumed run goes on in it.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// A permutation of `0..n` (Fisher–Yates).
pub fn epoch_order(n: usize, seed: u32, epoch_idx: u32) -> Vec<usize> {
    shuffled(n, seed, u64::from(epoch_idx))
}

/// `n_wanted` different numbers of `0..n` (or all of them), drawn after `n_done` steps.
pub fn subset(n: usize, n_wanted: usize, seed: u32, n_done: u64) -> Vec<usize> {
    // A stream of its own: an epoch's order has its number.
    let mut drawn = shuffled(n, seed, 1 << 41 | n_done);
    drawn.truncate(n_wanted);
    drawn
}

fn shuffled(n: usize, seed: u32, stream: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(u64::from(seed));
    rng.set_stream(stream);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        // The bias of a remainder of 64 bits is below 2^-40 for any dataset that fits a disk.
        order.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_visits_every_pair_once_in_its_own_order() {
        let first = epoch_order(100, 7, 0);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_eq!(first, epoch_order(100, 7, 0));
        assert_ne!(first, epoch_order(100, 7, 1));
        assert_ne!(first, epoch_order(100, 8, 0));
    }

    #[test]
    fn a_subset_holds_no_pair_twice_and_changes_from_step_to_step() {
        let mut drawn = subset(100, 30, 7, 3);
        assert_ne!(drawn, subset(100, 30, 7, 4));
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 30);
        assert_eq!(subset(5, 30, 7, 0).len(), 5);
    }
}
