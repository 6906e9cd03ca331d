//! Reading and writing a tensor's numbers as a slice, loops over them on all threads, and the functions of one number.

#![expect(clippy::inline_always, reason = "a loop is compiled for the processor only where all of it is inlined")]

use std::{marker::PhantomData, ops::Deref, sync::Mutex};

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Result, Storage, Tensor, WithDType, bail};
use rayon::prelude::*;

/// Numbers per task of a loop: enough that starting the task costs nothing, few enough to stay in the first cache.
pub(super) const CHUNK: usize = 1 << 12;

/// Lanes of a sum: partial sums that make vector instructions possible, and keep small terms beside large ones.
pub(super) const LANES: usize = 16;

/// The numbers of a contiguous tensor on the CPU, borrowed. `G` is the guard candle hands out.
pub(super) struct Host<G, T> {
    storage: G,
    start: usize,
    len: usize,
    of: PhantomData<T>,
}

/// Borrows the numbers of `tensor`; an error if it lies elsewhere, has another type, or is not contiguous.
pub(super) fn host<T: WithDType>(tensor: &Tensor) -> Result<Host<impl Deref<Target = Storage> + Sync + '_, T>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("an operation got a tensor of shape {:?} that is not contiguous", tensor.shape())
    };
    if !matches!(&*storage, Storage::Cpu(_)) || tensor.dtype() != T::DTYPE {
        bail!(
            "an operation wants {:?} on the CPU and got a {:?} tensor on {:?}",
            T::DTYPE,
            tensor.dtype(),
            tensor.device()
        )
    }
    Ok(Host { storage, start, len: end - start, of: PhantomData })
}

impl<G: Deref<Target = Storage>, T: WithDType> Host<G, T> {
    /// The numbers, row by row.
    pub(super) fn as_slice(&self) -> &[T] {
        match &*self.storage {
            Storage::Cpu(storage) => match T::cpu_storage_as_slice(storage) {
                Ok(numbers) => &numbers[self.start..self.start + self.len],
                Err(_) => unreachable!("checked when borrowed"),
            },
            _ => unreachable!("checked when borrowed"),
        }
    }
}

/// Hands the numbers of a contiguous f32 tensor to `write`, which changes them in place.
pub(super) fn write<R>(tensor: &Tensor, write: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
    struct Write<F, R>(Mutex<(Option<F>, Option<R>)>);
    impl<R, F: FnOnce(&mut [f32]) -> R> InplaceOp1 for Write<F, R> {
        fn name(&self) -> &'static str {
            "write"
        }

        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
            let CpuStorage::F32(numbers) = storage else { bail!("only f32 is written in place") };
            let Some((start, end)) = layout.contiguous_offsets() else {
                bail!("only whole tensors are written in place")
            };
            let mut state = self.0.lock().expect("nothing panicked while it was held");
            let write = state.0.take().expect("called once");
            state.1 = Some(write(&mut numbers[start..end]));
            Ok(())
        }
    }
    let op = Write(Mutex::new((Some(write), None)));
    tensor.inplace_op1(&op)?;
    Ok(op.0.into_inner().expect("nothing panicked while it was held").1.expect("called"))
}

/// A f32 tensor whose numbers `write` sets, all of them: they are arbitrary before.
pub(super) fn written<S: Into<candle_core::Shape>>(shape: S, fill: impl FnOnce(&mut [f32])) -> Result<Tensor> {
    // SAFETY: any bits are floats; that none of them are read before `fill` has set them is its contract.
    let tensor = unsafe { Tensor::empty(shape, candle_core::DType::F32, &Device::Cpu) }?;
    write(&tensor, fill)?;
    Ok(tensor)
}

/// Two of them at once.
pub(super) fn written_pair<S: Into<candle_core::Shape>>(
    first: S,
    second: S,
    fill: impl FnOnce(&mut [f32], &mut [f32]),
) -> Result<(Tensor, Tensor)> {
    let mut other = None;
    let one = written(first, |one| other = Some(written(second, |other| fill(one, other))))?;
    Ok((one, other.expect("made inside")?))
}

