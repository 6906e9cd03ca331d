//! Packing: a stripe of a matrix into a panel whose lanes along k follow each other, rounded to the precision of the product.

use std::arch::x86_64::*;

use super::{Element, Matrix, avx512::mask16};
use crate::domain::Dtype;

/// Where a panel goes: lane l of row i at `out[l·stride + i]`; rows up to `stride` are filled with zeros.
#[derive(Clone, Copy)]
pub(super) struct Lanes {
    pub(super) out: *mut u32,
    pub(super) stride: usize,
}

/// A lane is a float32.
const SINGLE: u8 = 0;
/// A lane is two float32, rounded to bfloat16.
const ROUNDED: u8 = 1;
/// A lane is two bfloat16.
const PAIR: u8 = 2;

/// A stripe of a matrix: `n` lines of `k` numbers, lines (or numbers of a line) `stride` bytes apart.
#[derive(Clone, Copy)]
struct Stripe {
    from: *const u8,
    stride: usize,
    n: usize,
    k: usize,
}

/// Packs the rows `(first, n)` and the columns `k` = (first, n) of `matrix`.
///
/// # Safety
/// They lie inside the matrix, of which one stride is 1; `lanes` has room; the processor has AVX-512 F and BW.
pub(super) unsafe fn panel<T: Element>(
    matrix: Matrix<'_, T>,
    (first, n): (usize, usize),
    (k_first, k): (usize, usize),
    dtype: Dtype,
    lanes: Lanes,
) {
    let size = size_of::<T>();
    let offset = first * matrix.row_stride + k_first * matrix.col_stride;
    // SAFETY: the caller's promise.
    unsafe {
        let from = matrix.numbers.as_ptr().add(offset).cast::<u8>();
        if matrix.col_stride == 1 {
            let rows = Stripe { from, stride: matrix.row_stride * size, n, k };
            match (dtype, T::DTYPE) {
                (Dtype::Float32, _) => pack_rows::<SINGLE>(rows, lanes),
                (Dtype::Bfloat16, Dtype::Float32) => pack_rows::<ROUNDED>(rows, lanes),
                (Dtype::Bfloat16, Dtype::Bfloat16) => pack_rows::<PAIR>(rows, lanes),
            }
        } else {
            assert_eq!(matrix.row_stride, 1, "one stride of a factor is 1");
            let columns = Stripe { from, stride: matrix.col_stride * size, n, k };
            match (dtype, T::DTYPE) {
                (Dtype::Float32, _) => pack_columns::<SINGLE>(columns, lanes),
                (Dtype::Bfloat16, Dtype::Float32) => pack_columns::<ROUNDED>(columns, lanes),
                (Dtype::Bfloat16, Dtype::Bfloat16) => pack_columns::<PAIR>(columns, lanes),
            }
        }
    }
}

/// Each line's numbers lie side by side: 16 lines by 16 lanes are turned at once.
///
/// # Safety
/// As of [`panel`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_rows<const KIND: u8>(rows: Stripe, lanes: Lanes) {
    let n_lanes = if KIND == SINGLE { rows.k } else { rows.k.div_ceil(2) };
    for lane in (0..n_lanes).step_by(16) {
        for first in (0..lanes.stride).step_by(16) {
            let mut block = [_mm512_setzero_si512(); 16];
            let n = rows.n.saturating_sub(first).min(16);
            // SAFETY: row first + i lies inside the stripe, and only numbers before its end are loaded.
            unsafe {
                for (i, vector) in block.iter_mut().take(n).enumerate() {
                    let row = rows.from.add((first + i) * rows.stride);
                    *vector = match KIND {
                        SINGLE => _mm512_maskz_loadu_epi32(mask16(rows.k - lane), row.add(lane * 4).cast()),
                        ROUNDED => {
                            let left = rows.k - 2 * lane;
                            let low = _mm512_maskz_loadu_ps(mask16(left), row.add(lane * 8).cast());
                            // Behind the end nothing is loaded, wherever the address points.
                            let high = row.wrapping_add(lane * 8 + 64).cast();
                            round_pairs(low, _mm512_maskz_loadu_ps(mask16(left.saturating_sub(16)), high))
                        }
                        _ => _mm512_maskz_loadu_epi16(mask32(rows.k - 2 * lane), row.add(lane * 4).cast()),
                    };
                }
            }
            turn(&mut block);
            let mask = mask16(lanes.stride - first);
            // SAFETY: the panel holds n_lanes × stride lanes.
            unsafe {
                for (j, vector) in block.iter().enumerate().take(n_lanes - lane) {
                    _mm512_mask_storeu_epi32(lanes.out.add((lane + j) * lanes.stride + first).cast(), mask, *vector);
                }
            }
        }
    }
}

