//! The functions between the two halves of a feed-forward layer.

/// A function of one number, and its derivative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x·σ(x) (SiLU); the derivative is σ(x)·(1 + x·(1 − σ(x))).
    Silu,
    /// x·Φ(x) with the normal distribution's Φ, through erf (GELU, arXiv 1606.08415); the derivative is Φ(x) + x·φ(x).
    Gelu,
    /// GELU by its approximation x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))).
    GeluTanh,
}