/// A matrix that several threads write parts of, each its own.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    numbers: *mut f32,
    len: usize,
    of: PhantomData<&'a mut [f32]>,
}

// SAFETY: `part` hands out disjoint parts only, which its callers promise.
unsafe impl Send for Parts<'_> {}
// SAFETY: as above.
unsafe impl Sync for Parts<'_> {}

impl<'a> Parts<'a> {
    /// All of `numbers`.
    pub(super) fn new(numbers: &'a mut [f32]) -> Self {
        Self { numbers: numbers.as_mut_ptr(), len: numbers.len(), of: PhantomData }
    }

    /// `len` numbers from `start`.
    ///
    /// # Safety
    /// No part that overlaps it is in use anywhere.
    pub(super) unsafe fn part(self, start: usize, len: usize) -> &'a mut [f32] {
        assert!(start + len <= self.len, "a part lies inside its matrix");
        // SAFETY: inside, by the line above; nobody else uses it, by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.numbers.add(start), len) }
    }
}

/// Vectors this processor has, as far as loops are compiled for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vectors {
    /// AVX-512.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// What the program as a whole is compiled for.
    Baseline,
}

impl Vectors {
    /// Those of this processor.
    #[inline]
    pub(super) fn here() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Baseline
    }
}

/// A function compiled once for each kind of processor and chosen at run time.
///
/// What it calls must be inlined (`#[inline(always)]`, small closures) to profit.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident$(<$g:ident: $bound:path>)?($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name$(<$g: $bound>)?($($arg: $type),*) $(-> $ret)? {
            use $crate::model::ops::cpu::host::Vectors;

            #[inline(always)]
            fn baseline$(<$g: $bound>)?($($arg: $type),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2$(<$g: $bound>)?($($arg: $type),*) $(-> $ret)? {
                baseline$(::<$g>)?($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
            fn avx512$(<$g: $bound>)?($($arg: $type),*) $(-> $ret)? {
                baseline$(::<$g>)?($($arg),*)
            }

            match Vectors::here() {
                // SAFETY: the processor was asked.
                #[cfg(target_arch = "x86_64")]
                Vectors::Avx512 => unsafe { avx512$(::<$g>)?($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Vectors::Avx2 => unsafe { avx2$(::<$g>)?($($arg),*) },
                _ => baseline$(::<$g>)?($($arg),*),
            }
        }
    };
}
pub(super) use vectorised;

/// Runs `f(first row, rows of y)` over chunks of whole rows of `y`, `width` numbers each, on all threads; a row costs about as much as
/// `cost` numbers.
pub(super) fn for_row_chunks(y: &mut [f32], cost: usize, width: usize, f: impl Fn(usize, &mut [f32]) + Sync + Send) {
    let rows = (CHUNK / cost.max(1)).max(1);
    y.par_chunks_mut((rows * width).max(1)).enumerate().for_each(|(i, y)| f(i * rows, y));
}

/// Σ f(i) over LANES partial sums, in an order that does not depend on the processor.
#[inline(always)]
pub(super) fn lane_sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let whole = n / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += f(i + lane);
        }
        i += LANES;
    }
    let mut total = 0f32;
    for i in whole..n {
        total += f(i);
    }
    total + tree_sum(sums)
}

/// Pairwise: the same tree whatever the vectors' width.
#[inline(always)]
fn tree_sum(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0]
}

/// The largest of the numbers, −∞ if there are none.
#[inline(always)]
pub(super) fn max_of(numbers: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = numbers.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (max, x) in lanes.iter_mut().zip(chunk) {
            *max = if *x > *max { *x } else { *max };
        }
    }
    rest.iter().chain(&lanes).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// e^x by a polynomial without branches, so that a loop over it becomes vector instructions; relative error below 2e-7.