/// The lines lie side by side: a lane of 16 lines is one load, or two that are interleaved.
///
/// # Safety
/// As of [`panel`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_columns<const KIND: u8>(columns: Stripe, lanes: Lanes) {
    let n_lanes = if KIND == SINGLE { columns.k } else { columns.k.div_ceil(2) };
    #[rustfmt::skip]
    let interleave = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0,
    );
    for lane in 0..n_lanes {
        for first in (0..lanes.stride).step_by(16) {
            let mask = mask16(columns.n.saturating_sub(first));
            let has_second = 2 * lane + 1 < columns.k;
            // SAFETY: only numbers of the stripe are loaded; the panel holds n_lanes × stride lanes.
            unsafe {
                let at =
                    |number: usize, size: usize| columns.from.add(number * columns.stride).wrapping_add(first * size);
                let vector = match KIND {
                    SINGLE => _mm512_maskz_loadu_epi32(mask, at(lane, 4).cast()),
                    ROUNDED => {
                        let low = _mm512_maskz_loadu_ps(mask, at(2 * lane, 4).cast());
                        let high = if has_second {
                            _mm512_maskz_loadu_ps(mask, at(2 * lane + 1, 4).cast())
                        } else {
                            _mm512_setzero_ps()
                        };
                        let low = _mm512_srli_epi32::<16>(round(low));
                        _mm512_or_si512(low, _mm512_and_si512(round(high), _mm512_set1_epi32(-0x1_0000)))
                    }
                    _ => {
                        let low = _mm512_maskz_loadu_epi16(u32::from(mask), at(2 * lane, 2).cast());
                        let high = if has_second {
                            _mm512_maskz_loadu_epi16(u32::from(mask), at(2 * lane + 1, 2).cast())
                        } else {
                            _mm512_setzero_si512()
                        };
                        let both = _mm512_inserti64x4::<1>(low, _mm512_castsi512_si256(high));
                        _mm512_permutexvar_epi16(interleave, both)
                    }
                };
                let to = lanes.out.add(lane * lanes.stride + first);
                _mm512_mask_storeu_epi32(to.cast(), mask16(lanes.stride - first), vector);
            }
        }
    }
}

/// float32 rounded to bfloat16, to the nearest even, in the upper half of each lane. What arithmetic makes of NaN stays NaN.
#[target_feature(enable = "avx512f")]
fn round(numbers: __m512) -> __m512i {
    let bits = _mm512_castps_si512(numbers);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)))
}

/// 32 neighbouring numbers, rounded, as 32 bfloat16.
#[target_feature(enable = "avx512f,avx512bw")]
fn round_pairs(low: __m512, high: __m512) -> __m512i {
    let half = |numbers| _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(round(numbers)));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(half(low)), half(high))
}

/// The lowest `n` bits, at most 32.
fn mask32(n: usize) -> __mmask32 {
    if n >= 32 { u32::MAX } else { (1u32 << n) - 1 }
}

/// Transposes 16 × 16 lanes.
#[target_feature(enable = "avx512f")]
fn turn(rows: &mut [__m512i; 16]) {
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
