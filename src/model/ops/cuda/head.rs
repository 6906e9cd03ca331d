//! The vocabulary head: linear, log-softmax and gather in one, some rows at a time.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::{
    launch::{
        Argument::{Address, Float, Int},
        Launch, address, unwritten,
    },
    product::{
        Before::{Nothing, Sum},
        factor_type, multiply,
    },
};
use crate::model::ops::{
    CompletionLogps,
    Factor::{Plain, Transposed},
    Head, LogitShape, Scoring,
};

/// Logits that exist at once, in bytes: enough rows to keep the tensor cores busy, little beside a model.
const SCRATCH_BYTES: usize = 512 << 20;

/// The factors of every product here, and room for some rows of logits.
struct Chunks {
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    /// (rows, V), float32.
    logits: Tensor,
    /// (rows, V) in the factors' type: the logits themselves if that is float32.
    gradient: Tensor,
    logps: Tensor,
    /// Of the logits; 0 is none.
    softcap: f32,
}

impl Chunks {
    fn new(hidden: &Tensor, weight: &Tensor, targets: &[u32], shape: LogitShape) -> Result<Self> {
        let (m, v) = (hidden.dim(0)?, weight.dim(0)?);
        if targets.len() != m || targets.iter().any(|t| *t as usize >= v) {
            bail!("{} targets do not fit {m} hidden states and {v} tokens", targets.len())
        }
        let device: &Device = hidden.device();
        let dtype = factor_type(shape.dtype);
        let n_rows = (SCRATCH_BYTES / (4 * v)).max(16).min(m);
        let logits = unwritten((n_rows, v), DType::F32, device)?;
        let gradient = if dtype == DType::F32 { logits.clone() } else { unwritten((n_rows, v), dtype, device)? };
        Ok(Self {
            hidden: hidden.to_dtype(dtype)?,
            weight: weight.to_dtype(dtype)?,
            targets: Tensor::new(targets, device)?,
            logits,
            gradient,
            logps: unwritten(m, DType::F32, device)?,
            softcap: shape.softcap.unwrap_or(0.0),
        })
    }

    /// First row and number of rows of each chunk.
    fn all(&self) -> Result<Vec<(usize, usize)>> {
        let (m, n_rows) = (self.hidden.dim(0)?, self.logits.dim(0)?.max(1));
        Ok((0..m).step_by(n_rows).map(|first| (first, n_rows.min(m - first))).collect())
    }

    /// Log-probabilities of one chunk; and its gradient times `scales` (one per row of all, or 1), if asked for, as (n, V).
    fn compute(&self, (first, n): (usize, usize), scales: Option<&Tensor>, with_gradient: bool) -> Result<Tensor> {
        let v = self.weight.dim(0)?;
        let logits = self.logits.narrow(0, 0, n)?;
        let gradient = self.gradient.narrow(0, 0, n)?;
        let hidden = self.hidden.narrow(0, first, n)?;
        multiply(&logits, Nothing, Plain(&hidden), Transposed(&self.weight), 1.0)?;
        let scales = scales.map_or(Ok(0), |scales| address(&scales.narrow(0, first, n)?, DType::F32))?;
        let into = if with_gradient { address(&gradient, gradient.dtype())? } else { 0 };
        Launch::typed("logps", &gradient)?
            .tensor(&logits, DType::F32)?
            .tensor(&self.targets.narrow(0, first, n)?, DType::U32)?
            .arguments([Address(scales), Int(i32::try_from(v)?), Float(self.softcap)])
            .tensor(&self.logps.narrow(0, first, n)?, DType::F32)?
            .arguments([Address(into)])
            .rows(n)?;
        Ok(gradient)
    }
}

/// Log-probabilities, and their gradients where the head is frozen.
pub(super) fn forward(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &[u32],
    head: Head,
    logits: LogitShape,
) -> Result<CompletionLogps> {
    let chunks = Chunks::new(hidden, weight, targets, logits)?;
    let d_hidden = match head {
        Head::Frozen => Some(unwritten(hidden.shape(), hidden.dtype(), hidden.device())?),
        Head::Score | Head::Trained => None,
    };
    for (first, n) in chunks.all()? {
        let gradient = chunks.compute((first, n), None, d_hidden.is_some())?;
        if let Some(d_hidden) = &d_hidden {
            multiply(&d_hidden.narrow(0, first, n)?, Nothing, Plain(&gradient), Plain(&chunks.weight), 1.0)?;
        }
    }
    Ok(CompletionLogps { logps: chunks.logps.to_vec1()?, d_hidden })
}

/// dL/dhidden of a trained head; dL/dweight is added to `d_weight`.
pub(super) fn backward(
    hidden: &Tensor,
    weight: &Tensor,
    Scoring { targets, d_logps, logits }: Scoring<'_>,
    d_weight: &Tensor,
) -> Result<Tensor> {
    let chunks = Chunks::new(hidden, weight, targets, logits)?;
    let scales = Tensor::new(d_logps, hidden.device())?;
    let d_hidden = unwritten(hidden.shape(), hidden.dtype(), hidden.device())?;
    for (first, n) in chunks.all()? {
        let gradient = chunks.compute((first, n), Some(&scales), true)?;
        multiply(&d_hidden.narrow(0, first, n)?, Nothing, Plain(&gradient), Plain(&chunks.weight), 1.0)?;
        let hidden = chunks.hidden.narrow(0, first, n)?;
        multiply(d_weight, Sum, Transposed(&gradient), Plain(&hidden), 1.0)?;
    }
    Ok(d_hidden)
}
