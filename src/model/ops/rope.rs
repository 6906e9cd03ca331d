//! Angles of rotary position embedding (RoPE, arXiv 2104.09864).

use candle_core::{Device, Result, Tensor};

/// Cosines and sines of the angles of some positions, on the device of the activations they turn.
#[derive(Debug, Clone)]
pub struct RopeTable {
    /// (N, head size / 2), float32.
    pub(super) cos: Tensor,
    /// The same shape.
    pub(super) sin: Tensor,
}

impl RopeTable {
    /// Angles position·frequency, one row for each of `positions`.
    pub fn new(positions: &[u32], frequencies: &[f32], device: &Device) -> Result<Self> {
        let angles = positions.iter().flat_map(|p| frequencies.iter().map(move |f| f64::from(*p as f32 * f)));
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.map(|a| (a.cos() as f32, a.sin() as f32)).unzip();
        let shape = (positions.len(), frequencies.len());
        Ok(Self { cos: Tensor::from_vec(cos, shape, device)?, sin: Tensor::from_vec(sin, shape, device)? })
    }
}
