//! Products on AVX-512: factors are packed into panels of 32-bit lanes, and one kernel multiplies a panel by a panel in registers.
//!
//! The left factor is packed once for all. Whoever computes a tile packs its panel of the right one and, while that is multiplied,
//! asks memory for the next: weights come from far away, and a product that waits for them loses a tenth.
//!
//! A lane holds one float32 or two neighbouring bfloat16 along k, so that both precisions share everything but two
//! instructions: `vfmadd231ps` and, at twice the rate, `vdpbf16ps` (both multiply and accumulate in float32).

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the instructions' own names say where they come from")
)]
use std::arch::x86_64::*;
use std::{cell::RefCell, thread::LocalKey};

use rayon::prelude::*;

use super::{
    How, Matrix, Output, Right, Start, Threads, left,
    pack::{Lanes, Unpacked},
    tiles::{PANEL_COLS, PANEL_ROWS, Tiles},
};
use crate::domain::Dtype;

/// Lanes of k that are packed at once: a panel of columns stays in the second-level cache. Shorter parts would be added to the
/// target more often, which costs more than reading a left factor of this length from the third.
const K_LANES: usize = 1536;
/// A product of fewer multiplications is not worth waking another thread for.
const PARALLEL_FROM: usize = 1 << 20;
/// Numbers of a vector.
const VECTOR: usize = 16;

thread_local! {
    /// The left factor's panels of the last product, kept for the next one.
    static LEFT: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    /// A panel of a right factor: each thread packs its own.
    static RIGHT: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of `n` lanes that begins where a cache line does, taken from `kept` and put back afterwards.
fn with_lanes<T>(kept: &'static LocalKey<RefCell<Vec<u32>>>, n: usize, work: impl FnOnce(*mut u32) -> T) -> T {
    let mut buffer = kept.take();
    if buffer.len() < n + VECTOR {
        buffer = vec![0; n + VECTOR];
    }
    // The kernel loads whole vectors: none may straddle two lines.
    let start = buffer.as_ptr().align_offset(64).min(VECTOR);
    let result = work(buffer[start..].as_mut_ptr());
    kept.set(buffer);
    result
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

/// A panel of columns: of which output, and its first column there.
#[derive(Clone, Copy)]
struct Columns {
    output: usize,
    first: usize,
    n: usize,
}

/// An output as the kernels see it: pointers, the target's and that of what it is added to.
#[derive(Clone, Copy)]
struct Place<'a> {
    b: Right<'a>,
    to: Shared<f32>,
    from: Option<Shared<f32>>,
    row_stride: usize,
}

/// A part of the products: a range of k.
struct Part<'a> {
    a: Matrix<'a>,
    places: &'a [Place<'a>],
    columns: &'a [Columns],
    how: How,
    k: (usize, usize),
    lanes: usize,
}

/// See [`super::products`], which has checked the sizes; neither rows nor k are 0. Only if [`serves`] says so.
pub(super) fn products(a: Matrix<'_>, outputs: &mut [Output<'_>], how: How) {
    let k = a.cols;
    let numbers_per_lane = if how.dtype == Dtype::Float32 { 1 } else { 2 };
    let mut columns = Vec::new();
    for (output, Output { b, .. }) in outputs.iter().enumerate() {
        let n = b.shape().1;
        columns.extend((0..n).step_by(PANEL_COLS).map(|first| Columns { output, first, n: PANEL_COLS.min(n - first) }));
    }
    if columns.is_empty() {
        return;
    }
    let mut places: Vec<Place<'_>> = outputs.iter_mut().map(Place::new).collect();
    for k_start in (0..k).step_by(K_LANES * numbers_per_lane) {
        let k_len = (K_LANES * numbers_per_lane).min(k - k_start);
        let lanes = k_len.div_ceil(numbers_per_lane);
        let part = Part { a, places: &places, columns: &columns, how, k: (k_start, k_len), lanes };
        let n_left = a.rows.next_multiple_of(PANEL_ROWS) * lanes.next_multiple_of(left::BLOCK);
        // SAFETY: the buffer holds the panels of one part, and the sizes of everything are checked.
        with_lanes(&LEFT, n_left, |panels| unsafe { part.compute(Shared(panels)) });
        // What follows along k is added to what is there.
        places.iter_mut().for_each(|place| place.from = Some(place.to));
    }
}

impl<'a> Place<'a> {
    fn new(output: &'a mut Output<'_>) -> Self {
        let to = Shared(output.target.numbers.as_mut_ptr());
        let from = match output.target.start {
            Start::Nothing => None,
            Start::Target => Some(to),
            // Read only.
            Start::Other(numbers) => Some(Shared(numbers.as_ptr().cast_mut())),
        };
        Self { b: output.b, to, from, row_stride: output.target.row_stride }
    }
}

