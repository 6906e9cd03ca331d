//! Products on AVX-512: factors are packed into panels of 32-bit lanes, and one kernel multiplies a panel by a panel in registers.
//!
//! A lane holds one float32 or two neighbouring bfloat16 along k, so that both precisions share everything but two
//! instructions: `vfmadd231ps` and, at twice the rate, `vdpbf16ps` (both multiply and accumulate in float32).

use std::{arch::x86_64::*, cell::RefCell};

use rayon::prelude::*;

use super::{
    Element, How, Matrix, Target, Threads,
    pack::{self, Lanes},
    tiles::{PANEL_COLS, PANEL_ROWS, Tiles},
};
use crate::domain::Dtype;

/// Lanes of k that are packed at once.
const K_LANES: usize = 768;
/// Columns that are packed at once.
const N_AT_ONCE: usize = 3_072;
/// A product of fewer multiplications is not worth waking another thread for.
const PARALLEL_FROM: usize = 1 << 20;
/// Numbers of a vector.
const VECTOR: usize = 16;

thread_local! {
    /// Packed panels of the last product, kept for the next one.
    static PANELS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// Whether this processor has the instructions.
pub(super) fn serves(dtype: Dtype) -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && (dtype == Dtype::Float32 || is_x86_feature_detected!("avx512bf16"))
}

/// A pointer that several threads write through, each to places of its own.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: whoever dereferences it promises that no two threads touch the same place.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// # Safety
    /// `offset` lies inside what the pointer was made of.
    unsafe fn at(self, offset: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

/// A part of a product whose panels fit the buffers: a range of k, and a range of columns.
struct Part<'a, B> {
    a: Matrix<'a>,
    b: Matrix<'a, B>,
    how: How,
    k: (usize, usize),
    columns: (usize, usize),
    row_stride: usize,
    add: bool,
}

/// See [`super::product`], which has checked the sizes; `k` is not 0. Only if [`serves`] says so.
pub(super) fn product<B: Element>(target: Target<'_>, a: Matrix<'_>, b: Matrix<'_, B>, how: How) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    let lanes_of = if how.dtype == Dtype::Float32 { 1 } else { 2 };
    let k_lanes = K_LANES.min(k.div_ceil(lanes_of));
    let n_at_once = N_AT_ONCE.min(n.next_multiple_of(PANEL_COLS));
    let a_lanes = m.next_multiple_of(PANEL_ROWS) * k_lanes;
    let mut buffer = PANELS.take();
    let n_needed = a_lanes + n_at_once * k_lanes + 2 * VECTOR;
    if buffer.len() < n_needed {
        buffer = vec![0; n_needed];
    }
    // The kernel loads whole vectors of the right factor: none may straddle two cache lines.
    let start = buffer.as_ptr().align_offset(64).min(VECTOR);
    let (b_panels, a_panels) = buffer[start..].split_at_mut(n_at_once * k_lanes);
    let panels = (Shared(a_panels.as_mut_ptr()), Shared(b_panels.as_mut_ptr()));
    let numbers = Shared(target.numbers.as_mut_ptr());
    for k_start in (0..k).step_by(k_lanes * lanes_of) {
        let k_len = (k_lanes * lanes_of).min(k - k_start);
        for first in (0..n).step_by(n_at_once) {
            let part = Part {
                a,
                b,
                how,
                k: (k_start, k_len),
                columns: (first, n_at_once.min(n - first)),
                row_stride: target.row_stride,
                add: target.add || k_start > 0,
            };
            // SAFETY: the buffers hold the panels of one part; the factors and the target hold m × k, k × n and m × n numbers.
            unsafe { part.compute(numbers, panels, first == 0) };
        }
    }
    PANELS.set(buffer);
}

