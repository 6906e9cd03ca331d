//! What models are computed on.

use candle_core::{Device, Result, bail};

/// Most bytes of activations that are kept on the processor, before a batch's blocks keep their inputs only and compute the rest again.
const MOST_ACTIVATION_BYTES: u64 = 2 << 30;
/// ... and this part of the memory at most.
const ACTIVATION_SHARE: u64 = 8;
/// A frozen model's dense weights may take this part of the memory: the policy is there as well.
const DENSE_SHARE: u64 = 4;

/// Opens `cpu`, `cuda` (the first GPU) or `cuda:N`.
///
/// # Errors
/// In words: an unknown name, a GPU that cannot be used, or a program that was built without kernels for it.
pub fn open(name: &str) -> Result<Device> {
    if name == "cpu" {
        return Ok(Device::Cpu);
    }
    let ordinal = match name.strip_prefix("cuda") {
        Some("") => Some(0),
        Some(rest) => rest.strip_prefix(':').and_then(|n| n.parse().ok()),
        None => None,
    };
    let Some(ordinal) = ordinal else { bail!("the device '{name}' is not known: use cpu, cuda or cuda:N") };
    open_gpu(ordinal)
}

/// Whether this program can compute on GPUs.
///
/// # Errors
/// In words: how to build one that can.
pub fn has_kernels() -> Result<()> {
    #[cfg(feature = "cuda")]
    return Ok(());
    #[cfg(not(feature = "cuda"))]
    bail!("{NO_KERNELS}");
}

#[cfg(not(feature = "cuda"))]
const NO_KERNELS: &str =
    "this mrpo was built without kernels for GPUs: build it with scripts/cuda/build.sh, or use --device cpu";

/// What a device is called.
pub fn name(device: &Device) -> Result<String> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        return super::ops::cuda::name(device);
    }
    let Device::Cpu = device else { bail!("there are no kernels for {device:?}") };
    Ok("cpu".to_owned())
}

/// The memory of a GPU, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What this process can still have.
    pub free: usize,
    /// All of it.
    pub all: usize,
    /// The most this process has had at once since it was last asked.
    pub most_used: usize,
}

/// The memory of a GPU; `None` on the processor.
pub fn memory(device: &Device) -> Result<Option<Memory>> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        return super::ops::cuda::memory(device).map(Some);
    }
    let Device::Cpu = device else { bail!("there are no kernels for {device:?}") };
    Ok(None)
}

#[cfg(feature = "cuda")]
fn open_gpu(ordinal: usize) -> Result<Device> {
    super::ops::cuda::open(ordinal)
}

#[cfg(not(feature = "cuda"))]
fn open_gpu(_: usize) -> Result<Device> {
    bail!("{NO_KERNELS}")
}

/// Bytes of activations that may be kept on this device, now that a model's weights are on it.
pub fn activation_budget(device: &Device) -> Result<usize> {
    // The rest is for gradients, the optimizer's moments and what a step allocates in between. The budget moves time and memory,
    // never a result: what is computed again is the same to the last bit.
    Ok(match memory(device)? {
        Some(memory) => memory.free / 2,
        None => host_memory_bytes()
            .map_or(MOST_ACTIVATION_BYTES, |all| MOST_ACTIVATION_BYTES.min(all / ACTIVATION_SHARE))
            as usize,
    })
}

/// Bytes a frozen model's dense weights may take on the processor, before its quantised matrices stay as they are.
pub(super) fn dense_budget() -> u64 {
    host_memory_bytes().map_or(u64::MAX, |all| all / DENSE_SHARE)
}

/// The memory of this machine that a new process can have, or what its container has left of it; as Linux says it.
pub fn free_host_memory_bytes() -> Option<u64> {
    let free = meminfo("MemAvailable:")?;
    let left = container("memory.max").map(|max| max.saturating_sub(container("memory.current").unwrap_or(0)));
    Some(left.map_or(free, |left| free.min(left)))
}

/// The memory of this machine, or what its container may have of it; as Linux says it.
pub fn host_memory_bytes() -> Option<u64> {
    let all = meminfo("MemTotal:")?;
    Some(container("memory.max").map_or(all, |max| all.min(max)))
}

fn meminfo(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(kib.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// A number of the container's memory; none where it has no limit.
fn container(name: &str) -> Option<u64> {
    std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_memory_is_for_activations() {
        let budget = activation_budget(&Device::Cpu).expect("known") as u64;
        assert!((1 << 20..=MOST_ACTIVATION_BYTES).contains(&budget), "{budget}");
        assert!(host_memory_bytes().is_none_or(|all| budget <= all / ACTIVATION_SHARE), "{budget}");
    }

    #[test]
    fn devices_have_names_and_refusals_say_the_way_out() {
        assert!(matches!(open("cpu"), Ok(Device::Cpu)));
        for unknown in ["gpu", "cuda0", "cuda:", "cuda:x", ""] {
            let refused = open(unknown).expect_err("refused").to_string();
            assert!(refused.contains("use cpu, cuda or cuda:N"), "{refused}");
        }
        #[cfg(not(feature = "cuda"))]
        assert!(open("cuda:1").expect_err("refused").to_string().contains("scripts/cuda/build.sh"));
    }
}
