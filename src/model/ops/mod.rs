//! The operations of the trainable models, each with a forward and a backward of its own.
//!
//! candle's fused `rms_norm`, `softmax_last_dim` and `rope` have no backward and drop gradients without an error, and its
//! autograd keeps every intermediate; so nothing here is ever recorded on candle's graph. Tensors are f32 and contiguous,
//! on the CPU. Every result row depends on its own inputs only and is computed by one thread in a fixed order, so results do
//! not depend on how the rows are spread over threads.

mod attention;
mod completion_logps;
mod host;
mod matrix;
mod rms_norm;
mod rope;
mod sum;
mod swiglu;

pub use attention::{Attention, Heads, attention, attention_backward, attention_last};
pub use completion_logps::{CompletionLogps, Head, completion_logps, head_backward};
pub(crate) use host::tensor;
pub use rms_norm::{rms_norm, rms_norm_again, rms_norm_backward, rms_norm_weight_gradient};
pub use rope::{RopeTable, join_rotated, split_rotated_back};
pub use sum::{Factor, Sum};
pub use swiglu::{swiglu, swiglu_backward};
