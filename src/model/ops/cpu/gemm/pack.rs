//! Packing: a stripe of a matrix into a panel whose lanes along k follow each other, rounded to the precision of the product.

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the instructions' own names say where they come from")
)]
use std::arch::x86_64::*;

use super::{Matrix, Right, avx512::mask16};
use crate::domain::Dtype;

/// Where a panel goes: lane l of row i at `out[l·stride + i]`; rows up to `stride` are filled with zeros.
#[derive(Clone, Copy)]
pub(super) struct Lanes {
    pub(super) out: *mut u32,
    pub(super) stride: usize,
}

/// Bytes of a line of the caches.
const LINE: usize = 64;

/// A stripe of a matrix: `n` lines of `k` numbers; what is not side by side is `stride` bytes apart.
#[derive(Clone, Copy)]
pub(super) struct Stripe {
    pub(super) from: *const u8,
    pub(super) stride: usize,
    pub(super) n: usize,
    pub(super) k: usize,
}

/// What of a stripe lies side by side.
#[derive(Clone, Copy)]
pub(super) enum Layout {
    /// The numbers of a line.
    Lines(Stripe),
    /// The lines.
    Columns(Stripe),
}

impl Stripe {
    /// # Safety
    /// The rows and columns lie inside the matrix.
    pub(super) unsafe fn of<T>(
        matrix: Matrix<'_, T>,
        (first, n): (usize, usize),
        (k_first, k): (usize, usize),
    ) -> Layout {
        let size = size_of::<T>();
        let offset = first * matrix.row_stride + k_first * matrix.col_stride;
        // SAFETY: the caller's promise.
        let from = unsafe { matrix.numbers.as_ptr().add(offset) }.cast::<u8>();
        if matrix.col_stride == 1 {
            return Layout::Lines(Self { from, stride: matrix.row_stride * size, n, k });
        }
        assert_eq!(matrix.row_stride, 1, "one stride of a factor is 1");
        Layout::Columns(Self { from, stride: matrix.col_stride * size, n, k })
    }
}

/// A panel of a right factor where it lies: what is packed next, or soon.
pub(super) struct Unpacked {
    layout: Layout,
    is_half: bool,
    /// How many bytes of how many runs of memory it is, and how much of that is fetched.
    n_runs: usize,
    run_bytes: usize,
    n_fetched: usize,
}

impl Unpacked {
    /// The rows `(first, n)` and the columns `k` = (first, n) of `matrix`.
    ///
    /// # Safety
    /// They lie inside the matrix, of which one stride is 1, and stay there.
    pub(super) unsafe fn new(matrix: Right<'_>, rows: (usize, usize), k: (usize, usize)) -> Self {
        // SAFETY: the caller's promise.
        let (layout, size) = unsafe {
            match matrix {
                Right::Single(matrix) => (Stripe::of(matrix, rows, k), 4),
                Right::Half(matrix) => (Stripe::of(matrix, rows, k), 2),
            }
        };
        let (n_runs, run) = if let Layout::Lines(_) = layout { (rows.1, k.1) } else { (k.1, rows.1) };
        Self { layout, is_half: size == 2, n_runs, run_bytes: run * size, n_fetched: 0 }
    }

    /// Asks for the next part of it to be brought near, a `share`-th of what is left: memory answers while others are multiplied.
    pub(super) fn fetch(&mut self, share: usize) {
        let (Layout::Lines(stripe) | Layout::Columns(stripe)) = self.layout;
        let lines_of_run = self.run_bytes / LINE + 1;
        let left = self.n_runs * lines_of_run - self.n_fetched;
        for i in self.n_fetched..self.n_fetched + left.div_ceil(share) {
            let offset = i / lines_of_run * stripe.stride + i % lines_of_run * LINE;
            // SAFETY: a prefetch may be of any address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(stripe.from.wrapping_add(offset).cast()) };
        }
        self.n_fetched += left.div_ceil(share);
    }

