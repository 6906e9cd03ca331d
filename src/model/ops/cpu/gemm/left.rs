//! Packing of left factors: the kernel reads them number by number, so lines are only cut into blocks, none is turned.

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the instructions' own names say where they come from")
)]
use std::arch::x86_64::*;

use super::{
    Matrix,
    avx512::mask16,
    pack::{Layout, Stripe, pairs_of_lines, round, turn},
    tiles::PANEL_ROWS,
};
use crate::domain::Dtype;

/// Lanes of a row that lie side by side. Lane l of row i of a panel is at `l / BLOCK · (PANEL_ROWS · BLOCK) + i · BLOCK + l % BLOCK`.
pub(super) const BLOCK: usize = 16;

/// Packs the rows `(first, n)`, at most [`PANEL_ROWS`], and the columns `k` = (first, n) of `matrix`, rounded to `dtype`.
///
/// # Safety
/// They lie inside the matrix, of which one stride is 1; `out` has room for PANEL_ROWS rows of all lanes, whole blocks of them; the
/// processor has AVX-512 F, and BF16 for `dtype` bfloat16.
pub(super) unsafe fn panel(matrix: Matrix<'_>, rows: (usize, usize), k: (usize, usize), dtype: Dtype, out: *mut u32) {
    // SAFETY: the caller's promise.
    unsafe {
        match (Stripe::of(matrix, rows, k), dtype) {
            (Layout::Lines(stripe), Dtype::Float32) => lines_single(stripe, out),
            (Layout::Lines(stripe), Dtype::Bfloat16) => lines_half(stripe, out),
            (Layout::Columns(stripe), Dtype::Float32) => columns_single(stripe, out),
            (Layout::Columns(stripe), Dtype::Bfloat16) => columns_half(stripe, out),
        }
    }
}

/// A row after the other, each into its place in every block; `$load` (its first number, how many are left) makes 16 lanes.
macro_rules! lines {
    ($stripe:ident, $out:ident, $numbers_per_lane:literal, $load:expr) => {
        for i in 0..$stripe.n {
            let line = $stripe.from.wrapping_add(i * $stripe.stride);
            for (block, first) in (0..$stripe.k).step_by(BLOCK * $numbers_per_lane).enumerate() {
                let lanes = $load(line.wrapping_add(first * 4), $stripe.k - first);
                // SAFETY: whoever calls the function that this is in has promised room for whole blocks of every row.
                unsafe { _mm512_storeu_ps($out.add((block * PANEL_ROWS + i) * BLOCK).cast(), lanes) };
            }
        }
    };
}

/// # Safety
/// As of [`panel`].
#[target_feature(enable = "avx512f")]
unsafe fn lines_single(stripe: Stripe, out: *mut u32) {
    lines!(stripe, out, 1, |from: *const u8, left| {
        // SAFETY: only numbers before the line's end are loaded.
        unsafe { _mm512_maskz_loadu_ps(mask16(left), from.cast()) }
    });
}

/// # Safety
/// As of [`panel`].
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn lines_half(stripe: Stripe, out: *mut u32) {
    lines!(stripe, out, 2, |from: *const u8, left: usize| {
        // SAFETY: only numbers before the line's end are loaded, wherever the second address points.
        let (low, high) = unsafe {
            let high = _mm512_maskz_loadu_ps(mask16(left.saturating_sub(16)), from.wrapping_add(64).cast());
            (_mm512_maskz_loadu_ps(mask16(left), from.cast()), high)
        };
        _mm512_castsi512_ps(round(low, high))
    });
}

/// Lines lie side by side: 16 lanes of all rows are loaded and turned. `$load` (number of k, how many are left) makes one lane.
macro_rules! columns {
    ($stripe:ident, $out:ident, $numbers_per_lane:literal, $load:expr) => {
        for (block, first) in (0..$stripe.k).step_by(BLOCK * $numbers_per_lane).enumerate() {
            let mut rows = [_mm512_setzero_si512(); 16];
            for (l, lane) in rows.iter_mut().enumerate() {
                let k = first + l * $numbers_per_lane;
                if k < $stripe.k {
                    *lane = $load($stripe.from.wrapping_add(k * $stripe.stride), $stripe.k - k);
                }
            }
            turn(&mut rows);
            for (i, row) in rows.iter().enumerate().take($stripe.n) {
                // SAFETY: as of the rows above.
                unsafe { _mm512_storeu_epi32($out.add((block * PANEL_ROWS + i) * BLOCK).cast(), *row) };
            }
        }
    };
}

/// # Safety
/// As of [`panel`].
#[target_feature(enable = "avx512f")]
unsafe fn columns_single(stripe: Stripe, out: *mut u32) {
    columns!(stripe, out, 1, |from: *const u8, _left| {
        // SAFETY: only numbers of the stripe are loaded.
        unsafe { _mm512_maskz_loadu_epi32(mask16(stripe.n), from.cast()) }
    });
}

/// # Safety
/// As of [`panel`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn columns_half(stripe: Stripe, out: *mut u32) {
    columns!(stripe, out, 2, |from: *const u8, left| {
        // The last lane of an odd k has one number only: nothing of a line behind the end is loaded.
        let masks = (mask16(stripe.n), if left > 1 { mask16(stripe.n) } else { 0 });
        // SAFETY: only numbers of the stripe are loaded.
        unsafe { pairs_of_lines::<true>(from, stripe.stride, masks) }
    });
}
