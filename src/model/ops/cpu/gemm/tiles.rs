//! How a product is cut into tiles that threads take one after the other.

use std::ops::Range;

/// Rows of a panel of the left factor: what a kernel keeps in registers.
pub(super) const PANEL_ROWS: usize = 14;
/// Columns of a panel of the right factor.
pub(super) const PANEL_COLS: usize = 32;

/// Tiles per thread, where there are panels enough: the last one to finish keeps the others waiting.
const TILES_PER_THREAD: usize = 2;

/// A grid of tiles: one panel of columns each, and a share of the panels of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tiles {
    row_panels: usize,
    by_rows: usize,
    by_cols: usize,
}

impl Tiles {
    /// Cuts panels for `n_threads`. Whoever computes a tile packs its panel of columns: rows are shared out only where there are too few
    /// columns for all threads.
    pub(super) fn new(row_panels: usize, col_panels: usize, n_threads: usize) -> Self {
        let wanted = if n_threads == 1 { 1 } else { (TILES_PER_THREAD * n_threads).div_ceil(col_panels) };
        Self { row_panels, by_rows: wanted.min(row_panels), by_cols: col_panels }
    }

    /// Number of tiles.
    pub(super) fn len(self) -> usize {
        self.by_rows * self.by_cols
    }

    /// The panels of rows of a tile, and its panel of columns: those of one share of the rows follow each other.
    pub(super) fn panels(self, tile: usize) -> (Range<usize>, usize) {
        let (share, column) = (tile / self.by_cols, tile % self.by_cols);
        (self.row_panels * share / self.by_rows..self.row_panels * (share + 1) / self.by_rows, column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_panel_once() {
        for (rows, cols, threads) in [(1, 1, 1), (75, 48, 2), (10, 1, 2), (1, 1, 16), (293, 18, 32)] {
            let tiles = Tiles::new(rows, cols, threads);
            let mut seen = vec![0; rows * cols];
            for tile in 0..tiles.len() {
                let (some_rows, column) = tiles.panels(tile);
                assert!(!some_rows.is_empty());
                for row in some_rows {
                    seen[row * cols + column] += 1;
                }
            }
            assert!(seen.iter().all(|n| *n == 1), "{rows}×{cols} on {threads}");
        }
    }
}
