//! Reading a tensor's numbers as a slice, and making a tensor out of numbers.

use std::ops::Deref;

use candle_core::{CpuStorage, Device, Result, Storage, Tensor, bail};

/// The numbers of a contiguous f32 tensor on the CPU, borrowed. `G` is the guard candle hands out.
pub(super) struct HostF32<G> {
    storage: G,
    start: usize,
    len: usize,
}

/// Borrows the numbers of `tensor`; an error if it lies elsewhere, has another type, or is not contiguous.
pub(super) fn host(tensor: &Tensor) -> Result<HostF32<impl Deref<Target = Storage> + Sync + '_>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("an operation got a tensor of shape {:?} that is not contiguous", tensor.shape())
    };
    if !matches!(&*storage, Storage::Cpu(CpuStorage::F32(_))) {
        bail!(
            "an operation got a {:?} tensor on {:?}: only f32 on the CPU is supported",
            tensor.dtype(),
            tensor.device()
        )
    }
    Ok(HostF32 { storage, start, len: end - start })
}

impl<G: Deref<Target = Storage>> HostF32<G> {
    /// The numbers, row by row.
    pub(super) fn as_slice(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(numbers)) => &numbers[self.start..self.start + self.len],
            _ => unreachable!("checked when borrowed"),
        }
    }
}

/// A CPU tensor that takes over `numbers`.
pub(crate) fn tensor(numbers: Vec<f32>, shape: (usize, usize)) -> Result<Tensor> {
    Tensor::from_vec(numbers, shape, &Device::Cpu)
}

/// e^x by a polynomial without branches, so that a loop over it becomes vector instructions; relative error below 2e-7.
///
/// Below −87 the result is 0 (or the smallest normal number), above 88 it stays finite.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // Adding and taking away 1.5·2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.0, 88.0);
    let n = clamped * LOG2_E + ROUND - ROUND;
    // ln 2 in two parts, so that the remainder is exact to the last bit.
    let r = clamped - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5.000_000_3e-1;
    let p = p * r * r + r + 1.0;
    let scale = f32::from_bits(((n as i32 + 127) as u32) << 23);
    let y = p * scale;
    // A masked score is −∞: its weight is exactly zero.
    if x < -87.0 { 0.0 } else { y }
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
    }
}
