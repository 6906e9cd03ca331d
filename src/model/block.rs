//! One decoder block: attention and a feed-forward layer, each normalised before and perhaps after, each added to what went in.

use candle_core::{Result, Tensor};

use super::{
    attention::{AttentionLayers, AttentionTape},
    layout::Packed,
    linear::DropoutKey,
    mlp::{Mlp, MlpTape},
    norm::Norm,
    ops::{Compute, RopeTable, Sum},
    parameters::{Gradients, Parameters},
};

/// What every layer of one pass over a batch reads.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    /// Where and how it is computed.
    pub(super) compute: &'a Compute,
    /// What is trained.
    pub(super) parameters: &'a Parameters,
    /// Who sees whom.
    pub(super) batch: &'a Packed,
    /// The positions' angles, for each of the model's ropes.
    pub(super) ropes: &'a [RopeTable],
    /// Dropout is drawn under this key; without one there is none.
    pub(super) key: Option<DropoutKey>,
}

/// Its layers.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) attention_norm: Norm,
    pub(super) attention: AttentionLayers,
    pub(super) mlp_norm: Norm,
    pub(super) mlp: Mlp,
    /// Norms of what attention and the feed-forward layer add.
    pub(super) post_norms: [Option<Norm>; 2],
    /// Whether the feed-forward layer reads the block's input, and not what attention made of it.
    pub(super) is_parallel: bool,
}

/// What a block keeps for its backward; norms' outputs and the activated product are cheaper to compute again.
#[derive(Debug)]
pub(super) struct BlockTape<A> {
    inverse: [Tensor; 2],
    pub(super) attention: A,
    middle: Tensor,
    mlp: MlpTape,
    added: [Option<Added>; 2],
}

/// What a half adds, before its norm, and what that needs of it.
#[derive(Debug)]
struct Added {
    raw: Tensor,
    inverse: Tensor,
}

impl Block {
    /// Forward: y (N, D), and what the backward needs.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<(Tensor, BlockTape<AttentionTape>)> {
        self.forward_with(x, pass, |normed, into| self.attention.forward(normed, into, pass))
    }

    /// Forward of one token (1, D) after those in `before`, which it is added to.
    pub(super) fn forward_last(&self, x: &Tensor, before: &mut Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let attend = |normed: &Tensor, into| Ok((self.attention.forward_last(normed, into, before, pass)?, ()));
        Ok(self.forward_with(x, pass, attend)?.0)
    }

    fn forward_with<A>(
        &self,
        x: &Tensor,
        pass: &Pass<'_>,
        attend: impl FnOnce(&Tensor, Sum) -> Result<(Tensor, A)>,
    ) -> Result<(Tensor, BlockTape<A>)> {
        let (normed, inverse_1) = self.attention_norm.forward(x, pass)?;
        let (y, attention) = attend(&normed, self.begun(0, x, pass)?)?;
        let (middle, added_1) = self.added(0, y, x, pass)?;
        let (normed, inverse_2) = self.mlp_norm.forward(if self.is_parallel { x } else { &middle }, pass)?;
        let (y, mlp) = self.mlp.forward(&normed, self.begun(1, &middle, pass)?, pass)?;
        let (y, added_2) = self.added(1, y, &middle, pass)?;
        Ok((y, BlockTape { inverse: [inverse_1, inverse_2], attention, middle, mlp, added: [added_1, added_2] }))
    }

    /// The sum a half adds to: the residual, if nothing comes between.
    fn begun(&self, half: usize, residual: &Tensor, pass: &Pass<'_>) -> Result<Sum> {
        match self.post_norms[half] {
            None => pass.compute.sum_from(residual),
            Some(_) => pass.compute.sum(residual.dim(0)?, residual.dim(1)?),
        }
    }

    /// Normalises what a half made and adds it to the residual, if that was not done on the way.
    fn added(&self, half: usize, y: Tensor, residual: &Tensor, pass: &Pass<'_>) -> Result<(Tensor, Option<Added>)> {
        let Some(norm) = &self.post_norms[half] else { return Ok((y, None)) };
        let (normed, inverse) = norm.forward(&y, pass)?;
        pass.compute.add_in_place(&normed, residual)?;
        Ok((normed, Some(Added { raw: y, inverse })))
    }

    /// Returns dL/dx of the block's input `x`.
    pub(super) fn backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        tape: &BlockTape<AttentionTape>,
        pass: &Pass<'_>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let BlockTape { inverse: [inverse_1, inverse_2], attention, middle, mlp, .. } = tape;
        let read_by_mlp = if self.is_parallel { x } else { middle };
        let d_added = self.d_added(1, dy, tape, pass, gradients)?;
        let normed =
            if self.mlp.has_gradient() { Some(self.mlp_norm.again(read_by_mlp, inverse_2, pass)?) } else { None };
        let d_normed = self.mlp.backward(&d_added, normed.as_ref(), mlp, pass, gradients)?;
        let d_read = self.mlp_norm.backward(&d_normed, (read_by_mlp, inverse_2), Some(dy), pass, gradients)?;

        let d_middle = if self.is_parallel { dy } else { &d_read };
        let d_added = self.d_added(0, d_middle, tape, pass, gradients)?;
        let normed =
            if self.attention.has_gradient() { Some(self.attention_norm.again(x, inverse_1, pass)?) } else { None };
        let d_normed = self.attention.backward(&d_added, normed.as_ref(), attention, pass, gradients)?;
        // Of the input that goes on beside attention: through the feed-forward layer, if that reads it, and as it is.
        self.attention_norm.backward(&d_normed, (x, inverse_1), Some(&d_read), pass, gradients)
    }

    /// The gradient of what a half adds, before its norm if it has one.
    fn d_added(
        &self,
        half: usize,
        dy: &Tensor,
        tape: &BlockTape<AttentionTape>,
        pass: &Pass<'_>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        match (&self.post_norms[half], &tape.added[half]) {
            (Some(norm), Some(Added { raw, inverse })) => norm.backward(dy, (raw, inverse), None, pass, gradients),
            _ => Ok(dy.clone()),
        }
    }
}
