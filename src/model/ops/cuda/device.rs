//! Opening a GPU, and saying in words why there is none.

use std::panic::{self, AssertUnwindSafe};

use candle_core::{
    Device, Result, bail,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{
            result::{self, mem_pool},
            sys::CUmemPool_attribute_enum::{
                CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT,
                CU_MEMPOOL_ATTR_USED_MEM_CURRENT, CU_MEMPOOL_ATTR_USED_MEM_HIGH,
            },
        },
    },
};

use crate::model::device::Memory;

/// What a GPU is called.
pub(in crate::model) fn name(device: &Device) -> Result<String> {
    device.as_cuda_device()?.cuda_stream().context().name().w()
}

/// The memory of a GPU, in bytes, and how much of it this process has had since it was last asked.
pub(in crate::model) fn memory(device: &Device) -> Result<Memory> {
    let stream = device.as_cuda_device()?.cuda_stream();
    let context = stream.context();
    stream.synchronize().w()?;
    let (free, all) = context.mem_get_info().w()?;
    let [mut reserved, mut used, mut most_used, mut zero] = [0u64; 4];
    // SAFETY: the pool is that of a device this process holds a context of; the attributes are u64. Writing 0 to the last
    // begins its count anew.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device()).w()?;
        let read = |attribute, into: &mut u64| mem_pool::get_attribute(pool, attribute, (&raw mut *into).cast()).w();
        read(CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &mut reserved)?;
        read(CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &mut used)?;
        read(CU_MEMPOOL_ATTR_USED_MEM_HIGH, &mut most_used)?;
        mem_pool::set_attribute(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, (&raw mut zero).cast()).w()?;
    }
    // What this process has freed stays its own, and is as good as free to it.
    Ok(Memory { free: free + reserved.saturating_sub(used) as usize, all, most_used: most_used as usize })
}

/// Opens a GPU for computing.
pub(in crate::model) fn open(ordinal: usize) -> Result<Device> {
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
            // Then come all the names it has tried.
            let why = why.lines().next().unwrap_or(why).split(" - searched").next().unwrap_or(why);
            bail!(
                "the GPU cannot be used: {why}. It needs NVIDIA's driver (libcuda.so.1), and cuBLAS and cuRAND of CUDA 13 where \
                 LD_LIBRARY_PATH names them"
            )
        }
    }
}
