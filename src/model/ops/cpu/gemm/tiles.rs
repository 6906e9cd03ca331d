//! How a product is cut into tiles that threads take one after the other.

use std::ops::Range;

/// Rows of a panel of the left factor: what a kernel keeps in registers.
pub(super) const PANEL_ROWS: usize = 14;
/// Columns of a panel of the right factor.
pub(super) const PANEL_COLS: usize = 32;

/// Most panels of rows in a tile: their part of the left factor stays in the second-level cache.
const MAX_ROW_PANELS: usize = 16;
/// Most panels of columns in a tile.
const MAX_COL_PANELS: usize = 8;
/// Tiles per thread, where there are panels enough: the last one to finish keeps the others waiting.
const TILES_PER_THREAD: usize = 6;

/// A grid of tiles over panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tiles {
    row_panels: usize,
    col_panels: usize,
    by_rows: usize,
    by_cols: usize,
}

impl Tiles {
    /// Cuts panels for `n_threads`.
    pub(super) fn new(row_panels: usize, col_panels: usize, n_threads: usize) -> Self {
        let by_cols = col_panels.div_ceil(MAX_COL_PANELS);
        let wanted = if n_threads == 1 { 1 } else { (TILES_PER_THREAD * n_threads).div_ceil(by_cols) };
        // A multiple of the threads' number, so that all finish together.
        let by_rows = row_panels.div_ceil(MAX_ROW_PANELS).max(wanted).next_multiple_of(n_threads).min(row_panels);
        Self { row_panels, col_panels, by_rows, by_cols }
    }

    /// Number of tiles.
    pub(super) fn len(self) -> usize {
        self.by_rows * self.by_cols
    }

    /// The panels of one tile.
    pub(super) fn panels(self, tile: usize) -> (Range<usize>, Range<usize>) {
        (self.row_share(tile % self.by_rows), self.col_share(tile / self.by_rows))
    }

    /// Number of shares the rows' panels are cut into.
    pub(super) fn by_rows(self) -> usize {
        self.by_rows
    }

    /// Number of shares the columns' panels are cut into.
    pub(super) fn by_cols(self) -> usize {
        self.by_cols
    }

    /// Panels of rows of one share.
    pub(super) fn row_share(self, i: usize) -> Range<usize> {
        share(self.row_panels, self.by_rows, i)
    }

    /// Panels of columns of one share.
    pub(super) fn col_share(self, i: usize) -> Range<usize> {
        share(self.col_panels, self.by_cols, i)
    }
}

/// Part `i` of `n` things cut into `parts` as equal as can be.
fn share(n: usize, parts: usize, i: usize) -> Range<usize> {
    n * i / parts..n * (i + 1) / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_panel_once() {
        for (rows, cols, threads) in [(1, 1, 1), (75, 48, 2), (10, 96, 2), (1, 1, 16), (293, 18, 3)] {
            let tiles = Tiles::new(rows, cols, threads);
            let mut seen = vec![0; rows * cols];
            for tile in 0..tiles.len() {
                let (some_rows, columns) = tiles.panels(tile);
                assert!(!some_rows.is_empty() && !columns.is_empty());
                for (row, column) in some_rows.flat_map(|r| columns.clone().map(move |c| (r, c))) {
                    seen[row * cols + column] += 1;
                }
            }
            assert!(seen.iter().all(|n| *n == 1), "{rows}×{cols} on {threads}");
        }
    }
}
