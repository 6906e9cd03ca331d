//! The GPUs that runs are started on, as NVIDIA's driver tells of them (NVML): the server asks nothing of CUDA, which would take some of
//! their memory.
//!
//! A run sees one GPU only, by its UUID: CUDA numbers GPUs otherwise than NVML does.

use std::{env, ffi::OsStr, sync::Arc};

use nvml_wrapper::{Device, Nvml, error::NvmlError};

use crate::domain::{DeviceMemory, JobMemory};

/// The driver's library; the name without the number comes with development packages only.
const LIBRARY: &str = "libnvidia-ml.so.1";
/// What chooses GPUs for a program.
pub(super) const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// The GPUs of the slots: slot N has number N.
#[derive(Debug, Clone)]
pub struct Gpus {
    nvml: Arc<Nvml>,
    chosen: Vec<Gpu>,
}

#[derive(Debug, Clone)]
struct Gpu {
    uuid: String,
    name: String,
}

/// Why there are no GPUs to compute on.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// The driver does not answer.
    #[error(
        "NVIDIA's driver does not answer ({LIBRARY}; in a container it needs the capability 'utility', NVIDIA_DRIVER_CAPABILITIES): \
         use --device cpu, or see what `nvidia-smi` says"
    )]
    Driver(#[source] NvmlError),
    /// What chooses GPUs names one that is not there.
    #[error("{VISIBLE} names '{0}', and there is no such GPU: `nvidia-smi -L` lists them")]
    NotThere(String),
    /// There is none.
    #[error("there is no GPU: use --device cpu, or see what `nvidia-smi` and {VISIBLE} say")]
    None,
}

impl Gpus {
    /// Every GPU of this machine, or those that `CUDA_VISIBLE_DEVICES` chooses, in its order.
    ///
    /// # Errors
    /// With the way out in words.
    pub fn find() -> Result<Self, GpuError> {
        let nvml = Nvml::builder().lib_path(OsStr::new(LIBRARY)).init().map_err(GpuError::Driver)?;
        let all = (0..nvml.device_count().map_err(GpuError::Driver)?)
            .map(|index| gpu(&nvml.device_by_index(index)?))
            .collect::<Result<Vec<_>, _>>()
            .map_err(GpuError::Driver)?;
        let chosen = match env::var(VISIBLE) {
            Ok(names) => chosen(&names, all, |uuid| gpu(&nvml.device_by_uuid(uuid).ok()?).ok())?,
            Err(_) => all,
        };
        if chosen.is_empty() {
            return Err(GpuError::None);
        }
        Ok(Self { nvml: Arc::new(nvml), chosen })
    }

    /// What they are called, by slot.
    pub fn names(&self) -> Vec<&str> {
        self.chosen.iter().map(|gpu| gpu.name.as_str()).collect()
    }

    /// Their memory, whoever holds it; one that does not answer has none, so that the others are chosen.
    pub fn memory(&self) -> JobMemory {
        let memory = |(slot, gpu): (usize, &Gpu)| {
            let found = self.nvml.device_by_uuid(gpu.uuid.as_str()).and_then(|device| device.memory_info());
            let (free_bytes, all_bytes) = found.map_or((0, 0), |found| (found.free, found.total));
            DeviceMemory { device: format!("{slot}: {}", gpu.name), free_bytes, all_bytes }
        };
        JobMemory::OfSlots(self.chosen.iter().enumerate().map(memory).collect())
    }

    /// How CUDA knows a slot's GPU.
    pub(super) fn uuid(&self, slot: u16) -> Option<&str> {
        self.chosen.get(usize::from(slot)).map(|gpu| gpu.uuid.as_str())
    }
}

fn gpu(device: &Device<'_>) -> Result<Gpu, NvmlError> {
    Ok(Gpu { uuid: device.uuid()?, name: device.name()? })
}

/// Those that a list names: by number, by the beginning of a UUID, or a part of a GPU (`MIG-…`), which `part` looks up.
fn chosen(names: &str, all: Vec<Gpu>, part: impl Fn(&str) -> Option<Gpu>) -> Result<Vec<Gpu>, GpuError> {
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    let find = |name: &str| {
        if let Ok(index) = name.parse::<usize>() {
            return all.get(index).cloned();
        }
        if name.starts_with("MIG-") {
            return part(name);
        }
        all.iter().find(|gpu| name.starts_with("GPU-") && gpu.uuid.starts_with(name)).cloned()
    };
    names.map(|name| find(name).ok_or_else(|| GpuError::NotThere(name.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uuid: &str) -> Gpu {
        Gpu { uuid: uuid.to_owned(), name: String::new() }
    }

    #[test]
    fn gpus_are_chosen_by_number_uuid_or_part() {
        let choose = |names: &str| {
            let all = ["GPU-aa1", "GPU-ab2", "GPU-c"].map(of).to_vec();
            let part = |uuid: &str| (uuid == "MIG-x").then(|| of(uuid));
            chosen(names, all, part).map(|gpus| gpus.into_iter().map(|gpu| gpu.uuid).collect::<Vec<_>>())
        };
        assert_eq!(choose("2, 0").expect("there"), ["GPU-c", "GPU-aa1"]);
        assert_eq!(choose("GPU-ab,MIG-x").expect("there"), ["GPU-ab2", "MIG-x"]);
        assert!(choose("").expect("none").is_empty());
        for missing in ["3", "-1", "GPU-d", "MIG-y", "c"] {
            let refused = choose(missing).expect_err("not there").to_string();
            assert!(refused.contains(missing) && refused.contains("nvidia-smi -L"), "{refused}");
        }
    }
}