impl<B: Element> Part<'_, B> {
    /// # Safety
    /// The buffers have room for the panels, and `numbers` for the rows of the target.
    unsafe fn compute(&self, numbers: Shared<f32>, (a_panels, b_panels): (Shared<u32>, Shared<u32>), pack_a: bool) {
        let (first, n) = self.columns;
        let m = self.a.rows;
        let is_large = m * n * self.k.1 >= PARALLEL_FROM;
        let n_threads = if self.how.threads == Threads::All && is_large { rayon::current_num_threads() } else { 1 };
        let tiles = Tiles::new(m, n, n_threads);
        let lanes = if self.how.dtype == Dtype::Float32 { self.k.1 } else { self.k.1.div_ceil(2) };
        let n_a = if pack_a { tiles.by_rows() } else { 0 };
        // SAFETY: every panel is written by one task; panel p of `lanes` lanes lies at p times its size.
        for_each(n_a + tiles.by_cols(), n_threads, |task| unsafe {
            if task < n_a {
                for panel in tiles.row_share(task) {
                    let rows = (panel * PANEL_ROWS, PANEL_ROWS.min(m - panel * PANEL_ROWS));
                    let out = a_panels.at(panel * PANEL_ROWS * lanes);
                    pack::panel(self.a, rows, self.k, self.how.dtype, Lanes { out, stride: PANEL_ROWS });
                }
            } else {
                for panel in tiles.col_share(task - n_a) {
                    let columns = PANEL_COLS.min(n - panel * PANEL_COLS);
                    let out = b_panels.at(panel * PANEL_COLS * lanes);
                    let range = (first + panel * PANEL_COLS, columns);
                    let stride = columns.next_multiple_of(VECTOR);
                    pack::panel(self.b.t(), range, self.k, self.how.dtype, Lanes { out, stride });
                }
            }
        });
        // SAFETY: every tile of the target is written by one task, and all panels are packed.
        for_each(tiles.len(), n_threads, |tile| unsafe {
            let (row_panels, col_panels) = tiles.panels(tile);
            for column in col_panels {
                let b = b_panels.at(column * PANEL_COLS * lanes).cast::<f32>();
                for row in row_panels.clone() {
                    let a = a_panels.at(row * PANEL_ROWS * lanes).cast::<f32>();
                    let rows = PANEL_ROWS.min(m - row * PANEL_ROWS);
                    let columns = PANEL_COLS.min(n - column * PANEL_COLS);
                    let c = numbers.at(row * PANEL_ROWS * self.row_stride + first + column * PANEL_COLS);
                    self.panel_by_panel((rows, columns), lanes, (a, b), c);
                }
            }
        });
    }

    /// # Safety
    /// Both panels hold `lanes` lanes, `c` is the first of `rows` × `columns` numbers.
    unsafe fn panel_by_panel(
        &self,
        (rows, columns): (usize, usize),
        lanes: usize,
        (a, b): (*const f32, *const f32),
        c: *mut f32,
    ) {
        let mask = |vector: usize| mask16(columns.saturating_sub(vector * VECTOR));
        let out = Out { c, row_stride: self.row_stride, add: self.add, scale: self.how.scale };
        let is_wide = columns > VECTOR;
        macro_rules! by_rows {
            ($kernel:ident: $($rows:literal)*) => {
                match (rows, is_wide) {
                    $(($rows, true) => $kernel::<$rows, 2>(lanes, a, b, out, [mask(0), mask(1)]),
                    ($rows, false) => $kernel::<$rows, 1>(lanes, a, b, out, [mask(0)]),)*
                    _ => unreachable!("a panel has 1 to {PANEL_ROWS} rows"),
                }
            };
        }
        // SAFETY: `serves` was asked for this precision; the rest is the caller's promise.
        unsafe {
            match self.how.dtype {
                Dtype::Float32 => by_rows!(multiply_f32: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
                Dtype::Bfloat16 => by_rows!(multiply_bf16: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
            }
        }
    }
}

fn for_each(n: usize, n_threads: usize, task: impl Fn(usize) + Sync + Send) {
    if n_threads == 1 {
        (0..n).for_each(task);
    } else {
        (0..n).into_par_iter().with_max_len(1).for_each(task);
    }
}

/// The lowest `n` bits, at most 16.
pub(super) fn mask16(n: usize) -> __mmask16 {
    if n >= VECTOR { u16::MAX } else { (1u16 << n) - 1 }
}

/// Where a kernel writes.
#[derive(Clone, Copy)]
struct Out {
    c: *mut f32,
    row_stride: usize,
    add: bool,
    scale: f32,
}

macro_rules! kernel {
    ($name:ident, $features:literal, $multiply_add:expr) => {
        /// `ROWS` rows of a left panel by `VECTORS` vectors of a right panel, over all lanes.
        ///
        /// # Safety
        /// The processor has the features; the panels hold `lanes` lanes; `out` has room for the rows and the masked columns.
        #[target_feature(enable = $features)]
        unsafe fn $name<const ROWS: usize, const VECTORS: usize>(
            lanes: usize,
            mut a: *const f32,
            mut b: *const f32,
            out: Out,
            masks: [__mmask16; VECTORS],
        ) {
            let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
            // SAFETY: the panels are `lanes` × PANEL_ROWS and `lanes` × 16·VECTORS lanes long.
            unsafe {
                for _ in 0..lanes {
                    let mut right = [_mm512_setzero_ps(); VECTORS];
                    for (j, vector) in right.iter_mut().enumerate() {
                        *vector = _mm512_loadu_ps(b.add(j * VECTOR));
                    }
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let left = _mm512_set1_ps(*a.add(i));
                        for (sum, right) in sums.iter_mut().zip(right) {
                            *sum = $multiply_add(*sum, left, right);
                        }
                    }
                    a = a.add(PANEL_ROWS);
                    b = b.add(VECTORS * VECTOR);
                }
                let scale = _mm512_set1_ps(out.scale);
                for (i, sums) in sums.into_iter().enumerate() {
                    for (j, (sum, mask)) in sums.into_iter().zip(masks).enumerate() {
                        let to = out.c.add(i * out.row_stride + j * VECTOR);
                        let mut value = _mm512_mul_ps(sum, scale);
                        if out.add {
                            value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, to));
                        }
                        _mm512_mask_storeu_ps(to, mask, value);
                    }
                }
            }
        }
    };
}

kernel!(multiply_f32, "avx512f", |sum, left, right| _mm512_fmadd_ps(left, right, sum));
kernel!(multiply_bf16, "avx512f,avx512bf16", |sum, left: __m512, right: __m512| {
    _mm512_dpbf16_ps(sum, pairs(left), pairs(right))
});

/// The same bits as pairs of bfloat16.
#[target_feature(enable = "avx512f,avx512bf16")]
fn pairs(lanes: __m512) -> __m512bh {
    // SAFETY: both are 64 bytes without invalid values.
    unsafe { std::mem::transmute(lanes) }
}
