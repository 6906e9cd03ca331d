//! The heads of attention.

use candle_core::Tensor;

use crate::domain::Dtype;

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

/// What attention computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// The heads.
    pub heads: Heads,
    /// What q·k is multiplied by: the score.
    pub scale: f32,
    /// Scores s become c·tanh(s/c) (Gemma 2, arXiv 2408.00118).
    pub softcap: Option<f32>,
    /// Keys a query sees at most, itself among them: the nearest (sliding window, arXiv 2310.06825).
    pub window: Option<usize>,
    /// What the factors are rounded to.
    pub dtype: Dtype,
}

impl AttentionShape {
    /// Scores scaled by 1/√S, all keys seen.
    pub fn plain(heads: Heads, dtype: Dtype) -> Self {
        Self { heads, scale: (heads.size as f32).sqrt().recip(), softcap: None, window: None, dtype }
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
