//! Collects numbers into a distribution, in memory that does not grow with how many there are.

use crate::domain::{Bin, Distribution};

/// Below this every number has a cell of its own.
const N_EXACT: u64 = 256;
/// From there on each doubling is cut into this many cells.
const N_CELLS: u64 = 128;

/// Numbers, counted by cell.
#[derive(Debug, Default)]
pub struct Counts {
    cells: Vec<u64>,
    /// Bin 0 holds 0, bin i the numbers from 2^(i-1) on and below 2^i.
    bins: Vec<u64>,
    n: u64,
    least: Option<u64>,
    greatest: u64,
}

impl Counts {
    /// Counts one more.
    pub fn add(&mut self, number: u64) {
        for (counts, place) in [(&mut self.cells, cell_of(number)), (&mut self.bins, bin_of(number))] {
            if place >= counts.len() {
                counts.resize(place + 1, 0);
            }
            counts[place] += 1;
        }
        self.n += 1;
        self.least = Some(self.least.map_or(number, |least| least.min(number)));
        self.greatest = self.greatest.max(number);
    }

    /// How they are distributed.
    pub fn distribution(&self) -> Distribution {
        let Some(min) = self.least else { return Distribution::default() };
        Distribution {
            min,
            median: self.quantile(50).max(min),
            p95: self.quantile(95).max(min),
            max: self.greatest,
            histogram: self.histogram(),
        }
    }

    /// The least number that so many of a hundred do not exceed, or rather the beginning of its cell.
    fn quantile(&self, percent: u64) -> u64 {
        let mut n_left = (self.n * percent).div_ceil(100);
        for (cell, n) in self.cells.iter().enumerate() {
            if *n >= n_left {
                return beginning_of(cell as u64);
            }
            n_left -= n;
        }
        self.greatest
    }

    fn histogram(&self) -> Vec<Bin> {
        let range = bin_of(self.least.unwrap_or(0))..=bin_of(self.greatest);
        let from = |bin: usize| if bin == 0 { 0 } else { 1 << (bin - 1) };
        range
            .map(|bin| Bin {
                from: from(bin),
                below: 1_u64.checked_shl(bin as u32).unwrap_or(u64::MAX),
                n: self.bins[bin],
            })
            .collect()
    }
}

fn bin_of(number: u64) -> usize {
    (u64::BITS - number.leading_zeros()) as usize
}

fn cell_of(number: u64) -> usize {
    if number < N_EXACT {
        return number as usize;
    }
    // How often N_EXACT was doubled, and where in that doubling the number stands.
    let doublings = u64::from(number.ilog2() - N_EXACT.ilog2());
    let place = (number >> (doublings + 1)) - N_CELLS;
    (N_EXACT + doublings * N_CELLS + place) as usize
}

fn beginning_of(cell: u64) -> u64 {
    if cell < N_EXACT {
        return cell;
    }
    let (doublings, place) = ((cell - N_EXACT) / N_CELLS, (cell - N_EXACT) % N_CELLS);
    (N_CELLS + place) << (doublings + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(numbers: impl IntoIterator<Item = u64>) -> Distribution {
        let mut counts = Counts::default();
        numbers.into_iter().for_each(|n| counts.add(n));
        counts.distribution()
    }

    #[test]
    fn small_numbers_are_exact() {
        let found = of(1..=100);
        assert_eq!((found.min, found.median, found.p95, found.max), (1, 50, 95, 100));
        let bins: Vec<_> = found.histogram.iter().map(|b| (b.from, b.below, b.n)).collect();
        assert_eq!(bins, [(1, 2, 1), (2, 4, 2), (4, 8, 4), (8, 16, 8), (16, 32, 16), (32, 64, 32), (64, 128, 37)]);
        assert_eq!(
            of([0, 3]).histogram.iter().map(|b| (b.from, b.below, b.n)).collect::<Vec<_>>(),
            [(0, 1, 1), (1, 2, 0), (2, 4, 1)]
        );
        assert_eq!(of([]), Distribution::default());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

        #[test]
        fn a_cell_begins_within_one_percent_of_its_numbers(number in any::<u64>(), shift in 0..64_u32) {
            let number = number >> shift;
            let beginning = beginning_of(cell_of(number) as u64);
            prop_assert!(beginning <= number && number - beginning <= number / 100);
            prop_assert_eq!(of([number]).max, number);
        }
    }
}
