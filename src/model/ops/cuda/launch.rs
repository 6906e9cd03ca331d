//! Starting kernels: where a tensor's numbers lie on the GPU, and what a kernel is handed.
//!
//! All work of a device goes through one stream, in order: what a kernel writes, the next one reads, and memory that is freed
//! is used again only behind it. So addresses are plain numbers here, valid while their tensor lives.

use candle_core::{
    CudaDevice, DType, Device, Result, Shape, Storage, Tensor, bail,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{
            DevicePtr, LaunchConfig, PushKernelArg, result::memcpy_dtod_async,
            sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
        },
    },
};

/// Our kernels, compiled by build.rs.
const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));
/// Up to here a block gets its shared memory without asking.
const SHARED_BYTES_UNASKED: usize = 48 << 10;
/// Threads of a block of the kernels that go over numbers.
const THREADS: u32 = 256;
/// Most blocks of those whose loops stride over the grid.
const MOST_BLOCKS: usize = 4096;

/// Where the numbers of a contiguous tensor of this type begin.
pub(super) fn address(tensor: &Tensor, dtype: DType) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, _)) = layout.contiguous_offsets() else {
        bail!("an operation got a tensor of shape {:?} that is not contiguous", tensor.shape())
    };
    let Storage::Cuda(numbers) = &*storage else {
        bail!("an operation wants a tensor on a GPU and got one on {:?}", tensor.device())
    };
    if tensor.dtype() != dtype {
        bail!("an operation wants {dtype:?} and got {:?}", tensor.dtype())
    }
    let stream = numbers.device.cuda_stream();
    let base = match dtype {
        DType::F32 => numbers.as_cuda_slice::<f32>()?.device_ptr(&stream).0,
        DType::BF16 => numbers.as_cuda_slice::<half::bf16>()?.device_ptr(&stream).0,
        DType::U32 => numbers.as_cuda_slice::<u32>()?.device_ptr(&stream).0,
        DType::F64 => numbers.as_cuda_slice::<f64>()?.device_ptr(&stream).0,
        other => bail!("no kernel reads {other:?}"),
    };
    Ok(base + (start * dtype.size_in_bytes()) as u64)
}

/// A tensor on a GPU whose numbers are arbitrary: a kernel is to write all of them.
pub(super) fn unwritten(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    // SAFETY: any bits are numbers of these types.
    unsafe { Tensor::empty(shape, dtype, device) }
}

/// Copies all numbers of `from` over those of `to`.
pub(super) fn copy(from: &Tensor, to: &Tensor) -> Result<()> {
    let dtype = to.dtype();
    let (source, target) = (address(from, dtype)?, address(to, dtype)?);
    if from.elem_count() != to.elem_count() {
        bail!("{:?} numbers cannot be copied to {:?}", from.shape(), to.shape())
    }
    let stream = from.device().as_cuda_device()?.cuda_stream();
    stream.context().bind_to_thread().w()?;
    // SAFETY: both addresses hold as many numbers of this type.
    unsafe { memcpy_dtod_async(target, source, to.elem_count() * dtype.size_in_bytes(), stream.cu_stream()) }.w()
}

/// One argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Argument {
    /// A pointer; 0 is null.
    Address(u64),
    /// `size_t`.
    Count(u64),
    /// `int`.
    Int(i32),
    /// `float`.
    Float(f32),
}

/// A kernel about to be started.
pub(super) struct Launch {
    device: CudaDevice,
    name: String,
    arguments: Vec<Argument>,
}

impl Launch {
    /// The kernel of this name on the device of `tensor`.
    pub(super) fn new(name: impl Into<String>, tensor: &Tensor) -> Result<Self> {
        Ok(Self {
            device: tensor.device().as_cuda_device()?.clone(),
            name: name.into(),
            arguments: Vec::with_capacity(16),
        })
    }

    /// The kernel for activations of the type of `tensor`.
    pub(super) fn typed(name: &str, tensor: &Tensor) -> Result<Self> {
        Self::new(format!("{name}_{}", suffix(tensor.dtype())?), tensor)
    }

    /// Hands over a tensor of this type.
    pub(super) fn tensor(mut self, tensor: &Tensor, dtype: DType) -> Result<Self> {
        self.arguments.push(Argument::Address(address(tensor, dtype)?));
        Ok(self)
    }

    /// Hands over tensors of this type.
    pub(super) fn tensors<const N: usize>(self, tensors: [&Tensor; N], dtype: DType) -> Result<Self> {
        tensors.into_iter().try_fold(self, |launch, tensor| launch.tensor(tensor, dtype))
    }

    /// Hands over numbers.
    pub(super) fn arguments<const N: usize>(mut self, arguments: [Argument; N]) -> Self {
        self.arguments.extend(arguments);
        self
    }

    /// Starts it with one block per row.
    pub(super) fn rows(self, n: usize) -> Result<()> {
        self.blocks((n, 1), THREADS, 0)
    }

    /// Starts it for a loop over `n` numbers.
    pub(super) fn numbers(self, n: usize) -> Result<()> {
        self.blocks((n.div_ceil(THREADS as usize).min(MOST_BLOCKS), 1), THREADS, 0)
    }

    /// Starts it on a grid of blocks; `shared_bytes` of shared memory each. Without a block it does nothing.
    pub(super) fn blocks(self, (x, y): (usize, usize), n_threads: u32, shared_bytes: usize) -> Result<()> {
        if x == 0 || y == 0 {
            return Ok(());
        }
        let function = self.device.get_or_load_custom_func(&self.name, "mrpo", PTX)?;
        if shared_bytes > SHARED_BYTES_UNASKED {
            function.set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared_bytes as i32).w()?;
        }
        let mut builder = function.builder();
        for argument in &self.arguments {
            match argument {
                Argument::Address(x) | Argument::Count(x) => builder.arg(x),
                Argument::Int(x) => builder.arg(x),
                Argument::Float(x) => builder.arg(x),
            };
        }
        let config = LaunchConfig {
            grid_dim: (x as u32, y as u32, 1),
            block_dim: (n_threads, 1, 1),
            shared_mem_bytes: shared_bytes as u32,
        };
        // SAFETY: the arguments are those of the kernel's definition, which its caller stands beside; the addresses are of live tensors.
        unsafe { builder.launch(config) }.w()?;
        Ok(())
    }
}

/// What the names of kernels for this type of activations end in.
pub(super) fn suffix(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok("f32"),
        DType::BF16 => Ok("bf16"),
        other => bail!("activations are float32 or bfloat16 on a GPU, not {other:?}"),
    }
}