impl Part<'_> {
    /// # Safety
    /// The buffer has room for the left factor's panels, and everything for the sizes it says.
    unsafe fn compute(&self, left_panels: Shared<u32>) {
        let (m, lanes) = (self.a.rows, self.lanes);
        let is_large = m * self.columns.len() * PANEL_COLS * self.k.1 >= PARALLEL_FROM;
        let n_threads = if self.how.threads == Threads::All && is_large { rayon::current_num_threads() } else { 1 };
        let rows_of = |panel: usize| (panel * PANEL_ROWS, PANEL_ROWS.min(m - panel * PANEL_ROWS));
        let left_panel = |panel: usize| panel * PANEL_ROWS * lanes.next_multiple_of(left::BLOCK);
        let n_panels = m.div_ceil(PANEL_ROWS);
        // SAFETY: every panel is written by one task.
        for_each(n_panels, n_threads, |panel| unsafe {
            left::panel(self.a, rows_of(panel), self.k, self.how.dtype, left_panels.at(left_panel(panel)));
        });
        let tiles = Tiles::new(n_panels, self.columns.len(), n_threads);
        // SAFETY: every tile of the targets is written by one task, and all its panels are packed.
        for_each(tiles.len(), n_threads, |tile| unsafe {
            let (row_panels, column) = tiles.panels(tile);
            let columns = self.columns[column];
            let mut ahead = self.columns.get(column + 1).map(|next| self.unpacked(*next));
            with_lanes(&RIGHT, PANEL_COLS * lanes, |right| {
                let stride = columns.n.next_multiple_of(VECTOR);
                self.unpacked(columns).pack(self.how.dtype, Lanes { out: right, stride });
                let n_left = row_panels.len();
                for (i, row) in row_panels.enumerate() {
                    if let Some(next) = &mut ahead {
                        next.fetch(n_left - i);
                    }
                    let left = left_panels.at(left_panel(row)).cast::<f32>();
                    self.panel_by_panel(rows_of(row), columns, (left, right.cast()));
                }
            });
        });
    }

    /// A panel of a right factor as it lies in memory.
    ///
    /// # Safety
    /// The columns lie inside their output.
    unsafe fn unpacked(&self, columns: Columns) -> Unpacked {
        // SAFETY: the caller's promise.
        unsafe { Unpacked::new(self.places[columns.output].b.t(), (columns.first, columns.n), self.k) }
    }

    /// # Safety
    /// Both panels are packed, and the rows and columns lie inside the output.
    unsafe fn panel_by_panel(&self, (row, n_rows): (usize, usize), columns: Columns, (a, b): (*const f32, *const f32)) {
        let place = &self.places[columns.output];
        let offset = row * place.row_stride + columns.first;
        let mask = |vector: usize| mask16(columns.n.saturating_sub(vector * VECTOR));
        let is_wide = columns.n > VECTOR;
        macro_rules! by_rows {
            ($out:ident, $kernel:ident: $($rows:literal)*) => {
                match (n_rows, is_wide) {
                    $(($rows, true) => $kernel::<$rows, 2>(self.lanes, a, b, $out, [mask(0), mask(1)]),
                    ($rows, false) => $kernel::<$rows, 1>(self.lanes, a, b, $out, [mask(0)]),)*
                    _ => unreachable!("a panel has 1 to {PANEL_ROWS} rows"),
                }
            };
        }
        // SAFETY: `serves` was asked for this type; the rest is the caller's promise.
        unsafe {
            let from = place.from.map_or(std::ptr::null(), |from| from.at(offset).cast_const());
            let out = Out { to: place.to.at(offset), from, row_stride: place.row_stride, scale: self.how.scale };
            match self.how.dtype {
                Dtype::Float32 => by_rows!(out, multiply_f32: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
                Dtype::Bfloat16 => by_rows!(out, multiply_bf16: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
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
    to: *mut f32,
    /// What is added, or null.
    from: *const f32,
    row_stride: usize,
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
                let mut add_lane = |a: *const f32, b: *const f32| {
                    let mut right = [_mm512_setzero_ps(); VECTORS];
                    for (j, vector) in right.iter_mut().enumerate() {
                        *vector = _mm512_loadu_ps(b.add(j * VECTOR));
                    }
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let left = _mm512_set1_ps(*a.add(i * left::BLOCK));
                        for (sum, right) in sums.iter_mut().zip(right) {
                            *sum = $multiply_add(*sum, left, right);
                        }
                    }
                };
                for _ in 0..lanes / left::BLOCK {
                    for lane in 0..left::BLOCK {
                        add_lane(a.add(lane), b.add(lane * VECTORS * VECTOR));
                    }
                    a = a.add(PANEL_ROWS * left::BLOCK);
                    b = b.add(left::BLOCK * VECTORS * VECTOR);
                }
                for lane in 0..lanes % left::BLOCK {
                    add_lane(a.add(lane), b.add(lane * VECTORS * VECTOR));
                }
                let scale = _mm512_set1_ps(out.scale);
                for (i, sums) in sums.into_iter().enumerate() {
                    for (j, (sum, mask)) in sums.into_iter().zip(masks).enumerate() {
                        let at = i * out.row_stride + j * VECTOR;
                        let mut value = _mm512_mul_ps(sum, scale);
                        if !out.from.is_null() {
                            value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, out.from.add(at)));
                        }
                        _mm512_mask_storeu_ps(out.to.add(at), mask, value);
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