    /// Packs it.
    ///
    /// # Safety
    /// As of `new`; `lanes` has room; the processor has AVX-512 F and BW, and BF16 for `dtype` bfloat16.
    pub(super) unsafe fn pack(&self, dtype: Dtype, lanes: Lanes) {
        // SAFETY: the caller's promise.
        unsafe {
            match (self.layout, dtype, self.is_half) {
                (Layout::Lines(stripe), Dtype::Float32, _) => pack_lines_single(stripe, lanes),
                (Layout::Columns(stripe), Dtype::Float32, _) => pack_columns_single(stripe, lanes),
                (Layout::Lines(stripe), Dtype::Bfloat16, false) => pack_lines_half::<true>(stripe, lanes),
                (Layout::Columns(stripe), Dtype::Bfloat16, false) => pack_columns_half::<true>(stripe, lanes),
                (Layout::Lines(stripe), Dtype::Bfloat16, true) => pack_lines_half::<false>(stripe, lanes),
                (Layout::Columns(stripe), Dtype::Bfloat16, true) => pack_columns_half::<false>(stripe, lanes),
            }
        }
    }
}

/// Turns lines into lanes, 16 × 16 at a time. `$load` (line, first lane, numbers left from the first lane's) makes 16 lanes.
macro_rules! pack_lines {
    ($stripe:ident, $lanes:ident, $numbers_per_lane:literal, $load:expr) => {
        let n_lanes = $stripe.k.div_ceil($numbers_per_lane);
        for lane in (0..n_lanes).step_by(16) {
            let left = $stripe.k - lane * $numbers_per_lane;
            for first in (0..$lanes.stride).step_by(16) {
                let mut block = [_mm512_setzero_si512(); 16];
                let n = $stripe.n.saturating_sub(first).min(16);
                let mask = mask16($lanes.stride - first);
                // SAFETY: line first + i lies inside the stripe, and only numbers before its end are loaded; the panel holds
                // n_lanes × stride lanes.
                unsafe {
                    for (i, vector) in block.iter_mut().take(n).enumerate() {
                        *vector = $load($stripe.from.add((first + i) * $stripe.stride), lane, left);
                    }
                    turn(&mut block);
                    for (j, vector) in block.iter().enumerate().take(n_lanes - lane) {
                        let to = $lanes.out.add((lane + j) * $lanes.stride + first);
                        _mm512_mask_storeu_epi32(to.cast(), mask, *vector);
                    }
                }
            }
        }
    };
}

/// # Safety
/// As of [`Unpacked::pack`].
#[target_feature(enable = "avx512f")]
unsafe fn pack_lines_single(stripe: Stripe, lanes: Lanes) {
    pack_lines!(stripe, lanes, 1, |line: *const u8, lane: usize, left| {
        _mm512_maskz_loadu_epi32(mask16(left), line.add(lane * 4).cast())
    });
}

/// `ROUNDS` float32 to bfloat16; else they are that already.
///
/// # Safety
/// As of [`Unpacked::pack`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_lines_half<const ROUNDS: bool>(stripe: Stripe, lanes: Lanes) {
    pack_lines!(stripe, lanes, 2, |line: *const u8, lane: usize, left: usize| {
        if ROUNDS {
            let low = _mm512_maskz_loadu_ps(mask16(left), line.add(lane * 8).cast());
            // Behind the end nothing is loaded, wherever the address points.
            let high = line.wrapping_add(lane * 8 + 64).cast();
            round(low, _mm512_maskz_loadu_ps(mask16(left.saturating_sub(16)), high))
        } else {
            _mm512_maskz_loadu_epi16(mask32(left), line.add(lane * 4).cast())
        }
    });
}

/// The lines lie side by side already: a lane of 16 lines is one load.
///
/// # Safety
/// As of [`Unpacked::pack`].
#[target_feature(enable = "avx512f")]
unsafe fn pack_columns_single(stripe: Stripe, lanes: Lanes) {
    for lane in 0..stripe.k {
        for first in (0..lanes.stride).step_by(16) {
            let mask = mask16(stripe.n.saturating_sub(first));
            // SAFETY: only numbers of the stripe are loaded; the panel holds k × stride lanes.
            unsafe {
                let from = stripe.from.add(lane * stripe.stride).wrapping_add(first * 4);
                let vector = _mm512_maskz_loadu_epi32(mask, from.cast());
                let to = lanes.out.add(lane * lanes.stride + first);
                _mm512_mask_storeu_epi32(to.cast(), mask16(lanes.stride - first), vector);
            }
        }
    }
}

