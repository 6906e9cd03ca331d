//! Opening a GPU, and saying in words why there is none.

use std::panic::{self, AssertUnwindSafe};

use candle_core::{
    Device, Result, bail,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{
            CudaContext,
            result::{self, mem_pool},
            sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
        },
    },
};

/// A GPU as it presents itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its number.
    pub ordinal: usize,
    /// What its maker calls it.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// All of its memory.
    pub memory_bytes: usize,
}

/// All GPUs of this machine.
pub fn gpus() -> Result<Vec<Gpu>> {
    guarded(|| {
        let n = CudaContext::device_count().w()? as usize;
        let one = |ordinal| {
            let context = CudaContext::new(ordinal).w()?;
            Ok(Gpu {
                ordinal,
                name: context.name().w()?,
                capability: context.compute_capability().w()?,
                memory_bytes: context.total_mem().w()?,
            })
        };
        (0..n).map(one).collect()
    })
}

/// Free and all bytes of a GPU's memory.
pub fn memory(device: &Device) -> Result<(usize, usize)> {
    device.as_cuda_device()?.cuda_stream().context().mem_get_info().w()
}

/// Opens a GPU for computing.
pub fn open(ordinal: usize) -> Result<Device> {
    guarded(|| {
        let device = Device::new_cuda_with_stream(ordinal)?;
        let cuda = device.as_cuda_device()?;
        // SAFETY: everything of this process computes on the one stream of this device, so nothing has to wait for an event.
        unsafe { cuda.disable_event_tracking() };
        let stream = cuda.cuda_stream();
        let context = stream.context();
        let (major, minor) = context.compute_capability().w()?;
        if major < 8 {
            bail!("GPU {ordinal} has compute capability {major}.{minor}, and the kernels need 8.0 (Ampere) or newer")
        }
        // Freed memory stays with the process: a step needs what the step before has freed.
        let mut threshold = u64::MAX;
        // SAFETY: the pool is that of a device this process holds a context of; the attribute is a u64.
        unsafe {
            let pool = result::device::get_default_mem_pool(context.cu_device()).w()?;
            mem_pool::set_attribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, (&raw mut threshold).cast()).w()?;
        }
        Ok(device)
    })
}

/// Calls into the CUDA libraries for the first time: where one is missing, the loader panics.
fn guarded<R>(open: impl FnOnce() -> Result<R>) -> Result<R> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let outcome = panic::catch_unwind(AssertUnwindSafe(open));
    panic::set_hook(hook);
    match outcome {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(e)) => bail!("the GPU cannot be used: {e}"),
        Err(panicked) => {
            let why = panicked.downcast_ref::<String>().map(String::as_str);
            let why = why.or_else(|| panicked.downcast_ref::<&str>().copied()).unwrap_or("a library failed");
            bail!(
                "the GPU cannot be used: {}. It needs NVIDIA's driver (libcuda.so.1), and cuBLAS and cuRAND of CUDA 13 where \
                 LD_LIBRARY_PATH names them",
                why.lines().next().unwrap_or(why)
            )
        }
    }
}