///
/// Below −87 the result is 0, above 88 it stays finite. NaN gives NaN.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // Adding 1.5·2^23 rounds to the nearest integer, and leaves it in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let upper = if x > 88.0 { 88.0 } else { x };
    let clamped = if upper < -87.0 { -87.0 } else { upper };
    let shifted = clamped.mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts, so that the remainder is exact to the last bit.
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, clamped));
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 5.000_000_3e-1);
    let p = (p * r).mul_add(r, r) + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    // A masked score is −∞: its weight is exactly zero.
    if x < -87.0 { 0.0 } else { p * scale }
}

/// Replaces each number by e^(x − shift) and returns their sum, over LANES partial sums.
#[inline(always)]
pub(super) fn exp_in_place(numbers: &mut [f32], shift: f32) -> f32 {
    let mut sums = [0f32; LANES];
    let mut chunks = numbers.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *x = exp(*x - shift);
            *sum += *x;
        }
    }
    let mut rest = 0f32;
    for x in chunks.into_remainder() {
        *x = exp(*x - shift);
        rest += *x;
    }
    rest + tree_sum(sums)
}

/// 1 / (1 + e^−x).
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// tanh, without branches; relative error below 3e-7.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    // Near 0 the quotient below has lost the small x in the 1.
    let square = x * x;
    let mut p = -5.704_988_7e-3_f32;
    p = p.mul_add(square, 2.063_909e-2);
    p = p.mul_add(square, -5.373_971_6e-2);
    p = p.mul_add(square, 1.333_144_2e-1);
    p = p.mul_add(square, -3.333_328e-1);
    let near = (p * square).mul_add(x, x);
    let far = 1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0);
    if x.abs() < 0.625 { near } else { far.copysign(x) }
}

/// Φ, the normal distribution's cumulative function (Abramowitz and Stegun 7.1.26 for erf); absolute error below 3e-7.
#[inline(always)]
pub(super) fn normal(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / 0.327_591_1_f32.mul_add(z, 1.0);
    let mut p = 1.061_405_4_f32;
    p = p.mul_add(t, -1.453_152);
    p = p.mul_add(t, 1.421_413_7);
    p = p.mul_add(t, -0.284_496_74);
    p = p.mul_add(t, 0.254_829_6);
    let tail = 0.5 * p * t * exp(-z * z);
    if x < 0.0 { tail } else { 1.0 - tail }
}

vectorised! {
    /// Each number z becomes cap·tanh(z/cap).
    pub(super) fn cap_in_place(numbers: &mut [f32], cap: f32) {
        numbers.iter_mut().for_each(|z| *z = cap * tanh(*z / cap));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_polynomial_is_the_exponential() {
        let mut worst = 0f64;
        for i in -870_000..880_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2e-7, "{worst}");
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan() && exp(1e30).is_finite());
    }

    #[test]
    fn approximations_are_close_to_their_functions() {
        let (mut of_tanh, mut of_normal) = (0f64, 0f64);
        for i in -100_000..100_000 {
            let x = i as f32 * 1e-4 + 5e-5;
            let exact = f64::from(x).tanh();
            of_tanh = of_tanh.max((f64::from(tanh(x)) - exact).abs() / exact.abs());
            of_normal = of_normal.max((f64::from(normal(x) + normal(-x)) - 1.0).abs());
        }
        assert!(of_tanh < 3e-7 && of_normal < 3e-7, "{of_tanh} {of_normal}");
        assert_eq!((tanh(0.0), tanh(50.0), tanh(-50.0)), (0.0, 1.0, -1.0));
        for (x, exact) in [(0.0, 0.5), (1.0, 0.841_344_746), (-1.0, 0.158_655_254), (-3.0, 0.001_349_898)] {
            assert!((f64::from(normal(x)) - exact).abs() < 3e-7, "{x}");
        }
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn sums_and_maxima_of_any_length() {
        for n in [0, 1, 15, 16, 17, 100] {
            let numbers: Vec<f32> = (0..n).map(|i| (i * 7 % 13) as f32).collect();
            assert_eq!(lane_sum(n, |i| numbers[i]), numbers.iter().sum::<f32>());
            assert_eq!(max_of(&numbers), numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