/// The lines lie side by side: a lane of 16 lines is two loads, interleaved.
///
/// # Safety
/// As of [`Unpacked::pack`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_columns_half<const ROUNDS: bool>(stripe: Stripe, lanes: Lanes) {
    let size = if ROUNDS { 4 } else { 2 };
    for lane in 0..stripe.k.div_ceil(2) {
        for first in (0..lanes.stride).step_by(16) {
            // The last lane of an odd k has one number only: nothing of a line behind the end is loaded.
            let mask = mask16(stripe.n.saturating_sub(first));
            let masks = (mask, if 2 * lane + 1 < stripe.k { mask } else { 0 });
            // SAFETY: only numbers of the stripe are loaded; the panel holds k / 2 (rounded up) × stride lanes.
            unsafe {
                let from = stripe.from.wrapping_add(2 * lane * stripe.stride + first * size);
                let to = lanes.out.add(lane * lanes.stride + first);
                let vector = pairs_of_lines::<ROUNDS>(from, stripe.stride, masks);
                _mm512_mask_storeu_epi32(to.cast(), mask16(lanes.stride - first), vector);
            }
        }
    }
}

/// 16 lanes: the numbers at `from`, each with its neighbour `stride` bytes on.
///
/// # Safety
/// What the masks (of the first, of the neighbours) name can be read; the processor has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn pairs_of_lines<const ROUNDS: bool>(
    from: *const u8,
    stride: usize,
    masks: (__mmask16, __mmask16),
) -> __m512i {
    #[rustfmt::skip]
    let interleave = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0,
    );
    let neighbours = from.wrapping_add(stride);
    // SAFETY: the caller's promise.
    let halves = unsafe {
        if ROUNDS {
            let low = _mm512_maskz_loadu_ps(masks.0, from.cast());
            round(low, _mm512_maskz_loadu_ps(masks.1, neighbours.cast()))
        } else {
            let low = _mm512_maskz_loadu_epi16(u32::from(masks.0), from.cast());
            let high = _mm512_maskz_loadu_epi16(u32::from(masks.1), neighbours.cast());
            _mm512_inserti64x4::<1>(low, _mm512_castsi512_si256(high))
        }
    };
    _mm512_permutexvar_epi16(interleave, halves)
}

/// 32 float32 as bfloat16, to the nearest even: `low` in the lower half.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn round(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both are 64 bytes without invalid values.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}

/// The lowest `n` bits, at most 32.
fn mask32(n: usize) -> __mmask32 {
    if n >= 32 { u32::MAX } else { (1u32 << n) - 1 }
}

/// Transposes 16 × 16 lanes.
#[target_feature(enable = "avx512f")]
pub(super) fn turn(rows: &mut [__m512i; 16]) {
    let mut half = [_mm512_setzero_si512(); 16];
    for i in 0..8 {
        half[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        half[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    for i in 0..4 {
        rows[4 * i] = _mm512_unpacklo_epi64(half[4 * i], half[4 * i + 2]);
        rows[4 * i + 1] = _mm512_unpackhi_epi64(half[4 * i], half[4 * i + 2]);
        rows[4 * i + 2] = _mm512_unpacklo_epi64(half[4 * i + 1], half[4 * i + 3]);
        rows[4 * i + 3] = _mm512_unpackhi_epi64(half[4 * i + 1], half[4 * i + 3]);
    }
    // rows[4i + j] now holds, in each quarter q, column 4q + j of rows 4i … 4i + 3.
    for j in 0..4 {
        let (a, b, c, d) = (rows[j], rows[4 + j], rows[8 + j], rows[12 + j]);
        let (low_ab, high_ab) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b));
        let (low_cd, high_cd) = (_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xee>(c, d));
        half[j] = _mm512_shuffle_i32x4::<0x88>(low_ab, low_cd);
        half[4 + j] = _mm512_shuffle_i32x4::<0xdd>(low_ab, low_cd);
        half[8 + j] = _mm512_shuffle_i32x4::<0x88>(high_ab, high_cd);
        half[12 + j] = _mm512_shuffle_i32x4::<0xdd>(high_ab, high_cd);
    }
    *rows = half;
}
