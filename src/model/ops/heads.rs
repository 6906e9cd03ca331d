//! The heads of attention.

use candle_core::Tensor;

/// Numbers and size of attention heads; `query` is a multiple of `key_value` (grouped-query attention, arXiv 2305.13245).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads H.
    pub query: usize,
    /// Key and value heads K.
    pub key_value: usize,
    /// Size S of one head.
    pub size: usize,
}

impl Heads {
    /// Width of all queries, H·S.
    pub fn q_width(self) -> usize {
        self.query * self.size
    }

    /// Width of all keys, K·S.
    pub fn kv_width(self) -> usize {
        self.key_value * self.size
    }

    /// Width of queries, keys and values side by side, (H+2K)·S.
    pub fn joined_width(self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }

    /// Query heads that share one key and value head.
    pub(super) fn group(self) -> usize {
        self.query / self.key_value
    }
}

/// What the forward of attention yields.
#[derive(Debug, Clone)]
pub struct Attention {
    /// (N, H·S).
    pub output: Tensor,
    /// Per query head and token, log Σ exp(score): (H, N), float32.
    pub log_sums: Tensor,
}
