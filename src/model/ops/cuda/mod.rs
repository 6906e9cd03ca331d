//! The kernels of NVIDIA GPUs: our own in CUDA C++ (`kernels/`), products by cuBLAS.
//!
//! Activations are bfloat16 or float32, as the products' factors are; statistics, sums of products over tokens, trained parameters
//! and their gradients float32. No kernel adds with atomics: the same seed gives the same bits on the same kind of GPU.

mod plan;

#[cfg(feature = "cuda")]
mod activation;
#[cfg(feature = "cuda")]
mod attention;
#[cfg(feature = "cuda")]
mod device;
#[cfg(feature = "cuda")]
mod head;
#[cfg(feature = "cuda")]
mod kernels;
#[cfg(feature = "cuda")]
mod launch;
#[cfg(feature = "cuda")]
mod pointwise;
#[cfg(feature = "cuda")]
mod product;
#[cfg(feature = "cuda")]
mod rope;
#[cfg(feature = "cuda")]
mod rows;

#[cfg(feature = "cuda")]
pub(in crate::model) use device::{memory, name, open};
#[cfg(feature = "cuda")]
pub(super) use kernels::Cuda;
